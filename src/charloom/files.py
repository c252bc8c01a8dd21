"""Safe reading and durable writing of the files in model folders and run folders.

Only regular files are read, so a FIFO or a device cannot block the program. Writing follows no link. A file or folder
is written under a temporary name, synced to the disk, and renamed. POSIX cannot rename over a folder that is not empty.
So the old folder is `NAME.old` for a moment, and a reader tries that name second.
"""

from __future__ import annotations

import errno
import os
import reprlib
import secrets
import shutil
import stat
from collections.abc import Mapping
from fnmatch import fnmatchcase
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

from charloom.errors import ModelError, SettingsError

LARGEST_TEXT = 64 << 20  # bytes of a file that is read whole; a vocabulary of all of Unicode takes 15 MiB

TEMPORARY = "*.new-" + 8 * "[0-9a-f]"

AT_ONCE: int = getattr(os, "O_NONBLOCK", 0)  # Windows has neither flag
NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)


AnyPath = str | os.PathLike[str]


def checked_path(path: object, argument: str) -> str:
    """A path of a user as a string.

    Args:
        path: the path that the user gave.
        argument: its name, for the error.

    Raises:
        SettingsError: if it is neither a string nor a `pathlib.Path`.
    """
    if isinstance(path, str | os.PathLike) and isinstance(found := os.fspath(path), str):
        return found
    raise SettingsError(f"`{argument}` must be a string or a pathlib.Path; got {reprlib.repr(path)}")


def opened(path: Path, most: int | None = None) -> BufferedReader:
    """Opens a regular file for reading.

    Raises:
        OSError: if it is missing, not readable, or not a regular file.
        ModelError: if it has more than `most` bytes.
    """
    file = cast(BufferedReader, _regular(path, "rb", 0))
    size = os.fstat(file.fileno()).st_size
    if most is not None and size > most:
        file.close()
        raise ModelError(f"{path.name} must have at most {most} bytes; it has {size}")
    return file


def read(path: Path, most: int = LARGEST_TEXT) -> bytes:
    """The content of a regular file of at most `most` bytes; errors as in `opened`."""
    with opened(path, most) as file:
        return file.read(most)


def append(path: Path, data: bytes) -> int:
    """Appends to a file, or creates it; returns its size in bytes.

    Raises:
        OSError: if it is a link or not a regular file, or the disk is full.
    """
    with _own(path, "ab") as file:
        file.write(data)
        return file.tell()


def cut_lines(path: Path, size: int) -> None:
    """Truncates a file of lines to at most `size` bytes, and ends an incomplete last line with a newline.

    Raises:
        OSError: if it is missing, a link or not a regular file.
    """
    with _own(path, "r+b") as file:
        file.truncate(min(size, os.fstat(file.fileno()).st_size))
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read(1) not in (b"\n", b""):
            file.write(b"\n")


def sync(path: Path) -> None:
    """Syncs a file, or the names in a folder, to the disk (not a folder on Windows, which cannot open one)."""
    folder = path.is_dir()
    if os.name == "posix" or not folder:
        handle = os.open(path, (os.O_RDONLY if folder else os.O_RDWR) | AT_ONCE)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_folder(path: Path) -> None:
    """Creates a folder and its parents if missing, and syncs them to the disk."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync(path.parent)


def replace_file(path: Path, data: bytes) -> None:
    """Replaces a file at `path` atomically: at every moment, the old or the new file is there and complete."""
    fresh = _beside(path)
    try:
        _write(fresh, data)
        fresh.replace(path)
    except OSError:
        _remove(fresh)
        raise
    sync(path.parent)


def replace_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Replaces a folder at `path`. At every moment, the old or the new folder is there and complete.

    Raises:
        OSError: if the disk is full or not writable, `path` is a link, or the parent folder is missing. The old folder
            stays.
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
    """Checks that a path is not a link, which a write would follow.

    Raises:
        OSError: if the path is a link.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "a link, and none is followed", str(path))


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files of killed processes from a folder. No other process may write to it at the same time."""
    for path in folder.glob(TEMPORARY):
        _remove(path)
    for name in ("best", "last", "run.toml"):  # of older versions
        _remove(folder / f"{name}.new")


def is_leftover(name: str) -> bool:
    """Whether a file has the name of a temporary one."""
    return fnmatchcase(name, TEMPORARY)


def _beside(path: Path) -> Path:
    """A temporary name beside `path` that no other process uses."""
    return path.with_name(f"{path.name}.new-{secrets.token_hex(4)}")


def _write(path: Path, data: bytes) -> None:
    """Writes a new file and syncs it to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    """Removes a folder with its content, a file or a link, if it exists and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _own(path: Path, mode: str) -> BinaryIO:
    """Opens a file for writing; a link is an error."""
    refuse_link(path)
    return _regular(path, mode, NO_LINK)


def _regular(path: Path, mode: str, further: int) -> BinaryIO:
    """Opens only a regular file: opening a FIFO waits for its other end, and a device may be endless."""

    def opener(name: str, flags: int) -> int:
        handle = os.open(name, flags | AT_ONCE | further, 0o666)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return handle

    return cast(BinaryIO, open(path, mode, opener=opener))
