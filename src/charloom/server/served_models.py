"""The models of a server: loaded in the background, found by name, and loaded again on request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence as AnySequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from charloom.checkpoint import find_model
from charloom.errors import CharloomError, SettingsError
from charloom.inference.backend import Precision
from charloom.inference.request import Request
from charloom.inference.scheduler import SLOTS, WAITING, Scheduler
from charloom.inference.token_texts import token_names
from charloom.model import Model
from charloom.server.call import Call
from charloom.server.errors import ApiError
from charloom.server.metrics import Metrics
from charloom.server.wire import without_surrogates
from charloom.server.worker import Worker


@dataclass(frozen=True)
class ModelSource:
    """A model to serve. name: for clients; path: of a model folder or a run folder."""

    name: str
    path: str

    @staticmethod
    def parsed(argument: str) -> ModelSource:
        """`[NAME=]MODEL`. Without a name, that of the folder; for `best` or `last` in a run, that of the run.

        Raises:
            ModelError: if the path has no model.
            SettingsError: if the name is empty or cannot be printed.
        """
        name, equals, path = argument.partition("=")
        if not equals or Path(argument).exists():
            name, path = "", argument
        folder = find_model(path)
        if not equals or Path(argument).exists():
            place = Path(path).resolve()
            name = place.parent.name if place.name in ("best", "last") else place.name
        if not name or not name.isprintable() or name != name.strip():
            raise SettingsError(
                f"the name of a model must be printable text; {folder} got the name {name!r}; give NAME=MODEL"
            )
        return ModelSource(name, path)


class LoadedModel:
    """A model with its scheduler. A later load of the same folder makes another one."""

    def __init__(self, model: Model, scheduler: Scheduler) -> None:
        self.model, self.scheduler = model, scheduler
        self.created = int(time.time())

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every token as text, in id order."""
        model = self.model
        return tuple(map(without_surrogates, token_names(model.vocabulary, model.separator_text)))


class ServedModel:
    """A model under its name. Its worker runs requests to the weights of today, and ends those to earlier weights."""

    def __init__(self, source: ModelSource, worker: Worker, precision: Precision, slots: int, waiting: int) -> None:
        self.source, self.worker = source, worker
        self._precision, self._slots, self._waiting = precision, slots, waiting
        self._current: LoadedModel | None = None
        self._earlier: LoadedModel | None = None
        self._loading = asyncio.Lock()

    @property
    def name(self) -> str:
        """The name that clients use."""
        return self.source.name

    @property
    def is_loaded(self) -> bool:
        """Whether it was loaded."""
        return self._current is not None

    @property
    def current(self) -> LoadedModel:
        """The model of today.

        Raises:
            ApiError: while it loads for the first time.
        """
        if self._current is None:
            raise ApiError(503, f"the model {self.name!r} is loading; ask again in a moment", retry_seconds=1)
        return self._current

    async def load(self) -> None:
        """Loads the folder, for the first time or again. Sequences in progress end on the earlier weights.

        Raises:
            ApiError: if it is being loaded, or if sequences still run on weights of two loads ago.
            CharloomError: if the folder is damaged. The weights of today stay.
        """
        if self._loading.locked() or (self._earlier and self.worker.is_busy(self._earlier.scheduler)):
            raise ApiError(
                409, f"one reload of {self.name!r} must end before the next; requests still run; ask again later"
            )
        async with self._loading:
            loaded = await asyncio.to_thread(self._load)
            self._current, self._earlier = loaded, self._current

    def _load(self) -> LoadedModel:
        model = Model.load(self.source.path)
        return LoadedModel(model, model.scheduler(self._precision, slots=self._slots, waiting=self._waiting))

    async def submit(self, loaded: LoadedModel, requests: AnySequence[Request]) -> Call:
        """Starts requests that were made for these weights.

        Raises:
            QueueFullError: if they do not fit into the queue.
        """
        return await self.worker.submit(loaded.scheduler, requests)


class ServedModels:
    """All models of a server. Made on its event loop.

    Args:
        sources: the first answers requests that name none. Without any, `add` brings the first one.
        metrics: what is counted goes here.
        precision, slots, waiting: of each scheduler.

    Raises:
        SettingsError: if two have the same name.
    """

    def __init__(
        self,
        sources: AnySequence[ModelSource],
        metrics: Metrics,
        precision: Precision = "auto",
        slots: int = SLOTS,
        waiting: int = WAITING,
    ) -> None:
        self.loop, self.metrics, self.waiting = asyncio.get_running_loop(), metrics, waiting
        self.is_stopping = False
        self._precision, self._slots = precision, slots
        self.models = {source.name: self._made(source) for source in sources}

    def _made(self, source: ModelSource) -> ServedModel:
        worker = Worker(source.name, self.metrics, self.loop)
        return ServedModel(source, worker, self._precision, self._slots, self.waiting)

    @property
    def status(self) -> str:
        """`ok` if every model answers requests, else `loading`, `stopping` or `failed`."""
        if any(model.worker.failed for model in self.models.values()):
            return "failed"
        if self.is_stopping:
            return "stopping"
        return "ok" if all(model.is_loaded for model in self.models.values()) else "loading"

    def find(self, name: str | None) -> ServedModel:
        """The model of this name; without a name, the first one.

        Raises:
            ApiError: if there is no such model, or if the server stops.
        """
        if self.is_stopping:
            raise ApiError(503, "the server is stopping; ask another one", retry_seconds=1)
        if not self.models:
            raise ApiError(404, "there is no model yet; train one", "model_not_found")
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            served = ", ".join(map(repr, self.models))
            raise ApiError(404, f"`model` must be one of {served}; got {name!r}", "model_not_found")
        return self.models[name]

    async def load(self) -> None:
        """Loads every model.

        Raises:
            CharloomError: for the first one that cannot be loaded.
        """
        for model in [*self.models.values()]:
            try:
                await model.load()
            except CharloomError as error:
                raise type(error)(f"{model.name}: {error}") from None

    async def add(self, source: ModelSource) -> None:
        """Loads one model more; one that is there is loaded again.

        Raises:
            ApiError: if requests still run on weights of two loads ago.
            CharloomError: if it cannot be loaded.
        """
        if source.name in self.models:
            await self.models[source.name].load()
            return
        model = self._made(source)
        try:
            await model.load()
        except BaseException:
            model.worker.stop()
            raise
        if self.is_stopping:
            model.worker.stop()
        else:
            self.models[source.name] = model

    async def reload(self, name: str | None) -> list[str]:
        """Loads one model again, or all of them; returns their names.

        Raises:
            ApiError: if a model is unknown or busy, or its folder is damaged. Then it keeps its weights.
        """
        chosen = [*self.models.values()] if name is None and not self.is_stopping else [self.find(name)]
        for model in chosen:
            try:
                await model.load()
            except CharloomError as error:
                raise ApiError(
                    409, f"{model.name} keeps its weights, because its folder cannot be loaded: {error}"
                ) from None
        return [model.name for model in chosen]

    def refuse(self) -> None:
        """From now on, no new requests."""
        self.is_stopping = True

    def fail_all(self) -> None:
        """Ends the requests that still run."""
        for model in self.models.values():
            model.worker.fail_all(ApiError(503, "the server stopped before this text was complete; ask another one"))

    def stop(self) -> None:
        """Ends the threads."""
        for model in self.models.values():
            model.worker.stop()
