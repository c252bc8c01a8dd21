"""What each route of the server does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from charloom import trace
from charloom.errors import TextError
from charloom.server import schemas
from charloom.server.bodies import body
from charloom.server.call import Call
from charloom.server.completions import Answer, CompletionRequest, prepared
from charloom.server.errors import ApiError
from charloom.server.limits import ServerLimits
from charloom.server.memory import PER_LOGPROB, PER_TOKEN, share_of
from charloom.server.metrics import Metrics
from charloom.server.served_models import LoadedModel, ServedModel, ServedModels
from charloom.server.wire import to_json, without_surrogates

T = TypeVar("T")


class Routes:
    """The functions behind the routes. `app.py` says which path belongs to each."""

    def __init__(self, models: ServedModels, metrics: Metrics, limits: ServerLimits) -> None:
        self._models, self._metrics, self._limits = models, metrics, limits
        self._tracing = asyncio.Lock()  # one trace at a time: it takes much memory

    async def health(self) -> Response:
        """Whether the server answers requests."""
        status = self._models.status
        return as_json({"status": status}, 200 if status == "ok" else 503)

    async def metrics(self) -> Response:
        """Counters in Prometheus's text format."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def list_models(self) -> Response:
        """All models."""
        return as_json({"object": "list", "data": [_card(model) for model in self._models.models.values()]})

    async def get_model(self, name: str) -> Response:
        """One model."""
        return as_json(_card(self._models.find(name)))

    async def completions(self, request: Request) -> Response:
        """Continue prompts."""
        asked = await body(request, CompletionRequest, self._limits.body_bytes)
        served = self._models.find(asked.model)
        request.state.model = served.name  # for the count of refusals
        if asked.is_short:
            made = prepared(asked, served.current, self._limits)
        else:
            made = await asyncio.to_thread(prepared, asked, served.current, self._limits)
        share_of(request).take(PER_TOKEN * made.tokens + PER_LOGPROB * made.logprobs)
        call = await served.submit(made.loaded, made.requests)
        self._metrics.prompt_tokens.labels(served.name).inc(sum(map(len, made.prompts)))
        answer = Answer(asked, served.name, made, call)
        if asked.stream:
            between = self._metrics.between_chunks.labels(served.name)
            return EventStream(answer.events(self._limits.chunk_seconds, between.observe), call)
        try:
            return Response(await unless_gone(request, answer.whole()), media_type="application/json")
        finally:
            call.cancel()

    async def chat(self) -> Response:
        """Refuses chats."""
        raise ApiError(
            404, "these are completion models, without a chat format; use /v1/completions", "not_a_chat_model"
        )

    async def tokenize(self, request: Request) -> Response:
        """The token ids of a text."""
        asked = await body(request, schemas.Tokenize, self._limits.body_bytes)
        model = self._models.find(asked.model).current.model
        tokens = await asyncio.to_thread(model.tokenize, asked.prompt, asked.unknown)
        return as_json({"count": len(tokens), "max_model_len": self._limits.prompt_tokens, "tokens": tokens})

    async def detokenize(self, request: Request) -> Response:
        """The text of token ids."""
        asked = await body(request, schemas.Detokenize, self._limits.body_bytes)
        model = self._models.find(asked.model).current.model
        text = await asyncio.to_thread(model.detokenize, asked.tokens)
        return as_json({"prompt": without_surrogates(text)})

    async def trace(self, request: Request) -> Response:
        """The gates, states and probabilities at every step of a text."""
        asked = await body(request, schemas.TraceRequest, self._limits.body_bytes)
        loaded = self._models.find(asked.model).current
        async with self._tracing:
            traced = await asyncio.to_thread(_traced, asked, loaded, self._limits.trace_numbers)
        return Response(traced, media_type="application/json")

    async def reload(self, request: Request) -> Response:
        """Load newer weights. Texts in progress end on the earlier ones."""
        asked = await body(request, schemas.Reload, self._limits.body_bytes)
        return as_json({"reloaded": await self._models.reload(asked.model)})


class EventStream(StreamingResponse):
    """A stream of server-sent events. When it ends, for whatever reason, its call gives back its slots."""

    def __init__(self, events: AsyncIterator[bytes], call: Call) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}  # nginx must not collect the chunks
        super().__init__(events, headers=headers, media_type="text/event-stream")
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events until they end or the client leaves."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._call.cancel()


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of some work, unless the client leaves first: uvicorn does not cancel its request.

    Raises:
        ApiError: if the client has left; nobody receives it.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(400, "the client closed the connection")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _traced(asked: schemas.TraceRequest, loaded: LoadedModel, numbers: int) -> bytes:
    model = loaded.model
    most, found = trace.most_steps(model.architecture, numbers), len(model.tokenizer.ids(asked.text, asked.unknown))
    if found > most:
        raise TextError(f"`text` must have at most {most:,} tokens with this model; found {found:,}; trace it in parts")
    made = model.trace(asked.text, gradients_of=asked.gradients_of, window=asked.window, unknown=asked.unknown)
    found_json = made.to_json()
    return to_json(found_json | {"tokens": [without_surrogates(token) for token in made.tokens]})


def _card(model: ServedModel) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": model.current.created, "owned_by": "charloom"}


def as_json(value: object, status: int = 200) -> Response:
    """A response of JSON."""
    return Response(to_json(value), status, media_type="application/json")
