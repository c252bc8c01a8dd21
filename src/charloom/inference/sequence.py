"""A request in progress, and its outputs."""

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
    """ln p of a token and of the most probable tokens, by the network's distribution before any sampling parameter.

    token: its id; logprob: ln p; top: pairs of an id and its ln p, the most probable first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Output(NamedTuple):
    """The output of one sequence in one update of the scheduler.

    text: text that is final, which may be empty; tokens: the number of tokens generated; logprobs: of each of these
    tokens, if asked for; prompt_logprobs: of each token of the prompt but the first, once, if asked for; finish_reason:
    None until the sequence ends.
    """

    sequence: Sequence
    text: str = ""
    tokens: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None


class Sequence:
    """A request in progress. Its recurrent state and last token are in the scheduler's batch.

    Args:
        request: the request.
        vocabulary: the model's.
    """

    def __init__(self, request: Request, vocabulary: Vocabulary) -> None:
        self.request = request
        self.started = False  # whether it has had an output
        self._vocabulary = vocabulary
        self._detokenizer = Detokenizer(
            vocabulary, request.separator_text, request.length, request.tokens, request.records, request.stop
        )
        self._cancelled = False

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended; None while it is in progress."""
        return self._detokenizer.finish_reason

    @property
    def left(self) -> int:
        """The least number of tokens that it still needs."""
        return self._detokenizer.left

    def cancel(self) -> None:
        """Asks the scheduler to end the sequence in the next update. Any thread may call this."""
        self._cancelled = True

    def heed_cancel(self) -> bool:
        """Ends the sequence if it was cancelled. Returns whether it was. Called only while it is in progress."""
        if self._cancelled:
            self._detokenizer.finish_reason = "cancelled"
        return self._cancelled

    def fail(self) -> None:
        """Ends the sequence with an error: no token can be chosen."""
        self._detokenizer.finish_reason = "error"

    def draw_first(self) -> int:
        """The first token without a prompt: drawn uniformly from all tokens that stand for text, by random number 0."""
        request = self.request
        return int(draw(np.ones((1, self._vocabulary.plain)), uniforms(request.seed, request.index, 0, 1))[0])

    def even_logprobs(self, token: int) -> list[TokenLogprobs] | None:
        """The log-probabilities of that token, if asked for."""
        top, plain = self.request.logprobs, self._vocabulary.plain
        if top is None:
            return None
        even = -math.log(plain)
        return [TokenLogprobs(token, even, tuple((other, even) for other in range(min(top, plain))))]

    def row(self) -> Row:
        """The values that a backend needs. The unknown token is never generated, and no record is empty."""
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
        """The last of these tokens: as many as the filters use, at least one."""
        return tokens_T[-max(1, self.request.sampling.history) :]

    def take(self, tokens: list[int], logprobs: list[TokenLogprobs] | None = None) -> Output:
        """The output for the next tokens, up to the token that ends the sequence. An id of -1 ends it with an error."""
        self.started = True
        failed = bool(tokens) and tokens[-1] < 0
        text, taken = self._detokenizer.take(tokens[:-1] if failed else tokens)
        if failed and self.finish_reason is None:
            self.fail()
        ready = tuple(logprobs[:taken]) if logprobs else ()
        return Output(self, text, taken, ready, finish_reason=self.finish_reason)
