"""Training in the web app: one run at a time, its state and its events, and its model when it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from charloom.errors import CharloomError
from charloom.server.app_folder import AppFolder, stem_of, temporary
from charloom.server.errors import ApiError
from charloom.server.run_on_disk import ABOUT, RunOnDisk
from charloom.server.served_models import ModelSource, ServedModels
from charloom.server.training_answers import named, plan_answer, with_names
from charloom.server.training_process import TrainingProcess
from charloom.server.uploads import Uploaded

log = logging.getLogger("charloom.server")

STOP_SECONDS = 20.0
"""Seconds for which a server that stops waits for its run to save everything."""

EVENTS_AT_ONCE = 5000
"""Events in one answer."""


@dataclass
class CurrentRun:
    """The run of the latest process. names: of its texts, by their paths; events: that it reported, in their order;
    edition: changes whenever events are dropped, so that a page reads the list again.
    """

    run: RunOnDisk
    names: Mapping[str, str]
    events: list[dict[str, Any]] = field(default_factory=list)
    edition: str = field(default_factory=lambda: secrets.token_hex(4))

    def take(self, event: dict[str, Any]) -> None:
        """Takes an event of the process."""
        if event["event"] == "started":
            self.run = replace(self.run, state="training")
            self.events = [each for each in self.events if not _is_later(each, event["step"])]
            self.edition = secrets.token_hex(4)
        self.run = self.run.after(event)
        self.events.append(event)


class Training:
    """Trains one run at a time in a process of its own. Only the event loop may use it.

    folder: of the app; models: get the model of each run that has ended.
    """

    def __init__(self, folder: AppFolder, models: ServedModels) -> None:
        self.folder, self._models = folder, models
        self._process: TrainingProcess | None = None
        self._current: CurrentRun | None = None
        self._free = asyncio.Event()
        self._free.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def current(self) -> str | None:
        """The name of the run that is trained now."""
        return self._current.run.run if self._current and self._trains else None

    @property
    def _trains(self) -> bool:
        return self._current is not None and self._current.run.state in ("reading", "training")

    def begin(self, upload: str, values: Mapping[str, Any], base: str | None) -> str:
        """Begins a run on the files of an upload; returns its name.

        Args:
            upload: its id.
            values: settings by their flat names.
            base: the name of a model to fine-tune.

        Raises:
            ApiError: if another process trains or plans, or if there is no such upload or model.
        """
        self._check_free()
        files = self.folder.uploads.files(upload)
        asked = {"do": "train", **self._request(files, values, base)}
        name = self.folder.new_name(files[0].name, self._models.models)
        shown = {str(file.path): file.name for file in files}
        place, created = self.folder.runs / name, time.time()
        about = {"texts": shown, "from": base, "created": created}
        run = RunOnDisk(name, "reading", values["minutes"], None, None, base, tuple(shown.values()), created)
        asked |= {"out": str(place), "about_file": str(place / ABOUT), "about": about}
        self._start_run(asked, CurrentRun(run, shown))
        return name

    async def resume(self, name: str, minutes: float | None) -> str:
        """Resumes a run; returns its name.

        Raises:
            ApiError: if another process trains or plans, or if there is no such run.
        """
        self._check_free()
        folder = self.folder.folder_of(name)
        self._free.clear()
        try:
            events = await asyncio.to_thread(self.folder.events, name)
            run = await asyncio.to_thread(self.folder.read, name)
        finally:
            self._free.set()
        self._check_free()  # the server may stop by now
        values = {} if minutes is None else {"minutes": minutes}
        run = replace(run, state="reading", error=None, minutes=minutes or run.minutes)
        names = self.folder.texts(name)
        self._start_run({"do": "resume", "out": str(folder), "values": values}, CurrentRun(run, names, events))
        return name

    def stop(self) -> str:
        """Asks the run to save everything and to end; returns its name.

        Raises:
            ApiError: if none is trained.
        """
        if self._process is None or self._current is None or not self._trains:
            raise ApiError(409, "no run trains now")
        self._process.ask_to_stop()
        return self._current.run.run

    async def plan(self, upload: str, values: Mapping[str, Any], base: str | None) -> dict[str, Any]:
        """The plan for a run, with the beginning of its text.

        Raises:
            ApiError: as `begin`, and if the text cannot be used.
        """
        self._check_free()
        files = self.folder.uploads.files(upload)
        planned: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        def end(last: dict[str, Any]) -> None:
            self._set_free()
            if not planned.done():
                planned.set_result(last)

        process = self._start({"do": "plan", **self._request(files, values, base)}, end)
        try:
            last = await planned
        except asyncio.CancelledError:  # the client has left
            process.ask_to_stop()
            raise
        shown = {str(file.path): file.name for file in files}
        return plan_answer(last, shown)

    async def all(self) -> list[RunOnDisk]:
        """Every run, the newest first."""
        runs = await asyncio.to_thread(self.folder.all, self.current)
        if self._current is not None:
            runs = [*_with_current(runs, self._current.run)]
        return sorted(runs, key=lambda run: (-run.created, run.run))

    async def events(self, name: str, since: int) -> dict[str, Any]:
        """The state of a run, and its events from number `since` on, at most `EVENTS_AT_ONCE`.

        Raises:
            ApiError: if there is no such run.
        """
        if self._current is not None and self._current.run.run == name:
            run, events, names = self._current.run, self._current.events, self._current.names
            edition = self._current.edition
        else:
            edition = "disk"
            events = await asyncio.to_thread(self.folder.events, name)
            run, names = await asyncio.to_thread(self.folder.read, name), self.folder.texts(name)
        since = min(since, len(events))
        chosen = [with_names(event, names) for event in events[since : since + EVENTS_AT_ONCE]]
        known = {"run": name, "state": run.state, "error": run.error, "edition": edition}
        return {**known, "next": since + len(chosen), "events": chosen}

    def ask_to_stop(self) -> None:
        """The process saves what it does, and ends."""
        if self._process is not None:
            self._process.ask_to_stop()

    async def ended(self, hurry: Callable[[], bool]) -> None:
        """Waits until no process trains, at most `STOP_SECONDS` and not in a hurry: it ends by itself even later."""
        end = time.monotonic() + STOP_SECONDS
        while not self._free.is_set() and time.monotonic() < end and not hurry():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._free.wait(), 0.1)

    async def serve(self, name: str) -> str | None:
        """Adds the model of a run to the models, or loads it again. Returns the error if that is not possible."""
        source = ModelSource(name, str(self.folder.runs / name))
        served = self._models.models.get(name)
        if served is not None and Path(served.source.path).resolve() != Path(source.path).resolve():
            return f"its name is that of another model, {served.source.path}"
        try:
            await self._models.add(source)
        except ApiError:  # requests still run on earlier weights
            self._later(self._serve_soon(name))
        except CharloomError as error:
            return f"its model cannot be loaded: {error}"
        return None

    async def _serve_soon(self, name: str) -> None:
        await asyncio.sleep(1)
        await self.serve(name)

    def _check_free(self) -> None:
        if self._models.is_stopping:
            raise ApiError(503, "the server is stopping; ask another one", retry_seconds=1)
        if not self._free.is_set():
            what = f"{self.current} trains" if self.current else "another plan or run begins"
            raise ApiError(409, f"one run at a time; {what}; wait until it has ended, or stop it", "busy")

    def _request(self, files: Sequence[Uploaded], values: Mapping[str, Any], base: str | None) -> dict[str, Any]:
        """What the program needs to know of a text and its settings."""
        chosen = {name: value for name, value in values.items() if value is not None}
        if base is not None and chosen.get("records") == "none":
            del chosen["records"]  # those of the base model
        return {
            "paths": [str(file.path) for file in files],
            "name": stem_of(files[0].name),
            "values": chosen,
            "from": None if base is None else self._models.find(base).source.path,
        }

    def _start_run(self, asked: Mapping[str, Any], current: CurrentRun) -> None:
        self._start(asked, lambda last: self._later(self._end(current, last)), current)
        self._current = current

    def _start(self, asked: Mapping[str, Any], end: Any, current: CurrentRun | None = None) -> TrainingProcess:
        try:
            self._process = TrainingProcess(
                asked, current.take if current else _ignore, end, temporary(self.folder.path)
            )
        except OSError as error:
            raise ApiError(503, f"a process for training cannot be started: {error.strerror}") from None
        self._free.clear()
        return self._process

    async def _end(self, current: CurrentRun, last: Mapping[str, Any]) -> None:
        """The process has ended: its model is served, then its state changes."""
        name = current.run.run
        state = {"ended": "finished", "stopped": "stopped"}.get(last["event"], "failed")
        error = named(last["text"], current.names) if state == "failed" else None
        try:
            if self.folder.has_model(name) and not self._models.is_stopping:
                failure = await self.serve(name)
                error = error or failure
            elif state == "stopped" and name not in self.folder.names():
                error = "stopped before training began; start it again"
        except OSError as failed:
            error = error or f"its folder cannot be read: {failed.strerror}"
        finally:
            current.run = replace(current.run, state=state, error=error)
            self._set_free()

    def _set_free(self) -> None:
        self._process = None
        self._free.set()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _ignore(event: dict[str, Any]) -> None:
    """Takes an event of a plan."""


def _is_later(event: Mapping[str, Any], step: int) -> bool:
    """Whether an event of a resumed run comes after its last checkpoint: it will come again."""
    found = event.get("step")
    return isinstance(found, int) and found > step


def _with_current(runs: Sequence[RunOnDisk], current: RunOnDisk) -> list[RunOnDisk]:
    """The runs with what only this process knows of the current one: that it trains, or why it failed."""
    others = [run for run in runs if run.run != current.run]
    on_disk = next((run for run in runs if run.run == current.run), None)
    if current.state in ("reading", "training"):
        return [*others, current]
    if on_disk is not None:  # it can be resumed, also if its process failed
        return [*others, replace(on_disk, error=current.error or on_disk.error)]
    return [*others, current] if current.state == "failed" else [*runs]
