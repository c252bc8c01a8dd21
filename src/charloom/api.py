"""The Python API: functions that make a `Model`, by training, loading or importing one.

import charloom

model = charloom.train("my.txt", minutes=5)
print(model.generate("Once", length=200, seed=1))
"""

from __future__ import annotations

import os
import reprlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from charloom.config import BUDGETS, Settings, with_current_names
from charloom.data.sources import LONGEST_SHOWN
from charloom.data.texts import Texts
from charloom.errors import Interrupted, SettingsError, full_memory_in_one_line
from charloom.files import AnyPath, checked_path
from charloom.model import Model
from charloom.presets import with_preset
from charloom.training.events import Event, EventHandler, Notice, Planned
from charloom.training.keywords import SettingsKeywords
from charloom.validation import check_names


def load(path: AnyPath) -> Model:
    """The model in a model folder, or the best model of a run folder.

    Raises:
        ModelError: if it is missing, damaged, of a newer version, or not a model.
    """
    return Model.load(path)


def train(
    *paths: AnyPath | Sequence[AnyPath],
    texts: Iterable[str] | None = None,
    out: AnyPath | None = None,
    base_model: AnyPath | None = None,
    preset: str | None = None,
    report: EventHandler | None = None,
    stop: Callable[[], bool] | None = None,
    origin: AnyPath | None = None,
    **settings: Unpack[SettingsKeywords],
) -> Model:
    """Trains a model on a text and returns the best one; the run folder is `model.metadata["run"]`.

    Ctrl-C raises KeyboardInterrupt, as in any Python program. Before the first step, no file stays. After it, `resume`
    continues from the last checkpoint, which is at most a minute old.

    Args:
        paths: files, folders, globs, URLs or names of built-in corpora, or lists of them; several are one text.
        texts: strings in place of paths. Each is read like a file, so `records="file"` makes each a record.
        out: the run folder, new or empty; by default `runs/<corpus>-<n>`.
        base_model: the folder of a model to fine-tune.
        preset: the name of a preset; the other settings in this call replace its values.
        report: called with every event of the run. By default nothing is shown until training ends; `report=print`
            prints a line for each event.
        stop: called after every step. If it returns true, the run saves everything, and the best model so far is
            returned; `resume` continues the run.
        origin: the former name of `base_model`, for one version.
        settings: names of `charloom.config`, such as `minutes=2, cell="gru", hidden=512`.

    Raises:
        CharloomError: for every mistake that a person can make.
    """
    from charloom.training import start

    base = _base(base_model if origin is None else _renamed(origin, base_model))
    source, values, folder = _source(paths, texts), _values(train.__kwdefaults__, preset, settings), _path(out, "out")
    return _best(lambda: start.start(source, values, folder, base, _called(report), _stop_function(stop)).run)


def resume(
    run: AnyPath,
    *,
    minutes: float | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    report: EventHandler | None = None,
    stop: Callable[[], bool] | None = None,
) -> Model:
    """Resumes a run, exactly as if it had never stopped, and returns its best model.

    Args:
        run: the run folder.
        minutes, epochs, steps: a new budget, counted from the beginning of the run. It replaces all budgets of the run.
        report, stop: as `train` takes them.

    Raises:
        CharloomError: if the folder is not a run, is damaged, or another process trains it.
    """
    from charloom.training import start

    given = dict(zip(BUDGETS, (minutes, epochs, steps), strict=True))
    budgets = {name: value for name, value in given.items() if value is not None}
    return _best(
        lambda: start.resume(Path(checked_path(run, "run")), budgets, _called(report), _stop_function(stop)).run
    )


def plan(
    *paths: AnyPath | Sequence[AnyPath],
    texts: Iterable[str] | None = None,
    base_model: AnyPath | None = None,
    preset: str | None = None,
    report: EventHandler | None = None,
    **settings: Unpack[SettingsKeywords],
) -> Planned:
    """The settings that `train` would plan for this text and this machine, with reasons. Does not train; no file stays.

    The whole text is read, and some sizes of the network are timed. The arguments are those of `train`.

    Raises:
        SettingsError: if there is nothing to plan, for example without a budget in minutes.
        CharloomError: for every mistake that a person can make.
    """
    from charloom.training import start

    values = _values(plan.__kwdefaults__, preset, settings)
    with full_memory_in_one_line():
        return start.plan_only(_source(paths, texts), values, _base(base_model), _called(report))


