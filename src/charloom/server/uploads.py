"""The texts that a page uploads: files on the disk, with names of our own, within limits."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from charloom.data.fields import FIELD_ENDINGS
from charloom.data.sources import COMPRESSIONS
from charloom.server.errors import ApiError

ID = re.compile("[0-9a-f]{8,32}")
OWN = re.compile(r"[0-9]{4}\.")
NUMBER = re.compile("[0-9]{1,3}")
LONGEST_NAME = 100


@dataclass(frozen=True)
class UploadLimits:
    """Limits of uploads. one_bytes: of all files of one upload; all_bytes: of all uploads; uploads: their number;
    seconds: an upload that was not used for so long is removed when a new one begins.
    """

    one_bytes: int = 256 << 20
    all_bytes: int = 1 << 30
    uploads: int = 1000
    seconds: float = 3600.0


@dataclass
class Uploaded:
    """A file of an upload. name: as the page calls it; path: where it is; size: in bytes, so far."""

    name: str
    path: Path
    size: int = 0


class Upload:
    """The files of one upload by their numbers, and those that still arrive."""

    def __init__(self, now: float) -> None:
        self.used = now
        self.files: dict[int, Uploaded] = {}
        self.arriving: list[Uploaded] = []

    def size(self, replaced: int | None = None) -> int:
        """Bytes of all files, and of those that arrive; without the file of a number that is being replaced."""
        files = [file for number, file in self.files.items() if number != replaced]
        return sum(file.size for file in (*files, *self.arriving))


class Uploads:
    """All uploads. Those of an earlier process are removed, and no other file. Only the event loop may use it.

    Args:
        folder: is made here.
        limits: of the files.
        clock: in seconds.
    """

    def __init__(
        self, folder: Path, limits: UploadLimits | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self.limits, self._clock = folder, limits or UploadLimits(), clock
        self._uploads: dict[str, Upload] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for each in folder.iterdir():
            if ID.fullmatch(each.name) and not each.is_symlink():
                _remove(each)

    def begin(self, upload: str, number: str, name: str, size: int | None) -> Arriving:
        """A file that arrives.

        Args:
            upload, number: as the page chose them.
            name: of the file; any string.
            size: in bytes, if the page told it.

        Raises:
            ApiError: if the upload or the number is not valid, or the file does not fit.
        """
        if not ID.fullmatch(upload):
            raise ApiError(400, f"an upload must be called by 8 to 32 digits 0-9 and a-f; got {upload!r}")
        if not NUMBER.fullmatch(number):
            raise ApiError(400, f"the number of a file must be 0 to 999; got {number!r}")
        self._remove_old()
        if upload not in self._uploads and len(self._uploads) >= self.limits.uploads:
            raise ApiError(
                413, f"at most {self.limits.uploads:,} uploads may wait; ask again in an hour, or restart the app"
            )
        self.check(upload, int(number), size or 0)
        found = self._uploads.setdefault(upload, Upload(self._clock()))
        place = self.folder / upload
        place.mkdir(exist_ok=True)
        return Arriving(self, upload, found, int(number), shown_name(name), place / f"{int(number):04}{ending(name)}")

    def check(self, upload: str, number: int, more: int) -> None:
        """Checks that so many bytes more of a file fit into an upload.

        Raises:
            ApiError: if they do not.
        """
        own = self._uploads[upload].size(number) if upload in self._uploads else 0
        if own + more > self.limits.one_bytes:
            raise ApiError(
                413,
                f"the files of a run must have at most {self.limits.one_bytes:,} bytes together; found "
                f"{own + more:,}; use fewer or smaller files, or `charloom train` for a large text",
            )
        if sum(each.size() for each in self._uploads.values()) + more > self.limits.all_bytes:
            raise ApiError(
                413, f"all uploads together may have {self.limits.all_bytes:,} bytes; restart the app to remove them"
            )

    def files(self, upload: str) -> list[Uploaded]:
        """The files of an upload in the order of their numbers.

        Raises:
            ApiError: if there is none.
        """
        found = self._uploads.get(upload)
        if found is None or not found.files:
            raise ApiError(404, f"`upload` must be one that was uploaded; got {upload!r}; upload the files again")
        found.used = self._clock()
        return [file for _, file in sorted(found.files.items())]

    def _remove_old(self) -> None:
        for name, upload in [*self._uploads.items()]:
            if not upload.arriving and self._clock() - upload.used > self.limits.seconds:
                del self._uploads[name]
                _remove(self.folder / name)


class Arriving:
    """A file that arrives: a context, in which its bytes are added. Without `finish`, nothing of it stays."""

    def __init__(self, uploads: Uploads, name: str, upload: Upload, number: int, shown: str, path: Path) -> None:
        self._uploads, self._name, self._upload, self._number, self._path = uploads, name, upload, number, path
        self._file = Uploaded(shown, path.with_name(f"{path.name}.part-{secrets.token_hex(4)}"))

    def __enter__(self) -> Arriving:
        self._stream = self._file.path.open("xb")
        self._upload.arriving.append(self._file)
        return self

    def __exit__(self, *error: object) -> None:
        self._upload.arriving.remove(self._file)
        self._upload.used = self._uploads._clock()
        with suppress(OSError):  # a full disk fails again
            self._stream.close()
        with suppress(OSError):
            self._file.path.unlink(missing_ok=True)

    def take(self, count: int) -> None:
        """Counts bytes that will be added. Runs on the event loop.

        Raises:
            ApiError: if they do not fit.
        """
        self._uploads.check(self._name, self._number, count)
        self._file.size += count

    def add(self, data: bytes | bytearray) -> None:
        """Adds bytes that were counted. Runs in any thread.

        Raises:
            OSError: if they cannot be written.
        """
        self._stream.write(data)

    def finish(self) -> Uploaded:
        """The whole file, in the place of an earlier one with its number.

        Raises:
            OSError: if it cannot be written.
        """
        self._stream.close()
        earlier = self._upload.files.pop(self._number, None)
        if earlier and earlier.path != self._path:
            earlier.path.unlink(missing_ok=True)
        self._file.path.replace(self._path)
        whole = Uploaded(self._file.name, self._path, self._file.size)
        self._upload.files[self._number] = whole
        return whole


def _remove(folder: Path) -> None:
    """Removes the files of an upload and its folder. A folder with other files stays: they are the user's."""
    with suppress(OSError):
        for file in folder.iterdir():
            if OWN.match(file.name):
                file.unlink()
        folder.rmdir()


def shown_name(name: str) -> str:
    """The last component of a file's name, printable and not too long, for people."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(filter(str.isprintable, last)).strip()[:LONGEST_NAME] or "text"


def ending(name: str) -> str:
    """The ending that decides how charloom reads a file, such as `.csv.gz`; else `.txt`."""
    path = PurePosixPath(name.lower())
    packed = path.suffix if path.suffix in COMPRESSIONS else ""
    inner = PurePosixPath(path.name.removesuffix(packed)).suffix
    return (inner if inner in FIELD_ENDINGS else "") + packed or ".txt"
