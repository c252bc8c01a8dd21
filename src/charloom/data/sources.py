"""Where bytes come from: a file, a compressed file, stdin or a URL, each opened as often as needed.

What can be read only once (stdin, a pipe, a URL) is copied to a temporary file first, because training reads its text
more than once. `.gz`, `.bz2` and `.xz` are unpacked as they are read.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import shutil
import stat
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast

from charloom.errors import TextError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

# Bytes read at once: large enough that a Python loop costs nothing beside decoding, small beside a model.
PIECE = 4 << 20
COMPRESSIONS = (".gz", ".bz2", ".xz")
TIMEOUT = 30  # seconds that a server may be silent
LARGEST_COPY = 64 << 30  # bytes; more text than a character model learns, and an end for what has none


class BinaryFile(TextError):
    """A file that is not text at all; folders skip it."""


class UnreadableFile(TextError):
    """A file that cannot be opened, read or unpacked; folders skip it, with a notice."""


@dataclass(frozen=True)
class Source:
    """Bytes that can be read again and again.

    name: what the person called it, for messages and its endings; place: the file that holds the bytes, or the
    temporary copy, kept as long as somebody may read it.
    """

    name: str
    place: Path | Spool

    @property
    def shown(self) -> str:
        """The name as a message can print it."""
        return shown(self.name)

    @property
    def compression(self) -> str:
        """`.gz`, `.bz2`, `.xz`, or nothing."""
        return ending if (ending := _ending(self.name)) in COMPRESSIONS else ""

    @property
    def ending(self) -> str:
        """The lower-case ending below any compression: `.jsonl` of `a.JSONL.gz`."""
        return _ending(place(self.name).lower().removesuffix(self.compression))

    def blocks(self, size: int = PIECE, start: int = 0) -> Iterator[bytes]:
        """The unpacked bytes from `start` on, `size` at a time.

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
            raise UnreadableFile(f"{self.shown} cannot be unpacked; is it cut short? {reason(error)}") from None

    def opened(self, compression: str = "") -> IO[bytes]:
        """The bytes as a file that can seek: as they lie there, or unpacked.

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

    def sample(self, start: int, length: int) -> bytes:
        """Up to `length` unpacked bytes from `start` on."""
        return next(self.blocks(length, start), b"")


class Spool:
    """A temporary copy of bytes that come only once.

    The file has no name (on Windows it is removed when it is closed), so no signal and no crash leaves it behind.

    Args:
        incoming: read to its end.
        called: its name in an error.

    Raises:
        TextError: it has no end, or there is no room for it.
        OSError: it cannot be read, or the copy not be written.
    """

    def __init__(self, incoming: IO[bytes], called: str) -> None:
        self._file = tempfile.TemporaryFile(prefix="charloom-", buffering=0)  # noqa: SIM115 - closed with the spool
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        copied = 0
        while block := incoming.read(PIECE):
            copied += len(block)
            _check_room(copied, called)
            _write_all(self._file, block)

    def opened(self) -> IO[bytes]:
        """The copy from its start; several readers do not disturb each other."""
        return io.BufferedReader(_SpoolReader(self))

    def read_at(self, position: int, buffer: Buffer) -> int:
        """Fills the buffer with what stands there; how many bytes that were."""
        with self._lock:
            self._file.seek(position)
            return self._file.readinto(buffer) or 0

    def size(self) -> int:
        """Bytes of the copy."""
        with self._lock:
            return self._file.seek(0, io.SEEK_END)


class _SpoolReader(io.RawIOBase):
    """A place in a spool."""

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


def _check_room(copied: int, called: str) -> None:
    """A copy may take half of the room that there is: the other half is for what the run makes of it."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if copied > min(free, LARGEST_COPY):
        end = f"and {folder} has {free / 1e6:,.0f} MB free" if copied > free else "which is the most that is copied"
        raise TextError(
            f"{shown(called)} did not end after {copied / 1e6:,.0f} MB, {end}; save what is wanted of it to a file, "
            "and name that; or set TMPDIR to a folder on a larger disk"
        )


