"""Files: replaced completely or not at all, never through a link, and read only if they are regular files."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

import pytest

from charloom import files
from charloom.errors import ModelError
from charloom.files import append, cut_lines, make_folder, read, remove_leftovers, replace_file, replace_folder


class Killed(BaseException):
    """Imitates a kill: no code catches it, and nothing is cleaned up."""


def fail_at(patch, number):
    """Kills at the n-th operation on the disk; returns the list of all operations."""
    touches = []

    def failing(name, original):
        def touch(*arguments, **options):
            touches.append(name)
            if len(touches) == number:
                raise Killed
            return original(*arguments, **options)

        return touch

    for owner, name in ((os, "fsync"), (Path, "open"), (Path, "replace")):
        patch.setattr(owner, name, failing(name, getattr(owner, name)))
    return touches


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    """Catches a file written in place."""
    path = tmp_path / "run.toml"
    for number in count(1):
        path.write_bytes(b"old")
        with pytest.MonkeyPatch.context() as patch:
            touches = fail_at(patch, number)
            try:
                replace_file(path, b"new")
            except Killed:
                assert path.read_bytes() in (b"old", b"new")
        if len(touches) < number:
            break
    assert (path.read_bytes(), number) == (b"new", 5)


def test_two_processes_in_one_folder_do_not_mix_their_files(tmp_path):
    """Catches two processes that write into `last.new`: files of one model beside those of another."""
    outer = tmp_path / "last"
    replace_folder(outer, {"a": b"0", "b": b"0"})
    write = files._write

    def with_another(path, data):
        write(path, data)
        if data == b"1":
            replace_folder(outer, {"a": b"2", "b": b"2"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_write", with_another)
        replace_folder(outer, {"a": b"1", "b": b"1"})
    assert {path.name: path.read_bytes() for path in outer.iterdir()} == {"a": b"1", "b": b"1"}
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_only_what_killed_processes_left_is_removed(tmp_path):
    """Catches a user's file with a similar name that is removed, and a link to a user's folder that is followed."""
    mine = ["notes.new", "x.new-12", "last.newer", "last"]
    for name in (*mine, "last.new", "run.toml.new-0123abcd"):
        (tmp_path / name).write_text("x")
    (tmp_path / "last.new-01234567").mkdir()
    (tmp_path / "last.new-01234567" / "config.json").write_text("{}")
    (tmp_path / "best.new-89abcdef").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "best.new").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "file").write_text("x")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*mine, "elsewhere"])
    assert (tmp_path / "elsewhere" / "file").exists()


def test_a_folder_is_made_with_its_parents_and_never_in_place_of_a_file(tmp_path):
    """Catches a run folder that is made again after a user removed it, and parents that a power cut loses."""
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file" / "below")
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "gone" / "last", {"a": b""})
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(
    ("size", "left"), [(99, b"one\ntw\n"), (6, b"one\ntw\n"), (4, b"one\n"), (1, b"o\n"), (0, b"")]
)
def test_a_torn_line_gets_its_end(tmp_path, size, left):
    """Catches a new line that is joined to an incomplete one."""
    path = tmp_path / "log"
    path.write_bytes(b"one\ntw")
    cut_lines(path, size)
    assert path.read_bytes() == left
    assert append(path, b"new\n") == len(left) + 4
    assert path.read_bytes() == left + b"new\n"


@pytest.mark.parametrize("write", [lambda path: append(path, b"x"), lambda path: cut_lines(path, 0)])
def test_neither_a_link_nor_a_fifo_is_written(tmp_path, write):
    """Catches a user's file that is changed through a link in a run folder, and a FIFO that blocks the program."""
    (tmp_path / "mine").write_text("mine")
    path = tmp_path / "log.jsonl"
    path.symlink_to("mine")
    with pytest.raises(OSError, match=r"a link, and none is followed: .*log\.jsonl"):
        write(path)
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(OSError, match=r"a link, and none is followed: .*log\.jsonl"):
        write(path)
    path.unlink()
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match=r"not a regular file: .*log\.jsonl"):
        write(path)
    os.close(reader)
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_is_not_written_in_place_of_a_link(tmp_path):
    """Catches a link to another disk that is removed, and a model that is written to its target."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "last").symlink_to("elsewhere")
    with pytest.raises(OSError, match=r"a link, and none is followed: .*last"):
        replace_folder(tmp_path / "last", {"a": b""})
    assert not any((tmp_path / "elsewhere").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "last"]


def test_only_a_regular_file_is_read_and_no_more_of_it_than_allowed(tmp_path):
    """Catches a FIFO that is waited for, a device without an end, and a file of gigabytes in place of kilobytes."""
    path = tmp_path / "config.json"
    path.write_bytes(b"12345")
    assert read(path, 5) == b"12345"
    with pytest.raises(ModelError, match=r"config\.json must have at most 4 bytes; it has 5"):
        read(path, 4)
    path.unlink()
    os.mkfifo(path)
    for place in (path, Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(OSError, match="not a regular file"):
            read(place)
    with pytest.raises(OSError, match=r"regular file|directory"):
        read(tmp_path)
