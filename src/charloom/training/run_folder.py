"""A run folder: `run.toml`, `log.jsonl`, `samples.txt`, `data`, `best`, `last`, `lock`, and `kept` if `keep` is set.

`best/` is a model folder. `last/` is one too, with the state for resuming. `kept/` has one model folder for each kept
validation. A run never writes into a folder that already exists. Only one process at a time writes into a run folder:
it locks the file `lock`. The system releases the lock when the process ends in any way. The file itself stays, empty.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
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
from charloom.config import Settings
from charloom.errors import ModelError, SettingsError, TrainingError, in_a_file
from charloom.files import (
    append,
    cut_lines,
    is_leftover,
    make_folder,
    read,
    refuse_link,
    remove_leftovers,
    replace_file,
    sync,
)
from charloom.training.budget import Progress
from charloom.training.events import Event
from charloom.training.new_folder import new_folder
from charloom.validation import validated

UNBEGUN = {"run.toml", "log.jsonl", "samples.txt", "data", "best", "lock"}
"""The files of a run before its first checkpoint."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class RunState:
    """The whole state of training.

    model: with the parameters; progress: the position in the data and in the budget; arrays: the engine's snapshot, or
    None before the first step.
    """

    model: ModelFolder
    progress: Progress = field(default_factory=Progress)
    arrays: Arrays | None = None


