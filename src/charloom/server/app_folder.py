"""The folder of the web app: `uploads/` and `runs/`. A name that a client sends never becomes a path unchecked.

A run is a folder in `runs/` with a `run.toml`. A link is no run, so nothing outside the folder is read.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import tomllib
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from charloom.data.sources import COMPRESSIONS
from charloom.errors import SettingsError
from charloom.files import LARGEST_TEXT, make_folder, opened, read, refuse_link
from charloom.server.errors import ApiError
from charloom.server.uploads import UploadLimits, Uploads

ABOUT = "app.json"
"""The file in a run folder with what the app knows of the run: its texts, its base model, and when it was made."""

LONGEST_STEM = 40
MOST_ABOUT = 1 << 20
"""Bytes of `app.json`."""


@dataclass(frozen=True)
class RunOnDisk:
    """What a run folder says of its run; the fields are those of `GET /app/runs`."""

    run: str
    state: str
    minutes: float | None = None
    seconds: float | None = None
    best_bits: float | None = None
    base: str | None = None
    texts: tuple[str, ...] = ()
    created: float = 0.0
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The run as a client receives it."""
        fields = {**vars(self), "from": self.base, "texts": [*self.texts]}
        del fields["base"]
        return fields

    def after(self, event: Mapping[str, Any]) -> RunOnDisk:
        """The run with the seconds and the loss of an event, if it has them."""
        seconds, bits = _number(event.get("seconds"), self.seconds), self.best_bits
        if event["event"] == "finished" or (event["event"] == "validation" and event.get("best")):
            bits = _number(event.get("validation_bits"), bits)
        return replace(self, seconds=seconds, best_bits=bits)


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
            self._lock.acquire()
            self.uploads = Uploads(path / "uploads", limits)
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
        return sorted(name for name in folders if os.path.lexists(self.runs / name / "run.toml"))

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
            seen = self._seen[name] = (stamp, _read(self.runs / name))
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
        return _texts(_about(self.runs / name))


def stem_of(name: str) -> str:
    """The name of a run, from that of a text: only a-z, 0-9 and hyphens."""
    base, ending = os.path.splitext(name)
    if ending.lower() in COMPRESSIONS:
        base = os.path.splitext(base)[0]
    plain = unicodedata.normalize("NFKD", base).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", "-", plain).strip("-")[:LONGEST_STEM].strip("-") or "text"


def events_in(path: Path) -> Iterator[dict[str, Any]]:
    """The events in a log: of a large one, those in its last 64 MiB. Lines that are not whole are left out.

    Raises:
        OSError: if it is missing, a link, or cannot be read.
    """
    refuse_link(path)
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - LARGEST_TEXT))
        lines = file.read(LARGEST_TEXT).split(b"\n")
    for line in lines[size > LARGEST_TEXT :]:
        try:
            event = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            yield event


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _read(folder: Path) -> RunOnDisk:
    """What a run folder says. Every file in it may be damaged."""
    about = _about(folder)
    created = about.get("created")
    base = about.get("from")
    known: dict[str, Any] = {
        "run": folder.name,
        "created": float(created) if isinstance(created, int | float) else _created(folder),
        "base": base if isinstance(base, str) else None,
        "texts": tuple(_texts(about).values()),
    }
    try:
        refuse_link(folder / "run.toml")
        settings = tomllib.loads(read(folder / "run.toml").decode("utf-8"))
        minutes = settings["training"].get("minutes")
        known["minutes"] = float(minutes) if isinstance(minutes, int | float) else None
    except OSError as error:
        return RunOnDisk(state="failed", error=f"run.toml cannot be read: {error.strerror}", **known)
    except Exception as error:  # not TOML, without a section, too large, too deep
        return RunOnDisk(state="failed", error=f"run.toml is damaged: {_first_line(error)}", **known)
    if not any(os.path.lexists(folder / last) for last in ("last", "last.old")):
        return RunOnDisk(state="failed", error="stopped before training began; start it again", **known)
    return _with_log(RunOnDisk(state="stopped", **known), folder / "log.jsonl")


def _with_log(run: RunOnDisk, log: Path) -> RunOnDisk:
    """The run with what its log says: whether it has finished, the seconds, and the lowest loss."""
    try:
        for event in events_in(log):
            run = run.after(event)
            if event["event"] in ("started", "finished"):
                run = replace(run, state="finished" if event["event"] == "finished" else "stopped")
    except OSError as error:
        return replace(run, state="failed", error=f"log.jsonl cannot be read: {error.strerror}")
    return run


def _number(found: object, otherwise: float | None) -> float | None:
    return float(found) if isinstance(found, int | float) and abs(found) < 1e100 else otherwise


def _about(folder: Path) -> dict[str, Any]:
    try:
        refuse_link(folder / ABOUT)
        found = json.loads(read(folder / ABOUT, MOST_ABOUT), parse_constant=_refuse_constant)
    except Exception:  # it is missing or damaged: the run itself is whole without it
        return {}
    return found if isinstance(found, dict) else {}


def _texts(about: Mapping[str, Any]) -> dict[str, str]:
    """The shown names of the texts by their paths."""
    texts = about.get("texts")
    if not isinstance(texts, dict):
        return {}
    return {path: name for path, name in texts.items() if isinstance(name, str)}


def _created(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
