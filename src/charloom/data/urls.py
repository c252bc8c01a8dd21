"""Files at a URL: what fsspec opens, such as `https://`, `s3://` or `zip://a.txt::b.zip`.

Training reads its text more than once, so each file is copied to a temporary file first.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from charloom.data.folders import is_ours, literal_folder, order_of
from charloom.data.sources import Source, Spool, reason, shown_path, without_secrets
from charloom.errors import TextError

TIMEOUT = 30  # seconds without an answer from a server
PAUSES = (1.0, 5.0, 25.0)  # seconds before each new try to read on, after a connection broke
WEB = ("http", "https")
OTHER_FILES = 100  # that a process may have open beside its copies


@dataclass(frozen=True)
class RemoteFile:
    """A file that fsspec can open.

    filesystem, path: fsspec's; name: for messages, and for the ending.
    """

    filesystem: Any
    path: str
    name: str

    def copied(self, tell_size: Callable[[int], None] = lambda _: None) -> Source:
        """The bytes, in a temporary copy.

        tell_size: called with the number of bytes, before they are copied if the server says it.

        Raises:
            TextError: it cannot be fetched, or the copy cannot be written.
        """
        with one_line(self.name), closing(_Reader(self)) as reader:
            if reader.size:
                tell_size(reader.size)
            source = Source(self.name, Spool(reader, self.name))
            if not reader.size:
                tell_size(source.size)
            return source


@dataclass(frozen=True)
class RemoteFiles:
    """files: of a folder or a glob, in order; ours: the URLs of skipped folders with a run or a model."""

    files: list[RemoteFile]
    ours: list[str]


def find_remote(url: str) -> RemoteFile | RemoteFiles:
    """The file at a URL; for a folder, or a glob with `*`, the files that are read of a local one (`folders.py`).

    Raises:
        TextError: it does not exist, the server does not answer, or the package for its protocol is missing.
    """
    with one_line(url):
        filesystem, path = importlib.import_module("fsspec.core").url_to_fs(url, **_web_options(url))
        if "*" in path:
            found = [name for name, info in filesystem.glob(path, detail=True).items() if info["type"] == "file"]
            return _chosen(filesystem, found, literal_folder(path), url, itself=False)
        if filesystem.protocol[0] in WEB or filesystem.info(path)["type"] == "file":
            return RemoteFile(filesystem, path, url)
        return _chosen(filesystem, filesystem.find(path), path, url, itself=True)


def _chosen(filesystem: Any, found: list[str], root: str, url: str, itself: bool) -> RemoteFiles:
    """Leaves out hidden files and folders below `root`, runs and models. itself: whether `root` may be one of these."""

    @cache
    def holds_ours(folder: str) -> bool:
        return is_ours({name.rstrip("/").rsplit("/", 1)[-1] for name in filesystem.ls(folder, detail=False)})

    files, ours = [], set()
    for name in sorted(found, key=order_of):
        below = name.removeprefix(root).strip("/").split("/")
        if any(part.startswith(".") for part in below):
            continue
        parents = [name.rsplit("/", count)[0] for count in range(len(below) - 1, 0, -1)]
        skipped = next((folder for folder in ([root] if itself else []) + parents if holds_ours(folder)), None)
        if skipped is None:
            files.append(RemoteFile(filesystem, name, _url_of(name, url)))
        else:
            ours.add(_url_of(skipped, url))
    return RemoteFiles(files, sorted(ours, key=order_of))


def check_open_files(count: int, url: str) -> None:
    """Checks that a process may hold so many copies open. Windows has no such limit.

    Raises:
        TextError: it may not.
    """
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return
    limit, needed = resource.getrlimit(resource.RLIMIT_NOFILE)[0], count + OTHER_FILES
    if limit < needed and limit != resource.RLIM_INFINITY:
        raise TextError(
            f"the limit of open files must be at least {needed:,} for {shown_path(url)}, because the copies of its "
            f"{count:,} files stay open; it is {limit:,}; run: ulimit -n {needed}; or name fewer and larger files"
        )


def _url_of(name: str, url: str) -> str:
    """The URL of a file that was found by the URL of a folder or a glob."""
    if "://" in name:
        return name
    protocol, _, rest = url.partition("://")
    _, chain, rest = rest.partition("::")
    return f"{protocol}://{name}{chain}{rest}"


@contextmanager
def one_line(url: str) -> Iterator[None]:
    """Turns the errors of fsspec and of the libraries that it uses into a TextError of one line."""
    try:
        yield
    except TextError:
        raise
    except ImportError as error:
        install = "; run: pip install aiohttp" if url.startswith(WEB) else ""
        raise TextError(f"{shown_path(url)} needs a package that is not installed: {reason(error)}{install}") from None
    except Exception as error:  # the library of each protocol has exception classes of its own
        raise TextError(f"{shown_path(url)} cannot be fetched: {without_secrets(_cause(error))}") from None


class _Reader:
    """Reads a file from its start to its end. After a broken connection it opens the file again and reads on.

    size: bytes, if the server says it.
    """

    def __init__(self, remote: RemoteFile) -> None:
        self._remote, self._position = remote, 0
        self._file = self._open()
        self.size = self._file_size()

    def _open(self) -> Any:
        return self._remote.filesystem.open(self._remote.path, "rb")

    def _file_size(self) -> int | None:
        size = getattr(self._file, "size", None)
        return size if isinstance(size, int) else None  # a method in some libraries

    def read(self, size: int) -> bytes:
        """The next bytes; none at the end.

        Raises:
            OSError: the end is not where it was when the file was opened.
            Exception: of the protocol's library, if the bytes cannot be read.
        """
        try:
            block = bytes(self._file.read(size))
        except Exception as error:
            whole = isinstance(error, ValueError) and self._remote.name.startswith(WEB)  # the server sends no parts
            block = self._read_whole(size) if whole else self._read_again(size, error)
        self._position += len(block)
        if not block and self.size and self._position != self.size:
            raise OSError(
                f"the file must stay as it is while it is copied; it had {self.size:,} bytes and ended after "
                f"{self._position:,}; try again"
            )
        return block

    def _read_whole(self, size: int) -> bytes:
        """The next bytes, from an answer that has the whole file. Those before are skipped."""
        self._file.close()
        self._file = self._remote.filesystem.open(self._remote.path, "rb", block_size=0)
        left = self._position
        while left and (block := self._file.read(min(left, size))):
            left -= len(block)
        return bytes(self._file.read(size))

    def _read_again(self, size: int, error: Exception) -> bytes:
        """The next bytes, by a new connection.

        Raises:
            Exception: `error`, if it is not possible, or if a new connection cannot help: a damaged archive, a removed
                file.
        """
        if "::" in self._remote.name or isinstance(error, FileNotFoundError | PermissionError):
            raise error
        for pause in PAUSES:
            time.sleep(pause)
            with suppress(Exception):
                self._file.close()
                self._file = self._open()
                if self._file_size() != self.size:
                    break
                self._file.seek(self._position)
                return bytes(self._file.read(size))
        raise error

    def close(self) -> None:
        """Ends the connection."""
        self._file.close()


def _web_options(url: str) -> dict[str, Any]:
    """fsspec's options for web servers: the longest wait, five minutes by default, and files that are sent unpacked.

    fsspec counts the bytes that a server sends. If those are compressed, the copy has wrong bytes.
    """
    used = [protocol for protocol in WEB if any(part.startswith(f"{protocol}://") for part in url.split("::"))]
    if not used:
        return {}
    aiohttp = importlib.import_module("aiohttp")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=TIMEOUT)
    client = {"timeout": timeout, "headers": {"Accept-Encoding": "identity"}}
    return {protocol: {"client_kwargs": client} for protocol in used}


def _cause(error: BaseException) -> str:
    """Why a URL cannot be fetched. fsspec's message is often only the URL; its cause says more."""
    cause = error.__cause__ or error
    if isinstance(cause, TimeoutError):
        return f"no answer for {TIMEOUT} seconds"
    if status := getattr(cause, "status", None):
        return f"{status} {getattr(cause, 'message', '')}".strip()
    return "no such file" if isinstance(cause, FileNotFoundError) else reason(cause)
