"""The routes of the web app for training: uploads, plans, runs and their events."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from charloom.server.bodies import Body, body
from charloom.server.errors import ApiError
from charloom.server.limits import ServerLimits
from charloom.server.routes import as_json, unless_gone
from charloom.server.training import Training
from charloom.server.uploads import Arriving, Uploaded

BLOCK = 1 << 20
"""Bytes of an upload that are written at once, in a thread."""

MOST_MINUTES = 1440
"""A day. For longer runs there is the command line."""


class TrainRequest(Body):
    """The settings of a run."""

    upload: str = Field(description="the id of the texts")
    minutes: float = Field(gt=0, le=MOST_MINUTES, description="how long to train")
    records: Literal["none", "line", "paragraph", "sentence", "file"] = Field("none", description="kind of records")
    field: str | None = Field(None, description="the field or column that holds the text")
    base: str | None = Field(None, alias="from", description="the name of a model to fine-tune")

    @property
    def values(self) -> dict[str, Any]:
        """The settings by their flat names."""
        return {"minutes": self.minutes, "records": self.records, "field": self.field}


class ResumeRequest(Body):
    """Which run to resume."""

    run: str = Field(description="the name of the run")
    minutes: float | None = Field(None, gt=0, le=MOST_MINUTES, description="the new budget")


class StopRequest(Body):
    """Nothing: there is one run at a time."""


class TrainingRoutes:
    """The functions behind the routes."""

    def __init__(self, training: Training, limits: ServerLimits) -> None:
        self._training, self._limits = training, limits

    def add(self, app: FastAPI) -> None:
        """Adds the routes to an application. They are for its page, so the OpenAPI document leaves them out."""
        for method, path, function in (
            ("PUT", "/app/uploads/{upload}/{number}", self.upload),
            ("POST", "/app/plan", self.plan),
            ("POST", "/app/train", self.train),
            ("POST", "/app/stop", self.stop),
            ("POST", "/app/resume", self.resume),
            ("GET", "/app/runs", self.list_runs),
            ("GET", "/app/runs/{name}", self.get_run),
        ):
            app.add_api_route(path, function, methods=[method], include_in_schema=False)

    async def upload(self, request: Request, upload: str, number: str) -> Response:
        """Stores a file."""
        name, length = request.query_params.get("name", ""), request.headers.get("content-length")
        try:
            arriving = self._training.folder.uploads.begin(upload, number, name, int(length) if length else None)
        except (ApiError, OSError) as error:
            await _dropped(request)
            raise _refusal(error) from None
        stored = await _received(request, arriving)
        return as_json({"upload": upload, "name": stored.name, "bytes": stored.size}, 201)

    async def plan(self, request: Request) -> Response:
        """Plans a run."""
        asked = await body(request, TrainRequest, self._limits.body_bytes)
        planning = self._training.plan(asked.upload, asked.values, asked.base)
        return as_json(await unless_gone(request, planning))

    async def train(self, request: Request) -> Response:
        """Begins a run."""
        asked = await body(request, TrainRequest, self._limits.body_bytes)
        return as_json({"run": self._training.begin(asked.upload, asked.values, asked.base)}, 202)

    async def stop(self, request: Request) -> Response:
        """Stops the run."""
        await body(request, StopRequest, self._limits.body_bytes)
        return as_json({"run": self._training.stop()}, 202)

    async def resume(self, request: Request) -> Response:
        """Resumes a run."""
        asked = await body(request, ResumeRequest, self._limits.body_bytes)
        return as_json({"run": await self._training.resume(asked.run, asked.minutes)}, 202)

    async def list_runs(self) -> Response:
        """All runs."""
        runs = await self._training.all()
        return as_json({"current": self._training.current, "runs": [run.to_json() for run in runs]})

    async def get_run(self, request: Request, name: str) -> Response:
        """The events of a run."""
        since = request.query_params.get("since", "0")
        if not (since.isascii() and since.isdigit() and len(since) < 10):
            raise ApiError(400, f"`since` must be the number of an event; got {since!r}")
        return as_json(await self._training.events(name, int(since)))


async def _received(request: Request, arriving: Arriving) -> Uploaded:
    """The whole file, written block by block. One that is refused is read to its end too.

    Raises:
        ApiError: if it does not fit or cannot be written, or if the client leaves.
    """
    with arriving:
        block, refusal = bytearray(), None
        try:
            async for chunk in request.stream():
                if refusal is None:
                    try:
                        await _add(arriving, block, chunk)
                    except (ApiError, OSError) as error:
                        refusal = _refusal(error)
        except ClientDisconnect:
            raise ApiError(400, "the client closed the connection before the upload was complete") from None
        if refusal is not None:
            raise refusal
        try:
            arriving.add(block)
            return arriving.finish()
        except OSError as error:
            raise _refusal(error) from None


async def _add(arriving: Arriving, block: bytearray, chunk: bytes) -> None:
    arriving.take(len(chunk))
    block += chunk
    if len(block) >= BLOCK:
        await asyncio.to_thread(arriving.add, bytes(block))
        block.clear()


async def _dropped(request: Request) -> None:
    """Reads a refused upload to its end, so that the client reads the answer."""
    with contextlib.suppress(ClientDisconnect):
        async for _ in request.stream():
            pass


def _refusal(error: ApiError | OSError) -> ApiError:
    if isinstance(error, ApiError):
        return error
    return ApiError(507, f"the upload cannot be stored: {error.strerror}; free disk space")