def import_model(file: AnyPath, *, characters: AnyPath | None = None, report: EventHandler | None = None) -> Model:
    """The model in a checkpoint of PyTorch or Keras; no code in the file is run. `Model.save` writes a model folder.

    Args:
        file: the checkpoint.
        characters: for a checkpoint without its characters, a file with them in the order of their indices.
        report: called with a `Notice` for each assumption about what the file does not say.

    Raises:
        ModelError: if the file is missing or damaged, needs code to be run, or holds another kind of network.
        SettingsError: if `characters` is missing, not needed, or does not fit.
        DeviceError: if the package that reads such files is not installed.
    """
    from charloom.importers import importing

    tell = _called(report)

    def notice(text: str) -> None:
        tell(Notice(text))

    return Model(importing.import_model(Path(checked_path(file, "file")), _path(characters, "characters"), notice))


def _source(paths: tuple[AnyPath | Sequence[AnyPath], ...], texts: Iterable[str] | None) -> Sequence[str] | Texts:
    """The checked source of the text: paths or texts."""
    if texts is None:
        given = [path for each in paths for path in (each if isinstance(each, list | tuple) else [each])]
        return [_path_of_a_text(path) for path in given]
    if paths:
        raise SettingsError(f"`texts` must not be given with paths; got {paths[0]!r} too; leave one of them out")
    return Texts.of(texts)


def _path_of_a_text(path: object) -> str:
    """A checked path. A string with newlines, or longer than any path, is a text by mistake."""
    found = checked_path(path, "paths")
    if ("\n" in found or len(found) > LONGEST_SHOWN) and not os.path.lexists(found):
        raise SettingsError(
            f"`paths` must be names of files; got {reprlib.repr(found)}; pass texts in memory as `texts=[...]`"
        )
    return found


def _renamed(origin: AnyPath, base_model: AnyPath | None) -> AnyPath:
    """`origin`, the former name of `base_model`, with a warning."""
    if base_model is not None:
        raise SettingsError("`base_model` must not be given with `origin`, its former name; leave `origin` out")
    message = "`origin` is now called `base_model`; the next version will not know the former name"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
    return origin


def _values(arguments: Iterable[str] | None, preset: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their current names, over those of a preset. A warning names the line that called `train`.

    arguments: the other names that the function takes; an error for an unknown name may suggest one.
    """
    values = with_current_names(settings, partial(warnings.warn, category=DeprecationWarning, stacklevel=4))
    check_names(values, Settings().flat, [*(arguments or ()), "charloom.resume"])
    return with_preset(preset, values) if preset else values


def _base(path: AnyPath | None) -> str | None:
    return checked_path(path, "base_model") if path is not None else None


def _called(report: EventHandler | None) -> EventHandler:
    """The checked callback for events; by default it does nothing."""
    if report is not None and not callable(report):
        raise SettingsError(f"`report` must be a function that takes an event; got {report!r}")
    return report or _ignore


def _stop_function(stop: Callable[[], bool] | None) -> Callable[[], bool]:
    """The checked callback that ends a run; by default it never does."""
    if stop is not None and not callable(stop):
        raise SettingsError(f"`stop` must be a function without arguments; got {stop!r}")
    return stop or _never


def _path(path: AnyPath | None, argument: str) -> Path | None:
    return Path(checked_path(path, argument)) if path is not None else None


def _best(run: Callable[[], str]) -> Model:
    """The best model of the run folder that `run` returns, or of the run that `stop` ended."""
    try:
        with full_memory_in_one_line():
            return load(run())
    except Interrupted as stopped:
        return load(stopped.run)


def _ignore(event: Event) -> None:
    """Shows nothing."""


def _never() -> bool:
    return False
