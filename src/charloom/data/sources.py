"""Sources of bytes: a file, a compressed file, stdin, or a copy of a URL (`urls.py`). Each can be opened many times.

Stdin, a pipe or a URL can be read only once, so it is copied to a temporary file first: training reads its corpus more
than once. `.gz`, `.bz2` and `.xz` files are unpacked while they are read.
"""

from __future__ import annotations

import bz2
import gzip
import io
import re
import shutil
import stat
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Protocol, cast

from charloom.errors import TextError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

# Bytes in one read. Their arrays stay in the processor's cache: with 4 MiB, reading takes 1.35 times as long (LOG.md).
CHUNK = 1 << 20
COMPRESSIONS = (".gz", ".bz2", ".xz")
LONGEST_SHOWN = 1000  # characters of a path in a message; it may be a text that a user passed as a path
LARGEST_COPY = 64 << 30  # bytes; more than a character-level model can use; a limit for endless input

USER = re.compile(r"://[^/?\s]*@")
QUERY = re.compile(r"(https?://[^?]*\?)[^\s'\"]+?(?=::|[\s'\"]|$)")


class BinaryFile(TextError):
    """A file that is not text; skipped in folders."""


class UnreadableFile(TextError):
    """A file that cannot be opened, read or unpacked; skipped in folders, with a notice."""


@dataclass(frozen=True)
class Source:
    """Bytes that can be read many times.

    name: as the user gave it, for messages and endings; place: the file with the bytes, or the temporary copy, which
    exists as long as the source.
    """

    name: str
    place: Path | Spool

    @property
    def shown(self) -> str:
        """The name, as a message prints it."""
        return shown_path(self.name)

    @property
    def compression(self) -> str:
        """`.gz`, `.bz2`, `.xz`, or empty."""
        return compression_of(self.name)

    @property
    def size(self) -> int:
        """Bytes, as stored."""
        return self.place.size() if isinstance(self.place, Spool) else self.place.stat().st_size

    @property
    def ending(self) -> str:
        """The ending in lower case, without that of the compression: `.jsonl` for `a.JSONL.gz`."""
        return _ending(place(self.name).lower().removesuffix(self.compression))

    def blocks(self, size: int = CHUNK, start: int = 0) -> Iterator[bytes]:
        """The unpacked bytes from offset `start`, `size` at a time.

        Raises:
            UnreadableFile: it cannot be opened or read, or its compression is damaged.
        """
        try:
            with self.opened(self.compression) as file:
                file.seek(start)
                while block := file.read(size):
                    yield block
        except OSError as error:
            raise UnreadableFile(f"{self.shown} cannot be read: {reason(error)}") from None
        except Exception as error:  # gzip, bz2 and lzma each raise classes of their own for damaged data
            raise UnreadableFile(
                f"{self.shown} cannot be unpacked; the file may be incomplete: {reason(error)}"
            ) from None

    def opened(self, compression: str = "") -> IO[bytes]:
        """The bytes as a file that can seek: as stored, or unpacked.

        Raises:
            OSError: it cannot be opened.
        """
        file = self.place.opened() if isinstance(self.place, Spool) else self.place
        if compression == ".gz":
            return cast(IO[bytes], gzip.open(file))
        if compression == ".bz2":
            return cast(IO[bytes], bz2.open(file))
        if compression == ".xz":
            import lzma  # here, because some Pythons are built without it

            return cast(IO[bytes], lzma.open(file))
        return file.open("rb") if isinstance(file, Path) else file

    def bytes_at(self, start: int, length: int) -> bytes:
        """Up to `length` unpacked bytes from offset `start`."""
        return next(self.blocks(length, start), b"")


class Incoming(Protocol):
    """Bytes that can be read once."""

    def read(self, size: int, /) -> bytes:
        """At most `size` of the next bytes; none at the end."""
        ...


class Spool:
    """A temporary copy of bytes that can be read only once.

    The file has no name (Windows removes it when it is closed), so no signal and no crash leaves it on the disk.

    Args:
        incoming: is read to its end.
        called: its name in an error.

    Raises:
        TextError: it is too large, or the disk has too little free space.
        OSError: it cannot be read, or the copy cannot be written.
    """

    def __init__(self, incoming: Incoming, called: str) -> None:
        self._file = tempfile.TemporaryFile(prefix="charloom-", buffering=0)  # noqa: SIM115 - closed with the spool
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        copied = 0
        while block := incoming.read(CHUNK):
            copied += len(block)
            _check_disk_space(copied, called)
            _write_all(self._file, block)

    def opened(self) -> IO[bytes]:
        """The copy from its start; several readers are independent of each other."""
        return io.BufferedReader(_SpoolReader(self))

    def read_at(self, position: int, buffer: Buffer) -> int:
        """Reads bytes from a position into the buffer; returns their number."""
        with self._lock:
            self._file.seek(position)
            return self._file.readinto(buffer) or 0

    def size(self) -> int:
        """The size of the copy in bytes."""
        with self._lock:
            return self._file.seek(0, io.SEEK_END)


