"""A run folder: `run.toml`, `log.jsonl`, `samples.txt`, `data`, `best`, `last`, `lock` and, where asked for, `kept`.

`best/` is a model folder; `last/` is one too, with what resuming needs beside it; `kept/` holds one a kept epoch. A run
never writes into a folder that is there already, and one process at a time writes into it: it holds `lock`, which the
system takes back when the process ends, however it ends. The file itself stays and says nothing.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import tomli_w
from filelock import FileLock, Timeout

from charloom import earlier
from charloom.architecture import Architecture
from charloom.checkpoint import (
    Arrays,
    ModelFolder,
    check_sha256,
    find_model,
    load_model,
    read_arrays,
    read_json,
    save_model,
)
from charloom.config import Settings, validated
from charloom.errors import ModelError, SettingsError, TrainingError
from charloom.files import (
    append,
    cut_lines,
    make_folder,
    opened,
    read,
    refuse_link,
    remove_leftovers,
    replace_file,
    sync,
)
from charloom.training.budget import Progress
from charloom.training.events import Event

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunFolder:
    """The folder of one run, opened for writing; a context, within which no other process writes into it.

    source: where the text came from and, for fine-tuning, the model it started from; for people to read.
    """

    def __init__(self, folder: Path, settings: Settings, source: dict[str, Any]) -> None:
        self.folder, self.settings, self.source = folder, settings, source
        self._lock = FileLock(folder / "lock", blocking=False)
        self._locked: os.stat_result | None = None

    def __enter__(self) -> Self:
        """Locks the folder and removes what a process left there that was killed.

        Raises:
            TrainingError: if another process trains this run; nothing is changed.
        """
        with self._writing():
            try:
                self._lock.acquire()
            except Timeout:
                raise TrainingError(
                    f"{self.folder} must be trained by one process at a time; another one trains it; wait until it ends"
                ) from None
            self._locked = os.stat(self.folder / "lock")
            for folder in (self.folder, self.folder / "kept"):
                remove_leftovers(folder)
        return self

    def __exit__(self, *error: object) -> None:
        self._locked = None
        self._lock.release()

    @property
    def data(self) -> Path:
        """The folder of the run's ids."""
        return self.folder / "data"

    @property
    def resume_command(self) -> str:
        """What goes on with this run."""
        return f"charloom train --resume {shlex.quote(str(self.folder))}"

    @classmethod
    def create(cls, out: Path | None, name: str, settings: Settings, source: dict[str, Any]) -> RunFolder:
        """A run in a new folder: see `new_folder`. Of two processes that are given one folder, one gets it."""
        folder = new_folder(out, name)
        try:
            (folder / "data").mkdir()
        except FileExistsError:
            raise SettingsError(f"--out must be a new or empty folder; another run began in {folder}") from None
        return cls(folder, settings, source)

    @classmethod
    def open(cls, folder: Path) -> RunFolder:
        """A run to go on with.

        Raises:
            ModelError: if it is not a run folder, or its settings are damaged.
        """
        path = folder / "run.toml"
        try:
            data = tomllib.loads(read(path).decode("utf-8"))
            source = data.pop("source", {})
            return cls(folder, validated(Settings, earlier.run_settings(data)), source)
        except OSError as error:
            raise ModelError(f"--resume needs a run folder with a run.toml; {path}: {error.strerror}") from None
        except (ValueError, RecursionError, ModelError) as error:  # not TOML, or a setting outside its range
            raise ModelError(f"{path} must hold the settings of a run; it is damaged: {error}") from None

    def save_settings(self) -> None:
        """Writes `run.toml`."""
        sections = {section: values.model_dump(exclude_none=True) for section, values in self.settings}
        text = tomli_w.dumps({"source": self.source, **sections})
        with self._writing():  # "replace": a path may hold bytes that are no UTF-8
            replace_file(self.folder / "run.toml", text.encode(errors="replace"))

    def save_best(self, model: ModelFolder) -> None:
        """Writes `best/`."""
        with self._writing():
            save_model(self.folder / "best", model)

    def save_kept(self, name: str, model: ModelFolder) -> Path:
        """Writes `kept/<name>/`, a model folder that nothing replaces."""
        folder = self.folder / "kept" / name
        with self._writing():
            refuse_link(folder.parent)
            make_folder(folder.parent)
            save_model(folder, model)
        return folder

    def save_last(self, model: ModelFolder, progress: Progress, arrays: Arrays) -> None:
        """Writes `last/`, with all that resuming needs; the log and the samples up to here last from now on too."""
        with self._writing():
            self.sync_log()
            save_model(self.folder / "last", model, (progress.model_dump(), arrays))

    def load_last(self) -> tuple[ModelFolder, Progress, Arrays]:
        """What `save_last` wrote. Lines written to the log and the samples since then are taken back.

        Raises:
            ModelError: if it is not there or damaged.
        """
        try:
            folder = find_model(self.folder / "last")
        except ModelError:
            raise ModelError(f"{self.folder} was stopped before training began; start it again") from None
        model = load_model(folder)
        try:
            arrays = read_arrays(folder / "resume.safetensors", self._most_bytes(model.architecture))
            data = read_json(folder / "resume.json")
            check_sha256(folder / "resume.safetensors", data, "resume.json")
            data.pop("sha256", None)
            progress = _progress(earlier.renamed(data, earlier.PROGRESS))
        except ModelError as error:
            raise ModelError(f"{folder}: {error}") from None
        with self._writing():
            for name, size in (("log.jsonl", progress.log_bytes), ("samples.txt", progress.samples_bytes)):
                if os.path.lexists(self.folder / name):
                    cut_lines(self.folder / name, size)
        return model, progress, arrays

    def _most_bytes(self, architecture: Architecture) -> int:
        """What an optimizer and a state can take: two arrays for each parameter and two parts, 8 bytes a number."""
        state = architecture.layers * self.settings.training.batch_size * architecture.hidden
        return 16 * (architecture.size + state)

    def log(self, event: Event) -> int:
        """Appends an event to `log.jsonl`; returns the log's size."""
        return self._append("log.jsonl", json.dumps(event.to_json(), ensure_ascii=False) + "\n")

    def sync_log(self) -> None:
        """Makes what is in `log.jsonl` and `samples.txt` last through a power cut."""
        for name in ("log.jsonl", "samples.txt"):
            with suppress(FileNotFoundError):
                sync(self.folder / name)

    def curve(self) -> tuple[list[int], list[float], list[float], int]:
        """Steps, losses and training losses of all validations, and how many lines a power cut left that are no events.

        The log goes back to before the run was resumed.
        """
        measured: list[tuple[int, float, float]] = []
        damaged = 0
        with opened(self.folder / "log.jsonl") as lines:  # only \n ends a line; a text may hold U+2028
            for line in lines:
                try:
                    measured += _measured(line)
                except (ValueError, RecursionError):
                    damaged += 1
        return (
            [step for step, _, _ in measured],
            [nats for _, nats, _ in measured],
            [nats for _, _, nats in measured],
            damaged,
        )

    def add_sample(self, step: int, text: str) -> int:
        """Appends to `samples.txt`; returns its size."""
        return self._append("samples.txt", f"--- step {step}\n{text}\n\n")

    def _append(self, name: str, text: str) -> int:
        with self._writing():
            return append(self.folder / name, text.encode("utf-8", "replace"))

    @contextmanager
    def abandoned_on_error(self) -> Iterator[None]:
        """Takes the folder away again if training cannot begin; one with a checkpoint stays."""
        try:
            with self._writing():
                yield
        except BaseException:
            if self._is_in_its_place() and not os.path.lexists(self.folder / "last"):
                shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self._check_place()
            yield
        except OSError as error:
            self._check_place()
            mend = "make room" if error.errno in FULL else "mend that"
            begun = os.path.lexists(self.folder / "last")
            then = f"the last checkpoint is whole; {mend}, then: {self.resume_command}"
            raise TrainingError(
                f"{error.filename or self.folder} cannot be written: {error.strerror}; "
                f"{then if begun else f'{mend}, then start again'}"
            ) from None

    def _check_place(self) -> None:
        """Makes sure that the folder is still the one that was locked: nothing is made anew, or put into another run.

        Raises:
            TrainingError: if it is not.
        """
        if not self._is_in_its_place():
            raise TrainingError(
                f"{self.folder} must stay in its place while it is trained; it was removed, moved or replaced; "
                "training ends, and nothing more is written"
            )

    def _is_in_its_place(self) -> bool:
        if self._locked is None:
            return True
        try:
            return os.path.samestat(self._locked, os.stat(self.folder / "lock"))
        except OSError:
            return False


