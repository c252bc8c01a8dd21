"""The memory that requests take together. Each has its own limits, but two thousand at these limits take gigabytes."""

from __future__ import annotations

import asyncio
import ctypes
import sys

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

LARGE = 2**18
"""Bytes of a block that is returned to the system when it is freed."""

M_MMAP_THRESHOLD = -3
"""The number of this setting in glibc's malloc.h."""

MUCH = 2**26
"""If requests together took more bytes than this, free memory is returned to the system when most have ended."""


class Memory:
    """Bytes that requests share. Only the event loop may use it. most: the bytes beside what is free for each.

    used: of these; taken: with what is free for each.
    """

    def __init__(self, most: int) -> None:
        self.most, self.used, self.taken = most, 0, 0
        self._highest = 0

    def change(self, used: int, taken: int) -> None:
        """Adds to both numbers. After much use, returns free memory to the system."""
        self.used, self.taken = self.used + used, self.taken + taken
        self._highest = max(self._highest, self.taken)
        if self._highest > MUCH and self.taken < self._highest // 4:
            self._highest = self.taken
            asyncio.get_running_loop().run_in_executor(None, return_memory)


def release_large_blocks() -> None:
    """From now on, this process returns a block of memory to the system when it frees it, if it is a large one.

    glibc does so only for blocks larger than any that was freed before, and bodies of requests grow in steps.
    """
    _malloc("mallopt", M_MMAP_THRESHOLD, LARGE)


def return_memory() -> None:
    """Returns all free memory of this process to the system."""
    _malloc("malloc_trim", 0)


def _malloc(name: str, *arguments: int) -> None:
    """Calls a function of glibc's allocator; other systems lack it."""
    if sys.platform == "linux" and (function := getattr(ctypes.CDLL(None), name, None)):
        function(*arguments)


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
        self._memory.change(counted - self._counted, count)
        self._taken, self._counted = self._taken + count, counted

    def give_back(self) -> None:
        """Gives back everything."""
        self._memory.change(-self._counted, -self._taken)
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