def _write_all(file: IO[bytes], block: bytes) -> None:
    """What a raw file writes may be less than it was given."""
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


def find_source(path: str) -> Source:
    """The source a path names: `-` is stdin, anything with `://` a URL, all else a local file.

    Raises:
        TextError: it does not exist, is a folder, cannot be fetched, or a package for its protocol is missing.
    """
    if path == "-":
        return _once(path, sys.stdin.buffer, "stdin")
    if "://" in path:
        return _fetched(path)
    return _local(path)


def _local(path: str) -> Source:
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISREG(mode):
            return Source(path, Path(path))
        if stat.S_ISDIR(mode):
            raise TextError(f"{shown(path)} is a folder, not a file")
        if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and not _is_terminal(path)):  # /dev/zero has no end
            raise TextError(f"{shown(path)} is a device, not a text; name a file, or - for stdin")
        with open(path, "rb") as pipe:  # as `<(command)` gives it in a shell: readable once
            return _once(path, pipe, path)
    except FileNotFoundError:
        raise TextError(
            f"{shown(path)}: no such file, folder or corpus; `charloom corpora` lists the named corpora"
        ) from None
    except (OSError, ValueError) as error:
        raise TextError(f"{shown(path)} cannot be opened: {reason(error)}") from None


def _is_terminal(path: str) -> bool:
    with open(path, "rb", buffering=0) as device:
        return device.isatty()


def _fetched(url: str) -> Source:
    try:
        fsspec = importlib.import_module("fsspec")
        with fsspec.open(url, "rb", **_patience(url)) as incoming:
            return _once(url, incoming, url)
    except TextError:
        raise
    except ImportError as error:
        raise TextError(
            f"{shown(url)}: a package for this kind of URL is missing: {reason(error)}; http and https need: "
            "pip install aiohttp"
        ) from None
    except Exception as error:  # every protocol raises classes of its own library
        raise TextError(f"{shown(url)} cannot be fetched: {_cause(error)}") from None


def _patience(url: str) -> dict[str, Any]:
    """What fsspec is told of a server that does not answer; by default it waits for five minutes."""
    if not url.startswith(("http://", "https://")):
        return {}
    aiohttp = importlib.import_module("aiohttp")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=TIMEOUT)
    return {"client_kwargs": {"timeout": timeout}}


def _cause(error: BaseException) -> str:
    """Why a URL cannot be fetched. fsspec often says no more than the URL; the library below it knows."""
    cause = error.__cause__ or error
    if isinstance(cause, TimeoutError):
        return f"no answer for {TIMEOUT} seconds"
    if status := getattr(cause, "status", None):
        return f"{status} {getattr(cause, 'message', '')}".strip()
    return "no such file" if isinstance(cause, FileNotFoundError) else reason(cause)


def _once(path: str, incoming: IO[bytes], called: str) -> Source:
    try:
        return Source("stdin" if path == "-" else path, Spool(incoming, called))
    except OSError as error:
        raise TextError(f"{shown(called)} cannot be copied to a temporary file: {reason(error)}") from None


def place(name: str) -> str:
    """A path, or a URL without its protocol and its query, so that endings are where they are in a path."""
    return name.split("://", 1)[1].split("?")[0] if "://" in name else name


def _ending(name: str) -> str:
    return PurePosixPath(place(name)).suffix.lower()


def shown(path: str) -> str:
    """A path as one line of a message: escaped where it holds newlines or bytes that are not text."""
    return path if path and path.isprintable() else ascii(path)


def share(part: int, whole: int) -> str:
    """A part of a whole as a percentage, which is 0 only where the part is nothing."""
    return "less than 0.01%" if 0 < part < whole / 10_000 else f"{part / max(whole, 1):.2%}"


def reason(error: BaseException) -> str:
    """What went wrong, on one line: an operating system's own words where it has some."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(text.split())