def new_folder(out: Path | None, name: str) -> Path:
    """Makes `out`, or the first free `runs/<name>-<n>`.

    Raises:
        SettingsError: if `out` is there and not empty, or cannot be made.
    """
    try:
        return _first_free(name) if out is None else _empty(out)
    except OSError as error:
        folder = error.filename or out or "runs"
        raise SettingsError(f"--out must be a folder that can be written; {folder}: {error.strerror}") from None


def _first_free(name: str) -> Path:
    """Makes `runs/<name>-<n>`; of two runs that start at once, each gets its own."""
    runs = Path("runs")
    make_folder(runs)
    for number in itertools.count(1):
        folder = runs / f"{name}-{number}"
        with suppress(FileExistsError):
            folder.mkdir()
            break
    sync(runs)
    return folder


def _empty(folder: Path) -> Path:
    make_folder(folder)
    if any(folder.iterdir()):
        raise SettingsError(f"--out must be a new or empty folder; {folder} holds files; choose another name")
    return folder


def _measured(line: bytes) -> list[tuple[int, float, float]]:
    """The step, the loss and the training loss of a line of the log, if it is a validation that has both.

    Raises:
        ValueError: if it is no event.
    """
    event = json.loads(line)
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise ValueError("no event")
    step, nats, training = (event.get(name) for name in ("step", "validation_nats", "train_nats"))
    if event["event"] != "validation" or nats is None or training is None:
        return []
    if type(step) is not int or not all(type(x) is float and math.isfinite(x) for x in (nats, training)):
        raise ValueError("no validation")
    return [(step, nats, training)]


def _progress(data: dict[str, Any]) -> Progress:
    """What `resume.json` holds, every field of it there and in its range."""
    missing = [name for name in Progress.model_fields if name not in data]
    if missing:
        raise ModelError(f"resume.json: {missing[0]} is missing; was it written by another version of charloom?")
    try:
        return validated(Progress, data)
    except SettingsError as error:
        raise ModelError(f"resume.json: {error}") from None
