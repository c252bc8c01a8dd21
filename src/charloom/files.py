"""Files read without waiting and written to last: what a model folder, a run folder and their data are made of.

Reading takes regular files only, so a FIFO or a device never holds the program up. Writing follows no link. A file or
folder is written whole under a name of its own, synced to the disk, and renamed into place. POSIX cannot rename over
a folder that is not empty, so for a moment the old one stands aside as `NAME.old`; who reads looks there second.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

from charloom.errors import ModelError

LARGEST_TEXT = 64 << 20  # bytes of a file that is read whole; a vocabulary of all of Unicode takes 15 MiB

AT_ONCE: int = getattr(os, "O_NONBLOCK", 0)  # Windows has neither
NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)


def opened(path: Path, most: int | None = None) -> BufferedReader:
    """Opens a regular file to be read.

    Raises:
        OSError: if it is not there, not readable, or something else.
        ModelError: if it has more than `most` bytes.
    """
    file = cast(BufferedReader, _regular(path, "rb", 0))
    size = os.fstat(file.fileno()).st_size
    if most is not None and size > most:
        file.close()
        raise ModelError(f"{path.name} must have at most {most} bytes; it has {size}")
    return file


def read(path: Path, most: int = LARGEST_TEXT) -> bytes:
    """What a regular file of at most `most` bytes holds; errors as of `opened`."""
    with opened(path, most) as file:
        return file.read(most)


def append(path: Path, data: bytes) -> int:
    """Adds to the end of a file, which is made where there is none; returns its size in bytes.

    Raises:
        OSError: if it is a link or no regular file, or the disk is full.
    """
    with _own(path, "ab") as file:
        file.write(data)
        return file.tell()


def cut_lines(path: Path, size: int) -> None:
    """Cuts a file of lines to at most `size` bytes. A torn last line gets its end: the next must not become part of it.

    Raises:
        OSError: if it is not there, a link or no regular file.
    """
    with _own(path, "r+b") as file:
        file.truncate(min(size, os.fstat(file.fileno()).st_size))
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read(1) not in (b"\n", b""):
            file.write(b"\n")


def sync(path: Path) -> None:
    """Makes a file's content, or the names in a folder, last through a power cut; Windows cannot open a folder."""
    folder = path.is_dir()
    if os.name == "posix" or not folder:
        handle = os.open(path, (os.O_RDONLY if folder else os.O_RDWR) | AT_ONCE)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_folder(path: Path) -> None:
    """Makes a folder that lasts through a power cut, and its parents; one that is there already stays as it is."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync(path.parent)


def replace_file(path: Path, data: bytes) -> None:
    """Puts a file with this content at `path` so that at every moment the old or the new one is there whole."""
    fresh = _beside(path)
    try:
        _write(fresh, data)
        fresh.replace(path)
    except OSError:
        _remove(fresh)
        raise
    sync(path.parent)


def replace_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Puts a folder with these files at `path` so that at every moment the old or the new one is there whole.

    Raises:
        OSError: if the disk is full or not writable, `path` is a link, or the folder around it is not there; what was
            at `path` stays.
    """
    refuse_link(path)
    fresh, old = _beside(path), path.with_name(path.name + ".old")
    fresh.mkdir()
    try:
        for name, data in files.items():
            _write(fresh / name, data)
        sync(fresh)
        if os.path.lexists(path):
            _remove(old)
            path.rename(old)
        fresh.rename(path)
    except OSError:
        _remove(fresh)
        raise
    sync(path.parent)
    _remove(old)


def refuse_link(path: Path) -> None:
    """Makes sure that what is written at a path is written there.

    Raises:
        OSError: if the path is a link.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "a link, and none is followed", str(path))


def remove_leftovers(folder: Path) -> None:
    """Removes what writers left in a folder when they were killed; only where no other process may be writing now."""
    for path in folder.glob("*.new-" + 8 * "[0-9a-f]"):
        _remove(path)
    for name in ("best", "last", "run.toml"):  # of older versions
        _remove(folder / f"{name}.new")


def _beside(path: Path) -> Path:
    """A name that no other writer of `path` uses."""
    return path.with_name(f"{path.name}.new-{secrets.token_hex(4)}")


def _write(path: Path, data: bytes) -> None:
    """Writes a new file through to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    """Removes a folder with all that is in it, a file or a link, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _own(path: Path, mode: str) -> BinaryIO:
    """Opens a file to be written: itself, never what it leads to."""
    refuse_link(path)
    return _regular(path, mode, NO_LINK)


def _regular(path: Path, mode: str, further: int) -> BinaryIO:
    """Opens a regular file, and nothing else: opening a FIFO waits for its other end, and a device may have no end."""

    def opener(name: str, flags: int) -> int:
        handle = os.open(name, flags | AT_ONCE | further, 0o666)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return handle

    return cast(BinaryIO, open(path, mode, opener=opener))