class _SpoolReader(io.RawIOBase):
    """A reader of a spool, with its own position."""

    def __init__(self, spool: Spool) -> None:
        self._spool, self._position = spool, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._spool.size()}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Buffer, /) -> int:
        count = self._spool.read_at(self._position, buffer)
        self._position += count
        return count


def _check_disk_space(copied: int, called: str) -> None:
    """Limits a copy to half of the free disk space; the run needs the other half for its own files."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if copied > min(free, LARGEST_COPY):
        end = f"and {folder} has {free / 1e6:,.0f} MB free" if copied > free else "which is the limit"
        raise TextError(
            f"{shown_path(called)} did not end after {copied / 1e6:,.0f} MB, {end}; save the wanted part to a file "
            "and name that file, or set TMPDIR to a folder on a larger disk"
        )


def _write_all(file: IO[bytes], block: bytes) -> None:
    """Writes the whole block; a raw file may write only a part in one call."""
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


def find_source(path: str) -> Source:
    """The source of a path: `-` is stdin, any other is a local file.

    Raises:
        TextError: it does not exist, is a folder, or cannot be opened.
    """
    if path == "-":
        return _copied(path, sys.stdin.buffer, "stdin")
    return _local(path)


def _local(path: str) -> Source:
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISREG(mode):
            return Source(path, Path(path))
        if stat.S_ISDIR(mode):
            raise TextError(f"{shown_path(path)} is a folder, not a file")
        if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and not _is_terminal(path)):  # /dev/zero has no end
            raise TextError(f"{shown_path(path)} is a device, not a text; name a file, or - for stdin")
        with open(path, "rb") as pipe:  # such as `<(command)` in a shell; it can be read only once
            return _copied(path, pipe, path)
    except FileNotFoundError:
        raise TextError(f"{shown_path(path)}: no such file or folder") from None
    except (OSError, ValueError) as error:
        raise TextError(f"{shown_path(path)} cannot be opened: {reason(error)}") from None


def _is_terminal(path: str) -> bool:
    with open(path, "rb", buffering=0) as device:
        return device.isatty()


def _copied(path: str, incoming: IO[bytes], called: str) -> Source:
    try:
        return Source("stdin" if path == "-" else path, Spool(incoming, called))
    except OSError as error:
        raise TextError(f"{shown_path(called)} cannot be copied to a temporary file: {reason(error)}") from None


def place(name: str) -> str:
    """A path, or a URL without protocol, user and query, so that its end is an ending of a path.

    Of a file in an archive, the path in the archive: `a.txt` of `zip://a.txt::b.zip`.
    """
    url = next((part for part in name.split("::") if "://" in part), None)
    return re.sub("^[^/]*@", "", url.split("://", 1)[1].split("?")[0]) if url else name


def compression_of(name: str) -> str:
    """`.gz`, `.bz2`, `.xz`, or empty: how the file with this name is compressed."""
    return ending if (ending := _ending(name)) in COMPRESSIONS else ""


def _ending(name: str) -> str:
    return PurePosixPath(place(name)).suffix.lower()


def shown_path(path: str) -> str:
    """A path in one line, for messages. A long one is cut; newlines and bytes are escaped; URLs lose their secrets."""
    path = without_secrets(path)
    path = f"{path[:100]}…" if len(path) > LONGEST_SHOWN else path
    return path if path and path.isprintable() else ascii(path)


def without_secrets(text: str) -> str:
    """A text or path whose URLs have `…` in place of users with their passwords, and queries of web addresses."""
    return QUERY.sub(r"\1…", USER.sub("://…@", text))


def share(part: int, whole: int) -> str:
    """A part of a whole in per cent; 0.00% only if the part is 0."""
    return "less than 0.01%" if 0 < part < whole / 10_000 else f"{part / max(whole, 1):.2%}"


def reason(error: BaseException) -> str:
    """What went wrong, in one line: the operating system's message if there is one."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(text.split())
