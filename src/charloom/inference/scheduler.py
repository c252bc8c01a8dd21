"""Many sequences on one backend: a bounded queue, free slots, and one update after the other.

In an update, waiting requests take the slots that are free, prompts are read for a moment, and all running sequences go
on for a moment. So a long prompt delays the running sequences by one chunk of it, never by the whole. Nothing here
depends on who asks: `Model.generate`, the trainer's samples and a server use it alike.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

import numpy as np
from pydantic import Field

from charloom.cells import Integers
from charloom.config import Section
from charloom.data.vocabulary import Vocabulary
from charloom.errors import ModelError, QueueFullError, SettingsError
from charloom.inference.request import Request
from charloom.inference.rows import Backend, Decoded, State
from charloom.inference.sequence import Output, Sequence, TokenLogprobs
from charloom.validation import validated

CHUNK_SECONDS = 0.02
"""Running sequences go on for so long in an update: soon enough for the eye, rare enough to cost nothing."""

FIRST_SECONDS = 0.002
"""For so long where one of them has given out nothing yet: soon enough for its first text, and with many that come and
go, few enough updates."""

CHUNK_TOKENS = 2**12
"""Most tokens that they generate in it, all together."""

READ_SECONDS = 0.02
"""Prompts are read for so long in an update."""

SLOTS = 64
"""Sequences at work at once, where nothing else is asked for."""

WAITING = 1024
"""Requests that may wait for a slot, where nothing else is asked for."""


NOTHING_TO_CHOOSE = (
    "a model must give a finite logit to at least one token that may be chosen; it gives none: training diverged, or "
    "all tokens are suppressed; use an earlier checkpoint, or fewer restrictions"
)
"""What `ModelError` says where a sequence ends because no token can be chosen."""


class Limits(Section):
    """Limits of a scheduler, in sequences."""

    slots: int = Field(SLOTS, ge=1)
    waiting: int = Field(WAITING, ge=1)


class Scheduler:
    """Sequences that share a backend. One thread at a time may call it, but for `Sequence.cancel`.

    Args:
        backend: what computes.
        vocabulary: of the model.
        slots: how many sequences are at work at once; their states take memory.
        waiting: how many requests may wait for a slot.

    Raises:
        SettingsError: for fewer than one slot, or fewer than one request that may wait.
    """

    def __init__(
        self,
        backend: Backend,
        vocabulary: Vocabulary,
        slots: int = SLOTS,
        waiting: int = WAITING,
    ) -> None:
        limits = validated(Limits, {"slots": slots, "waiting": waiting})
        self._backend, self._vocabulary = backend, vocabulary
        self._slots, self._most_waiting = limits.slots, limits.waiting
        self._waiting: deque[Sequence] = deque()
        self._prompts: deque[_Prompt] = deque()  # that are being read
        self._last_prompt: _Prompt | None = None  # the last one that was read whole
        self._running: list[Sequence] = []  # as the rows of the batch
        self._batch = backend.batch()

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return not (self._waiting or self._prompts or self._running)

    @property
    def full(self) -> bool:
        """Whether no request can be taken."""
        return len(self._waiting) >= self._most_waiting

    def submit(self, request: Request) -> Sequence:
        """Takes a request; its output comes with later updates.

        Raises:
            QueueFullError: if too many requests wait.
        """
        if self.full:
            raise QueueFullError(
                f"at most {self._most_waiting:,} requests may wait; found as many; ask again once one has ended"
            )
        sequence = Sequence(_checked(request), self._vocabulary)
        self._waiting.append(sequence)
        return sequence

    def update(self) -> list[Output]:
        """Goes on for a moment, and gives what came of each sequence that has new tokens or ended."""
        return [*self._cancel(), *self._admit(), *self._read_prompts(), *self._decode()]

    def run(self, requests: Iterator[Request]) -> Iterator[tuple[int, Output]]:
        """All outputs of these requests, each with its request's number from 0. A request is taken when it can wait.

        Raises:
            ModelError: where a sequence ends with an error.
        """
        numbers: dict[int, int] = {}  # of the sequences that have not ended, by their identity
        count = 0
        while True:
            while not self.full and (request := next(requests, None)) is not None:
                numbers[id(self.submit(request))] = count
                count += 1
            if self.idle:
                return
            for output in self.update():
                yield numbers[id(output.sequence)], output
                if output.finish_reason == "error":
                    raise ModelError(NOTHING_TO_CHOOSE)
                if output.finish_reason:
                    del numbers[id(output.sequence)]

    def _cancel(self) -> list[Output]:
        """Ends what was cancelled since the last update, wherever it stands."""
        places = [self._waiting, self._running, *(prompt.sequences for prompt in self._prompts)]
        ended = [each for place in places for each in place if each.heed_cancel()]
        if ended:
            self._waiting = deque(each for each in self._waiting if each not in ended)
            for prompt in self._prompts:
                prompt.sequences = [each for each in prompt.sequences if each not in ended]
            self._prompts = deque(prompt for prompt in self._prompts if prompt.sequences)
            self._remove_ended()
        return [Output(each, finish_reason="cancelled") for each in ended]

    def _admit(self) -> list[Output]:
        """Waiting requests into free slots, in the order of their coming; those that ask for no text end here."""
        ended = []
        used = len(self._running) + sum(len(prompt.sequences) for prompt in self._prompts)
        while self._waiting and used < self._slots:
            sequence = self._waiting.popleft()
            if sequence.finish_reason:
                ended.append(Output(sequence, finish_reason=sequence.finish_reason))
                continue
            self._prompt_of(sequence.request).sequences.append(sequence)
            used += 1
        return ended

    def _prompt_of(self, request: Request) -> _Prompt:
        """The prompt of a request, among those to be read; one that other sequences share is read once."""
        known = [*self._prompts, *filter(None, [self._last_prompt])]
        for prompt in known:
            if prompt.tokens_T is request.prompt_T or np.array_equal(prompt.tokens_T, request.prompt_T):
                break
        else:
            prompt = _Prompt(request.prompt_T, self._backend.initial_state())
        if prompt not in self._prompts:
            self._prompts.append(prompt)
        return prompt

    def _read_prompts(self) -> list[Output]:
        """A chunk of one prompt after the other, in turns. Sequences whose prompt was read whole join the batch."""
        outputs: list[Output] = []
        end = time.monotonic() + READ_SECONDS
        while self._prompts:
            prompt = self._prompts.popleft()
            prompt.read(self._backend, max(0.0, end - time.monotonic()))
            if prompt.left:
                self._prompts.append(prompt)
            else:
                outputs += [output for sequence in prompt.sequences for output in self._join(sequence, prompt)]
                prompt.sequences = []
                self._last_prompt = prompt
            if time.monotonic() >= end:
                break
        return outputs

    def _join(self, sequence: Sequence, prompt: _Prompt) -> list[Output]:
        """Puts a sequence into the batch. Without a prompt its first token is drawn here."""
        tokens_T, outputs = prompt.tokens_T, list[Output]()
        if len(tokens_T) == 0:
            token = sequence.draw_first()
            tokens_T = np.array([token])
            outputs.append(sequence.take([token], sequence.even_logprobs(token)))
        if sequence.finish_reason is None:
            self._batch.join(sequence.row(), sequence.recent(tokens_T), prompt.state)
            self._running.append(sequence)
        return outputs

    def _decode(self) -> list[Output]:
        """All running sequences go on; those that end leave the batch. A sequence's first text comes at once."""
        outputs: list[Output] = []
        if not self._running:
            return outputs
        steps = min(max(1, CHUNK_TOKENS // len(self._running)), *(sequence.left for sequence in self._running))
        seconds = CHUNK_SECONDS if all(sequence.started for sequence in self._running) else FIRST_SECONDS
        decoded = self._batch.decode(steps, seconds)
        for row, sequence in enumerate(self._running):
            logprobs = _logprobs(decoded, row, sequence.request.logprobs)
            outputs.append(sequence.take(decoded.tokens_BS[row].tolist(), logprobs))
        self._remove_ended()
        return outputs

    def _remove_ended(self) -> None:
        for row in reversed(range(len(self._running))):
            if self._running[row].finish_reason:
                self._batch.leave(row)
                last = self._running.pop()
                if row < len(self._running):
                    self._running[row] = last


class _Prompt:
    """A prompt that is being read, but for its last token, which the first step reads; and who waits for it."""

    def __init__(self, tokens_T: Integers, state: State) -> None:
        self.tokens_T, self.state = tokens_T, state
        self.sequences: list[Sequence] = []
        self._read = 0

    @property
    def left(self) -> int:
        """Tokens that are still to be read."""
        return max(0, len(self.tokens_T) - 1 - self._read)

    def read(self, backend: Backend, seconds: float) -> None:
        """Reads a chunk."""
        if self.left:
            count, self.state = backend.read(self.tokens_T[self._read : -1], self.state, seconds)
            self._read += count


def _checked(request: object) -> Request:
    if isinstance(request, Request):
        return request
    raise SettingsError(f"`requests` must come from `Model.request`; got {request!r}")


def _logprobs(decoded: Decoded, row: int, top: int | None) -> list[TokenLogprobs] | None:
    """What a row asked for of the log-probabilities of a call."""
    if top is None or decoded.logprobs is None or decoded.top_ids_BSN is None:
        return None
    tokens, ids = decoded.tokens_BS[row].tolist(), decoded.top_ids_BSN[row, :, :top].tolist()
    return [
        TokenLogprobs(token, own, tuple(zip(ids[step], most[:top], strict=True)))
        for step, (token, (own, *most)) in enumerate(zip(tokens, decoded.logprobs[row].tolist(), strict=True))
    ]
