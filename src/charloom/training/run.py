"""A run folder: `run.toml`, `log.jsonl`, `samples.txt`, `data/`, `best/` and `last/`.

`best/` is a model folder; `last/` is one too, with what resuming needs beside it. A run never writes into a folder that
is there already.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w

from charloom.checkpoint import Arrays, ModelFolder, find_model, load_model, read_arrays, read_json, save_model
from charloom.config import Settings, validated
from charloom.errors import ModelError, SettingsError, TrainingError
from charloom.training.budget import Progress
from charloom.training.events import Event


class Run:
    """The folder of one run, opened for writing.

    source: where the text came from and, for fine-tuning, the model it started from; for people to read.
    """

    def __init__(self, folder: Path, settings: Settings, source: dict[str, Any]) -> None:
        self.folder, self.settings, self.source = folder, settings, source

    @property
    def data(self) -> Path:
        """The folder of the run's ids."""
        return self.folder / "data"

    @property
    def resume_command(self) -> str:
        """What goes on with this run."""
        return f"charloom train --resume {self.folder}"

    @classmethod
    def create(cls, out: Path | None, name: str, settings: Settings, source: dict[str, Any]) -> Run:
        """A new folder: `out`, or the first free `runs/<name>-<n>`.

        Raises:
            SettingsError: if `out` is there and not empty, or cannot be made.
        """
        folder = out or _first_free(name)
        try:
            folder.mkdir(parents=True, exist_ok=out is not None)
            if any(folder.iterdir()):
                raise SettingsError(f"--out must be a new or empty folder; {folder} holds files; choose another name")
            (folder / "data").mkdir()
            sections = {section: values.model_dump(exclude_none=True) for section, values in settings}
            (folder / "run.toml").write_text(tomli_w.dumps({"source": source, **sections}), encoding="utf-8")
        except OSError as error:
            raise SettingsError(f"--out must be a folder that can be written; {folder}: {error.strerror}") from None
        return cls(folder, settings, source)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """A run to go on with.

        Raises:
            ModelError: if it is not a run folder, or was stopped before training began.
        """
        try:
            data = tomllib.loads((folder / "run.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"--resume needs a run folder with a run.toml; {folder}: {error}") from None
        source = data.pop("source", {})
        return cls(folder, validated(Settings, data), source)

    def save_best(self, model: ModelFolder) -> None:
        """Writes `best/`."""
        with self._writing():
            save_model(self.folder / "best", model)

    def save_last(self, model: ModelFolder, progress: Progress, arrays: Arrays) -> None:
        """Writes `last/`, with all that resuming needs."""
        with self._writing():
            save_model(self.folder / "last", model, (dataclasses.asdict(progress), arrays))

    def load_last(self) -> tuple[ModelFolder, Progress, Arrays]:
        """What `save_last` wrote. Lines written to the log and the samples since then are taken back.

        Raises:
            ModelError: if it is not there or damaged.
        """
        try:
            folder = find_model(self.folder / "last")
        except ModelError:
            raise ModelError(f"{self.folder} was stopped before training began; start it again") from None
        model, arrays = load_model(folder), read_arrays(folder / "resume.safetensors")
        try:
            progress = Progress(**read_json(folder / "resume.json"))
        except TypeError as error:
            raise ModelError(f"{folder / 'resume.json'} does not fit this version of charloom: {error}") from None
        for name, size in (("log.jsonl", progress.log_bytes), ("samples.txt", progress.samples_bytes)):
            if (self.folder / name).exists():
                os.truncate(self.folder / name, min(size, (self.folder / name).stat().st_size))
        return model, progress, arrays

    def log(self, event: Event) -> int:
        """Appends an event to `log.jsonl`; returns the log's size."""
        return self._append("log.jsonl", json.dumps(event.to_json(), ensure_ascii=False) + "\n")

    def add_sample(self, step: int, text: str) -> int:
        """Appends to `samples.txt`; returns its size."""
        return self._append("samples.txt", f"--- step {step}\n{text}\n\n")

    def _append(self, name: str, text: str) -> int:
        with self._writing(), (self.folder / name).open("ab") as file:
            file.write(text.encode("utf-8", "replace"))
            return file.tell()

    @contextmanager
    def abandoned_on_error(self) -> Iterator[None]:
        """Takes the folder away again if the text turns out to be unusable."""
        try:
            with self._writing():
                yield
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"{self.folder} cannot be written: {error.strerror}; the last checkpoint is whole; make room, then: "
                f"{self.resume_command}"
            ) from None


def _first_free(name: str) -> Path:
    number = 1
    while (folder := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return folder
