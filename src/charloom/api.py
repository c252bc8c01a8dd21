"""The Python API: `train` and `load`, which return a `Model`.

import charloom

model = charloom.train("my.txt", minutes=5)
print(model.generate("Once", length=200, seed=1))
"""

from __future__ import annotations

import warnings
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from charloom.errors import SettingsError
from charloom.files import checked_path
from charloom.model import Model
from charloom.training.events import Event, Report

__all__ = ["Model", "load", "train"]


def load(path: str | PathLike[str]) -> Model:
    """The model in a model folder, or the best one of a run folder.

    Raises:
        ModelError: if it is missing, damaged, from the future, or not a model.
    """
    return Model.load(path)


def train(
    *paths: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    base: str | PathLike[str] | None = None,
    preset: str | None = None,
    report: Report | None = None,
    origin: str | PathLike[str] | None = None,
    **settings: Any,
) -> Model:
    """Trains a model on a text and returns the best one; the run folder is `model.metadata["run"]`.

    Args:
        paths: files, folders, globs, URLs or names of built-in corpora; several are one text.
        out: the run folder, new or empty; by default `runs/<corpus>-<n>`.
        base: the folder of a base model, to fine-tune it.
        preset: begin from the settings of this name; those beside it win.
        report: called with every event of the run; by default nothing is shown.
        origin: the former name of `base`, for one version.
        settings: the names of `charloom.config`, such as `minutes=2, cell="gru", hidden=512`.

    Raises:
        CharloomError: for every mistake that a person can make.
        Interrupted: on Ctrl-C, SIGTERM or SIGHUP, with everything saved.
        KeyboardInterrupt: on those before the first step, with nothing left behind.
    """
    from charloom.config import with_current_names
    from charloom.presets import with_preset
    from charloom.training import start
    from charloom.training.interrupt import graceful_interrupt

    if origin is not None and base is not None:
        raise SettingsError("`base` must not be given with `origin`, its former name; leave `origin` out")
    if origin is not None:
        message = "origin is now called base; the next version will not know the former name"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        base = origin
    if report is not None and not callable(report):
        raise SettingsError(f"`report` must be a function that takes an event; got {report!r}")
    settings = with_current_names(settings, partial(warnings.warn, category=DeprecationWarning, stacklevel=3))
    with graceful_interrupt() as stop:
        finished = start.start(
            [checked_path(path, "paths") for path in paths],
            with_preset(preset, settings) if preset else settings,
            Path(checked_path(out, "out")) if out is not None else None,
            checked_path(base, "base") if base is not None else None,
            report or _ignore,
            stop,
        )
    return load(Path(finished.run))


def _ignore(event: Event) -> None:
    """Shows nothing."""
