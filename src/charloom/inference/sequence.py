"""A request in progress, and what it gives out."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from charloom.cells import Integers
from charloom.data.vocabulary import Vocabulary
from charloom.inference.detokenizer import Detokenizer, FinishReason
from charloom.inference.request import Request
from charloom.inference.rows import Row
from charloom.inference.sampling import draw, uniforms


class TokenLogprobs(NamedTuple):
    """ln p of a token and of the most probable ones, by the network's own distribution: before any sampling parameter.

    token: its id; logprob: ln p; top: pairs of an id and its ln p, the most probable first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Output(NamedTuple):
    """What came of one sequence in one update of the scheduler.

    text: what is certain by now, which may be none; tokens: how many were generated; logprobs: of each of those, where
    asked for; finish_reason: None while the sequence goes on.
    """

    sequence: Sequence
    text: str = ""
    tokens: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None


class Sequence:
    """A request in progress. Its recurrent state and last token are in the scheduler's batch.

    Args:
        request: what was asked.
        vocabulary: of the model.
    """

    def __init__(self, request: Request, vocabulary: Vocabulary) -> None:
        self.request = request
        self.started = False  # whether it has given out anything
        self._vocabulary = vocabulary
        self._detokenizer = Detokenizer(
            vocabulary, request.separator_text, request.length, request.records, request.stop
        )
        self._cancelled = False

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended; None while it goes on."""
        return self._detokenizer.finish_reason

    @property
    def left(self) -> int:
        """Tokens that it takes at least."""
        return self._detokenizer.left

    def cancel(self) -> None:
        """Asks the scheduler to end it with the next update. Any thread may call this."""
        self._cancelled = True

    def heed_cancel(self) -> bool:
        """Ends it if that was asked for; whether it was, and it had not ended by itself."""
        if not self._cancelled or self.finish_reason:
            return False
        self._detokenizer.finish_reason = "cancelled"
        return True

    def draw_first(self) -> int:
        """Without a prompt: a token drawn evenly from all that stand for text, by the first random number."""
        request = self.request
        return int(draw(np.ones((1, self._vocabulary.plain)), uniforms(request.seed, request.index, 0, 1))[0])

    def even_logprobs(self, token: int) -> list[TokenLogprobs] | None:
        """The log-probabilities of such a token, where they are asked for."""
        top, plain = self.request.logprobs, self._vocabulary.plain
        if top is None:
            return None
        even = -math.log(plain)
        return [TokenLogprobs(token, even, tuple((other, even) for other in range(min(top, plain))))]

    def row(self) -> Row:
        """What a backend must know of it. The unknown token is never generated, and no record is empty."""
        request, unknown = self.request, self._vocabulary.unknown_id
        return Row(
            request.sampling,
            request.seed,
            request.index,
            position=int(len(request.prompt_T) == 0),
            suppressed=() if unknown is None else (unknown,),
            separator_id=self._vocabulary.separator_id,
            logprobs=request.logprobs,
        )

    def recent(self, tokens_T: Integers) -> Integers:
        """The last of these tokens, as many as the filters see; one at least."""
        return tokens_T[-max(1, self.request.sampling.history) :]

    def take(self, tokens: list[int], logprobs: list[TokenLogprobs] | None = None) -> Output:
        """What comes of its next tokens: of all up to the one that ends it. An id of -1 ends it with an error."""
        self.started = True
        failed = bool(tokens) and tokens[-1] < 0
        text, taken = self._detokenizer.take(tokens[:-1] if failed else tokens)
        if failed and self.finish_reason is None:
            self._detokenizer.finish_reason = "error"
        return Output(self, text, taken, tuple(logprobs[:taken]) if logprobs else (), self.finish_reason)