class RunFolder:
    """The folder of one run, opened for writing. It is a context, in which no other process writes into the folder.

    source: origin of the text and, for fine-tuning, the base model; for people.
    """

    def __init__(self, folder: Path, settings: Settings, source: dict[str, Any]) -> None:
        self.folder, self.settings, self.source = folder, settings, source
        self._lock = FileLock(folder / "lock", blocking=False)
        self._locked: os.stat_result | None = None
        self._saved = False  # whether a checkpoint was written

    def __enter__(self) -> Self:
        """Locks the folder and removes temporary files of a process that was killed.

        Raises:
            TrainingError: if another process trains this run; then nothing is changed.
        """
        with self.writing():
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
        """The folder of the token ids."""
        return self.folder / "data"

    @property
    def log_file(self) -> Path:
        """The file of events, one JSON object a line."""
        return self.folder / "log.jsonl"

    @property
    def _grown(self) -> tuple[Path, Path]:
        """The files to which lines are appended; a checkpoint stores their sizes."""
        return self.log_file, self.folder / "samples.txt"

    @classmethod
    def create(cls, out: Path | None, name: str, settings: Settings, source: dict[str, Any]) -> RunFolder:
        """A run in a new folder; see `new_folder`. If two processes name the same folder, only one gets it."""
        folder = new_folder(out, name)
        try:
            (folder / "data").mkdir()
        except FileExistsError:
            raise SettingsError(
                f"`out` must be a new or empty folder; another run began in {folder}; choose another name"
            ) from None
        return cls(folder, settings, source)

    @classmethod
    def open(cls, folder: Path) -> RunFolder:
        """A run to resume.

        Raises:
            ModelError: if the folder is not a run folder, or its settings are damaged.
        """
        path = folder / "run.toml"
        try:
            data = tomllib.loads(read(path).decode("utf-8"))
            source = data.pop("source", {})
            return cls(folder, validated(Settings, earlier.run_settings(data)), source)
        except OSError as error:
            why = f"{path}: {error.strerror}" if os.path.lexists(folder) else f"{folder} does not exist"
            raise ModelError(f"a run to resume must be a folder with a run.toml; {why}") from None
        except (ValueError, RecursionError, ModelError) as error:  # not TOML, or a setting outside its range
            raise ModelError(f"{path} must hold the settings of a run; it is damaged: {in_a_file(error)}") from None

    def save_settings(self) -> None:
        """Writes `run.toml`."""
        sections = {section: values.model_dump(exclude_none=True) for section, values in self.settings}
        text = tomli_w.dumps({"source": self.source, **sections})
        with self.writing():  # "replace": a path may have bytes that are not UTF-8
            replace_file(self.folder / "run.toml", text.encode(errors="replace"))

    def save_best(self, model: ModelFolder) -> None:
        """Writes `best/`."""
        with self.writing():
            save_model(self.folder / "best", model)

    def save_kept(self, name: str, model: ModelFolder) -> Path:
        """Writes `kept/<name>/`, a model folder that is never replaced."""
        folder = self.folder / "kept" / name
        with self.writing():
            refuse_link(folder.parent)
            make_folder(folder.parent)
            save_model(folder, model)
        return folder

    def save_last(self, state: RunState) -> None:
        """Writes `last/`, with all that resuming needs. Syncs the log and the samples too."""
        assert state.arrays is not None
        with self.writing():
            self.sync_log()
            sizes = {f"{path.stem}_bytes": path.stat().st_size for path in self._grown if path.exists()}
            progress = state.progress.model_copy(update=sizes)
            save_model(self.folder / "last", state.model, (progress.model_dump(), state.arrays))
            self._saved = True

    def load_last(self) -> RunState:
        """Reads what `save_last` wrote. Removes lines that were added to the log and the samples afterwards.

        Raises:
            ModelError: if `last/` is missing or damaged.
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
        with self.writing():
            for path, size in zip(self._grown, (progress.log_bytes, progress.samples_bytes), strict=True):
                if os.path.lexists(path):
                    cut_lines(path, size)
        return RunState(model, progress, arrays)

    def _most_bytes(self, architecture: Architecture) -> int:
        """The largest size of a snapshot in bytes: two arrays for each parameter and state, 8 bytes a number."""
        state = architecture.layers * self.settings.training.batch_size * architecture.hidden
        return 16 * (architecture.size + state)

    def log(self, event: Event) -> None:
        """Appends an event to `log.jsonl`."""
        self._append(self.log_file, json.dumps(event.to_json(), ensure_ascii=False) + "\n")

    def sync_log(self) -> None:
        """Syncs `log.jsonl` and `samples.txt`, so that a power cut does not lose their lines."""
        for path in self._grown:
            with suppress(FileNotFoundError):
                sync(path)

    def add_sample(self, step: int, text: str) -> None:
        """Appends to `samples.txt`."""
        self._append(self.folder / "samples.txt", f"--- step {step}\n{text}\n\n")

    def _append(self, path: Path, text: str) -> None:
        with self.writing():
            append(path, text.encode("utf-8", "replace"))

    @contextmanager
    def abandoned_on_error(self) -> Iterator[None]:
        """Removes the folder if its run ends before the first checkpoint; a folder with a checkpoint stays.

        A missing `last/` does not prove that there is no checkpoint: while it is replaced, only `last.old/` may exist.
        """
        try:
            yield
        except BaseException:
            begun = self._saved or os.path.lexists(self.folder / "last")
            if not begun and self._is_in_its_place():
                shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turns an OSError into a TrainingError of one line, which says whether the run can be resumed."""
        try:
            self._check_place()
            yield
        except OSError as error:
            self._check_place()
            remedy = "free disk space" if error.errno in FULL else "correct this"
            begun = os.path.lexists(self.folder / "last")
            advice = f"the last checkpoint is whole; {remedy}, then resume the run"
            then = advice if begun else f"{remedy}, then start again"
            raise TrainingError(
                f"{error.filename or self.folder} cannot be written: {error.strerror}; {then}",
                self.folder if begun else None,
            ) from None

    def _check_place(self) -> None:
        """Checks that the folder is still the locked one, so that nothing is written to a new folder or to another run.

        Raises:
            TrainingError: if the folder was removed, moved or replaced.
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


def has_checkpoint(folder: Path) -> bool:
    """Whether a run can be resumed; while `last/` is replaced, only `last.old/` may exist."""
    return any(os.path.lexists(folder / name) for name in ("last", "last.old"))


def remove_unbegun(folder: Path) -> None:
    """Removes the files of a run that was killed before its first checkpoint. A folder with other files stays as it is.

    Raises:
        TrainingError: if another process begins this run now.
    """
    if not _is_unbegun(folder):
        return
    with RunFolder(folder, Settings(), {}):  # locked, and without temporary files
        if not _is_unbegun(folder):
            return
        for name in UNBEGUN - {"lock"}:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    (folder / "lock").unlink(missing_ok=True)


def _is_unbegun(folder: Path) -> bool:
    """Whether a folder has all files of a run before its first checkpoint and no others, so far as they were made."""
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError:
        return False
    begun = {name for name in names if not is_leftover(name)}
    if not begun or begun - UNBEGUN:
        return False
    if "run.toml" in begun:
        with suppress(ModelError):
            RunFolder.open(folder)
            return True
        return False
    data = folder / "data"
    return begun <= {"data", "lock"} and data.is_dir() and not any(data.iterdir())


def _progress(data: dict[str, Any]) -> Progress:
    """The values of `resume.json`; each field must be present and in its range."""
    missing = [name for name in Progress.model_fields if name not in data]
    if missing:
        raise ModelError(f"resume.json: {missing[0]} is missing; was it written by another version of charloom?")
    try:
        return validated(Progress, data)
    except SettingsError as error:
        raise ModelError(f"resume.json: {in_a_file(error)}") from None
