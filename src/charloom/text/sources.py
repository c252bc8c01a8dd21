"""Where bytes come from: a file, a compressed file, stdin or a URL, each opened as often as needed.

What can be read only once (stdin, a pipe, a URL) is copied to a temporary file first, because training reads its text
more than once. `.gz`, `.bz2` and `.xz` are unpacked as they are read.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import os
import shutil
import stat
import sys
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from charloom.errors import TextError

# Bytes read at once: large enough that a Python loop costs nothing beside decoding, small beside a model.
PIECE = 4 << 20
COMPRESSIONS = (".gz", ".bz2", ".xz")


class BinaryFile(TextError):
    """A file that is not text at all; folders skip it."""


class UnreadableFile(TextError):
    """A file that cannot be opened, read or unpacked; folders skip it, with a notice."""


@dataclass(frozen=True)
class Source:
    """Bytes that can be read again and again.

    name: what the person called it, for messages and its endings; path: the file that holds the bytes; spool: the
    temporary copy behind `path`, where there is one, kept alive as long as somebody may read it.
    """

    name: str
    path: Path
    spool: Spool | None = None

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
            with _opened(self.path, self.compression) as file:
                file.seek(start)
                while block := file.read(size):
                    yield block
        except OSError as error:
            raise UnreadableFile(f"{self.shown} cannot be read: {reason(error)}") from None
        except Exception as error:  # gzip, bz2 and lzma each raise classes of their own for damaged data
            raise UnreadableFile(f"{self.shown} cannot be unpacked; is it cut short? {reason(error)}") from None

    def opened(self) -> IO[bytes]:
        """The bytes as they lie there, packed or not, as a file that can seek."""
        return _opened(self.path, "")

    def sample(self, start: int, length: int) -> bytes:
        """Up to `length` unpacked bytes from `start` on."""
        return next(self.blocks(length, start), b"")


class Spool:
    """A temporary copy of bytes that come only once; removed when nothing holds it any more, or at exit."""

    def __init__(self, incoming: IO[bytes]) -> None:
        handle, name = tempfile.mkstemp(prefix="charloom-")
        self.path = Path(name)
        weakref.finalize(self, self.path.unlink, missing_ok=True)
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(incoming, file, PIECE)


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
        with open(path, "rb") as pipe:  # as `<(command)` gives it in a shell: readable once
            return _once(path, pipe, path)
    except FileNotFoundError:
        raise TextError(
            f"{shown(path)}: no such file, folder or corpus; `charloom corpora` lists the named corpora"
        ) from None
    except (OSError, ValueError) as error:
        raise TextError(f"{shown(path)} cannot be opened: {reason(error)}") from None


def _fetched(url: str) -> Source:
    try:
        fsspec = importlib.import_module("fsspec")
        with fsspec.open(url, "rb") as incoming:
            return _once(url, incoming, url)
    except TextError:
        raise
    except ImportError as error:
        raise TextError(
            f"{shown(url)}: a package for this kind of URL is missing: {reason(error)}; http and https need: "
            "pip install 'charloom[remote]'"
        ) from None
    except Exception as error:  # every protocol raises classes of its own library
        raise TextError(f"{shown(url)} cannot be fetched: {reason(error)}") from None


def _once(path: str, incoming: IO[bytes], called: str) -> Source:
    try:
        spool = Spool(incoming)
    except OSError as error:
        raise TextError(f"{shown(called)} cannot be copied to a temporary file: {reason(error)}") from None
    return Source("stdin" if path == "-" else path, spool.path, spool)


def _opened(path: Path, compression: str) -> IO[bytes]:
    if compression == ".gz":
        return cast(IO[bytes], gzip.open(path))
    if compression == ".bz2":
        return cast(IO[bytes], bz2.open(path))
    if compression == ".xz":
        import lzma  # here, because some Pythons are built without it

        return cast(IO[bytes], lzma.open(path))
    return path.open("rb")


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
