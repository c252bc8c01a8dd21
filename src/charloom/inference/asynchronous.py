"""Text for programs on asyncio. Each update of a scheduler runs in a thread, so it does not block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from charloom.errors import ModelError
from charloom.inference.request import Request
from charloom.inference.scheduler import NOTHING_TO_CHOOSE, Scheduler


async def texts(open_scheduler: Callable[[], Scheduler], request: Request) -> AsyncGenerator[str, None]:
    """The text of a request, in chunks as they are made.

    Nothing runs between two chunks. So the work ends when the caller leaves the loop or its task is cancelled. An
    update that is in progress finishes first (about 40 ms).

    Args:
        open_scheduler: makes a scheduler that only this call uses. It runs in a thread, because it may pack weights.
        request: the only request of this scheduler.

    Raises:
        ModelError: if no token can be chosen.
    """
    scheduler = await asyncio.to_thread(open_scheduler)
    scheduler.submit(request)
    while not scheduler.idle:
        for output in await asyncio.to_thread(scheduler.update):
            if output.text:
                yield output.text
            if output.finish_reason == "error":
                raise ModelError(NOTHING_TO_CHOOSE)
