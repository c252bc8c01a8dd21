"""Copies of sources that can be read only once: their size, their end, and no file on the disk afterwards."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from charloom.data import sources
from charloom.data.sources import Source, Spool, find_source, share, shown_path, without_secrets
from charloom.errors import TextError

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


class Endless(io.RawIOBase):
    """Bytes without an end; counts the bytes that were read."""

    def __init__(self) -> None:
        self.taken = 0

    def read(self, size: int = -1) -> bytes:
        self.taken += size
        assert self.taken < 100 * sources.CHUNK
        return bytes(size)


def test_a_copy_is_read_like_a_file():
    """Catches two readers of one copy that share a position, and a missing seek, which packed files need."""
    data = bytes(range(256)) * 1000
    spool = Spool(io.BytesIO(data), "x")
    with spool.opened() as one, spool.opened() as two:
        assert one.read(1000) == data[:1000]
        assert two.read(10) == data[:10]
        assert one.read(1000) == data[1000:2000]
        assert (two.seek(-5, io.SEEK_END), two.read()) == (len(data) - 5, data[-5:])
        assert (two.seek(3), two.seek(4, io.SEEK_CUR), two.read(1)) == (3, 7, data[7:8])
    for ending, pack in ((".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), ("", bytes)):
        source = Source(f"a{ending}", Spool(io.BytesIO(pack(data)), "x"))
        assert b"".join(source.blocks(999)) == b"".join(source.blocks(999)) == data
        assert source.bytes_at(777, 5) == data[777:782]


@posix
def test_a_copy_has_no_name(temporary: Path):
    """Catches gigabytes in the temporary folder after a process was killed."""
    names: list[str] = []

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            names.extend(os.listdir(temporary))
            return super().read(size)

    spool = Spool(Watched(b"text"), "x")
    assert (names, os.listdir(temporary)) == ([], [])
    assert spool.opened().read() == b"text"


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_leaves_nothing_behind(temporary: Path, number: signal.Signals):
    """Catches a copy that stays because the process ended while it was made."""
    program = "import sys; from charloom.data.sources import Spool; print(flush=True); Spool(sys.stdin.buffer, 'stdin')"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(temporary)},
    ) as process:
        process.stdout.readline()
        process.stdin.write(bytes(3 * sources.CHUNK))  # more than a pipe holds, so the copy has begun after this call
        process.stdin.flush()
        process.send_signal(number)
        assert process.wait() != 0
    assert os.listdir(temporary) == []


def test_what_has_no_end_stops_before_the_disk_is_full(temporary: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches `/dev/zero` or a slow server that fills the disk."""
    space = iter(range(16 * sources.CHUNK, 0, -sources.CHUNK))
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda folder: SimpleNamespace(free=next(space)))
    endless = Endless()
    with pytest.raises(TextError, match=r"^stdin did not end after 9 MB, and .* has 8 MB free; save the wanted"):
        Spool(endless, "stdin")
    assert endless.taken == 9 * sources.CHUNK


def test_there_is_a_limit_on_the_largest_disk(monkeypatch: pytest.MonkeyPatch):
    """Catches an hour of copying before the error that /dev/zero is not text."""
    monkeypatch.setattr(sources, "LARGEST_COPY", 3 * sources.CHUNK)
    with pytest.raises(TextError, match=r"did not end after 4 MB, which is the limit"):
        Spool(Endless(), "stdin")


@posix
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_devices_are_no_texts(device: str):
    """Catches a device that is copied for hours."""
    with pytest.raises(TextError, match=f"{device} is a device, not a text"):
        find_source(device)


@posix
def test_a_terminal_is_read():
    """Catches text from /dev/tty that is refused like other devices."""
    main, terminal = os.openpty()
    name = os.ttyname(terminal)
    os.write(main, b"typed\n\x04\x04")  # the second ^D is for another read
    assert b"".join(find_source(name).blocks()) == b"typed\n"
    os.close(main)
    os.close(terminal)


@posix
def test_a_pipe_has_the_name_it_was_given(tmp_path: Path):
    """Catches an ending that is lost with the copy."""
    os.mkfifo(tmp_path / "a.txt.gz")
    thread = threading.Thread(target=(tmp_path / "a.txt.gz").write_bytes, args=(gzip.compress(b"text"),))
    thread.start()
    assert b"".join(find_source(str(tmp_path / "a.txt.gz")).blocks()) == b"text"
    thread.join()


@pytest.mark.parametrize(
    ("part", "whole", "says"),
    [(0, 0, "0.00%"), (0, 5, "0.00%"), (1, 10**6, "less than 0.01%"), (1, 10**4, "0.01%"), (1, 3, "33.33%")],
)  # fmt: skip
def test_shares(part: int, whole: int, says: str):
    """Catches a small part that is shown as 0.00%."""
    assert share(part, whole) == says


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("http://me:secret@h/a.txt", "http://…@h/a.txt"),
        ("https://token@h:80/a@b.txt?X-Amz-Signature=secret&u=https://h/?b", "https://…@h:80/a@b.txt?…"),
        ("zip://a.txt::https://h/b.zip?sig=secret::x", "zip://a.txt::https://h/b.zip?…::x"),
        ("invalid URL 'http://h/a?key=secret' of http://me:secret@h", "invalid URL 'http://h/a?…' of http://…@h"),
        ("s3://b/shard-?.txt", "s3://b/shard-?.txt"),
        ("me@home/what?a=b.txt", "me@home/what?a=b.txt"),
    ],
)
def test_secrets_of_urls_are_not_shown(path: str, shown: str):
    """Catches a password in a log, and a path or glob that is taken for a URL with a query."""
    assert shown_path(path) == without_secrets(path) == shown
