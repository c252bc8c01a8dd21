"""What a run folder says of its run, for a list of runs. Every file in it may be damaged or half written."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from charloom.files import LARGEST_TEXT, opened, read, refuse_link

ABOUT = "app.json"
"""The file in a run folder with what the app knows of the run: its texts, its base model, and when it was made."""

MOST_ABOUT = 4 << 20
"""Bytes of `app.json`: it may name 1,000 texts."""


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
    unit: str = "char"

    def to_json(self) -> dict[str, Any]:
        """The run as a client receives it."""
        fields = {**vars(self), "from": self.base, "texts": [*self.texts]}
        del fields["base"]
        return fields

    def after(self, event: Mapping[str, Any]) -> RunOnDisk:
        """The run with the seconds, the loss and the unit of a token of an event, if it has them."""
        seconds, bits = _number(event.get("seconds"), self.seconds), self.best_bits
        if event["event"] == "finished" or (event["event"] == "validation" and event.get("best")):
            bits = _number(event.get("validation_bits"), bits)
        unit = event.get("unit") if event["event"] == "started" else None
        return replace(self, seconds=seconds, best_bits=bits, unit=unit if isinstance(unit, str) else self.unit)


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
            event = json.loads(line, parse_constant=_finite, parse_float=_finite)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            yield event


def _finite(number: str) -> float:
    """A number of JSON. An infinite one cannot be sent to a client."""
    if not abs(found := float(number)) < 1e300:
        raise ValueError(f"{number} is not finite")
    return found


def read_run(folder: Path) -> RunOnDisk:
    """What a run folder says."""
    about = _about(folder)
    base = about.get("from")
    known: dict[str, Any] = {
        "run": folder.name,
        "created": _number(about.get("created"), None) or _created(folder),
        "base": base if isinstance(base, str) else None,
        "texts": tuple(texts_of(folder).values()),
    }
    try:
        refuse_link(folder / "run.toml")
        settings = tomllib.loads(read(folder / "run.toml").decode("utf-8"))
        known["minutes"] = _number(settings["training"].get("minutes"), None)
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
        found = json.loads(read(folder / ABOUT, MOST_ABOUT), parse_constant=_finite, parse_float=_finite)
    except Exception:  # it is missing or damaged: the run itself is whole without it
        return {}
    return found if isinstance(found, dict) else {}


def texts_of(folder: Path) -> dict[str, str]:
    """The shown names of the texts of a run by their paths; empty if it did not begin in the app."""
    texts = _about(folder).get("texts")
    if not isinstance(texts, dict):
        return {}
    return {path: name for path, name in texts.items() if isinstance(name, str)}


def _created(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
