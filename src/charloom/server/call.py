"""A call of a client in progress: its sequences, and their outputs on the way to the client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from collections.abc import Sequence as AnySequence
from dataclasses import dataclass, field

from charloom.errors import ModelError
from charloom.inference.detokenizer import FinishReason
from charloom.inference.scheduler import NOTHING_TO_CHOOSE
from charloom.inference.sequence import Output, Sequence, TokenLogprobs


@dataclass
class News:
    """What a sequence produced since the client was last served; the fields are those of `Output`."""

    text: list[str] = field(default_factory=list)
    tokens: int = 0
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def add(self, output: Output) -> None:
        """Adds an output of the scheduler."""
        self.text.append(output.text)
        self.tokens += output.tokens
        self.logprobs += output.logprobs
        self.prompt_logprobs += output.prompt_logprobs
        self.finish_reason = output.finish_reason


class Call:
    """The outputs of one call, from the thread of the scheduler to the event loop.

    All methods but `cancel` run on the event loop. Memory is bounded by the limits of a request, however slowly the
    client reads.

    Args:
        count: the number of sequences.
    """

    def __init__(self, count: int) -> None:
        self.sequences: AnySequence[Sequence] = ()
        self.cancelled = False
        self._loop = asyncio.get_running_loop()
        self._news: dict[int, News] = {}
        self._left = count
        self._changed, self._ended = asyncio.Event(), asyncio.Event()
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._failure: Exception | None = None

    async def accepted(self) -> None:
        """Waits until the scheduler has taken the sequences.

        Raises:
            QueueFullError: if they do not fit into its queue.
        """
        await self._accepted

    def accept(self) -> None:
        """The scheduler has taken the sequences."""
        if not self._accepted.done():
            self._accepted.set_result(None)

    def fail(self, error: Exception) -> None:
        """Ends the call with an error."""
        self.cancel()
        if not self._accepted.done():
            self._accepted.set_exception(error)
        self._failure = self._failure or error
        self._changed.set()
        self._ended.set()

    def deliver(self, outputs: AnySequence[tuple[int, Output]]) -> None:
        """Takes outputs, each with the number of its sequence."""
        for number, output in outputs:
            self._news.setdefault(number, News()).add(output)
            self._left -= output.finish_reason is not None
            if output.finish_reason == "error":
                self.fail(ModelError(NOTHING_TO_CHOOSE))
        self._changed.set()
        if self._left <= 0:
            self._ended.set()

    async def chunks(self, seconds: float) -> AsyncIterator[dict[int, News]]:
        """What the sequences produced, by number. Between two chunks are at least `seconds`, except before the last.

        Raises:
            ModelError: if no token can be chosen.
            ApiError: if the server stops.
        """
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._failure:
                raise self._failure
            news, self._news = self._news, {}
            yield news
            if self._left <= 0 and not self._news:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), seconds)

    async def whole(self) -> dict[int, News]:
        """Everything that the sequences produced, by number, when all have ended.

        Raises:
            ModelError, ApiError: as in `chunks`.
        """
        await self._ended.wait()
        if self._failure:
            raise self._failure
        return self._news

    def cancel(self) -> None:
        """Frees the slots of the call in the next update of the scheduler. Any thread may call this."""
        self.cancelled = True
        for sequence in self.sequences:
            sequence.cancel()
