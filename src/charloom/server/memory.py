"""The memory that requests take together. Each has its own limits, but two thousand at these limits take gigabytes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from charloom.server.errors import RETRY_SECONDS, ApiError

FREE = 2**18
"""Bytes that every request may take. So clients with short prompts are served while others fill the memory."""

PER_BODY_BYTE = 16
"""Bytes of memory for a byte of a body that is parsed: its text, its tokens as a list twice, and as an array."""

PER_LOGPROB = 110
"""Bytes of memory for a log-probability of an answer, until the client has read it."""

PER_TOKEN = 8
"""Bytes of memory for a generated token, until the client has read it."""


class Memory:
    """Bytes that requests share. Only the event loop may use it. most: the bytes beside what is free for each."""

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0


class Share:
    """What one request takes of the memory."""

    def __init__(self, memory: Memory) -> None:
        self._memory, self._taken, self._counted = memory, 0, 0

    def take(self, count: int) -> None:
        """Takes bytes, until the end of the request.

        Raises:
            ApiError: if there are not so many.
        """
        counted = max(0, self._taken + count - FREE)
        if self._memory.used + counted - self._counted > self._memory.most:
            raise ApiError(
                429,
                f"the requests in progress may take {self._memory.most:,} bytes of memory, and this one does not fit; "
                "ask again once some have ended",
                "memory_full",
                retry_seconds=RETRY_SECONDS,
            )
        self._memory.used += counted - self._counted
        self._taken, self._counted = self._taken + count, counted

    def give_back(self) -> None:
        """Gives back everything."""
        self._memory.used -= self._counted
        self._taken = self._counted = 0


def share_of(request: Request) -> Share:
    """The share of a request."""
    share: Share = request.state.share
    return share


class Sharing:
    """An ASGI application around another one: each request has a share, from its start to the end of its answer."""

    def __init__(self, app: ASGIApp, memory: Memory) -> None:
        self._app, self._memory = app, memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        share = Share(self._memory)
        scope.setdefault("state", {})["share"] = share
        try:
            await self._app(scope, receive, send)
        finally:
            share.give_back()
