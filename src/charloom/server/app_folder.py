"""The folder of the web app: `uploads/`, `runs/`, `temporary/`. A name from a client never becomes a path unchecked.

A run is a folder in `runs/` with a `run.toml`. A link is no run, so nothing outside the folder is read.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from charloom.data.sources import COMPRESSIONS
from charloom.errors import SettingsError
from charloom.files import make_folder, refuse_link
from charloom.server.errors import ApiError
from charloom.server.run_on_disk import ABOUT, RunOnDisk, events_in, read_run, texts_of
from charloom.server.uploads import UploadLimits, Uploads

LONGEST_STEM = 40


def temporary(folder: Path) -> Path:
    """The folder for temporary files inside the folder of the app. It is emptied when the app starts."""
    return folder / "temporary"


class AppFolder:
    """The folder of the app, for one process at a time. It is a context, in which no other app uses it.

    Args:
        path: of the folder; it is made if it is missing.
        limits: of the uploads.

    Raises:
        SettingsError: if it cannot be made or written, or another process uses it.
    """

    def __init__(self, path: Path, limits: UploadLimits | None = None) -> None:
        self.path, self.runs = path, path / "runs"
        self._lock = FileLock(path / "lock", blocking=False)
        self._seen: dict[str, tuple[object, RunOnDisk]] = {}
        try:
            make_folder(self.runs)
            for folder in (self.runs, path / "uploads"):
                refuse_link(folder)
            self._lock.acquire()
            self.uploads = Uploads(path / "uploads", limits)
            refuse_link(temporary(path))
            shutil.rmtree(temporary(path), ignore_errors=True)
            make_folder(temporary(path))
        except Timeout:
            raise SettingsError(
                f"`folder` must be used by one app at a time; another one uses {path}; stop it, or pass another folder"
            ) from None
        except OSError as error:
            raise SettingsError(
                f"`folder` must be a folder that can be written; {error.filename or path}: {error.strerror}"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def new_name(self, first: str, taken: Collection[str]) -> str:
        """A name for a new run.

        Args:
            first: the shown name of its first text.
            taken: names that it must not have.
        """
        stem = stem_of(first)
        names = (f"{stem}-{number}" for number in itertools.count(1))
        return next(name for name in names if name not in taken and not os.path.lexists(self.runs / name))

    def names(self) -> list[str]:
        """The names of all runs."""
        with os.scandir(self.runs) as entries:
            folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        return sorted(name for name in folders if name.isprintable() and os.path.lexists(self.runs / name / "run.toml"))

    def folder_of(self, name: str) -> Path:
        """The folder of a run.

        Raises:
            ApiError: if there is no such run.
        """
        if name not in self.names():
            raise ApiError(404, f"`run` must be one of those in /app/runs; got {name!r}", "run_not_found")
        return self.runs / name

    def with_models(self) -> list[str]:
        """The names of the runs that have a model."""
        return [name for name in self.names() if self.has_model(name)]

    def has_model(self, name: str) -> bool:
        """Whether a run has a best model."""
        return any((self.runs / name / best / "config.json").is_file() for best in ("best", "best.old"))

    def all(self, but: str | None = None) -> list[RunOnDisk]:
        """Every run but one. A damaged one has the state `failed`."""
        return [self.read(name) for name in self.names() if name != but]

    def read(self, name: str) -> RunOnDisk:
        """A run. A run whose files have not changed is not read again."""
        files = [self.runs / name / each for each in ("run.toml", "log.jsonl", ABOUT, "last")]
        stamp = [_stamp(path) for path in files]
        seen = self._seen.get(name)
        if seen is None or seen[0] != stamp:
            seen = self._seen[name] = (stamp, read_run(self.runs / name))
        return seen[1]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events in the log of a run; none if it cannot be read.

        Raises:
            ApiError: if there is no such run.
        """
        folder = self.folder_of(name)
        try:
            return [*events_in(folder / "log.jsonl")]
        except OSError:
            return []

    def texts(self, name: str) -> dict[str, str]:
        """The shown names of the texts of a run by their paths; empty if it did not begin here."""
        return texts_of(self.runs / name)


def stem_of(name: str) -> str:
    """The name of a run, from that of a text: only a-z, 0-9 and hyphens."""
    base, ending = os.path.splitext(name)
    if ending.lower() in COMPRESSIONS:
        base = os.path.splitext(base)[0]
    plain = unicodedata.normalize("NFKD", base).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", "-", plain).strip("-")[:LONGEST_STEM].strip("-") or "text"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
