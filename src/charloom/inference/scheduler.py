"""Many sequences on one backend: a bounded queue, free slots, and repeated updates.

In an update, waiting requests take free slots, prompts are read for a moment, and all running sequences continue for a
moment. So a long prompt delays the running sequences by one chunk, never by the whole prompt. `Model.generate`, the
trainer's samples and a server use the scheduler in the same way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as AnySequence

import numpy as np
from pydantic import Field

from charloom.cells import Integers
from charloom.config import Section
from charloom.data.vocabulary import Vocabulary
from charloom.errors import ModelError, QueueFullError, SettingsError
from charloom.inference.request import Request
from charloom.inference.rows import Backend, Decoded, State
from charloom.inference.sampling import log_probabilities
from charloom.inference.sequence import Output, Sequence, TokenLogprobs
from charloom.validation import validated

CHUNK_SECONDS = 0.02
"""Seconds for which running sequences continue in an update: a reader notices no delay, and updates cost little."""

FIRST_SECONDS = 0.002
"""The same while a running sequence has no output yet: short, so that its first text comes soon, but long enough that
updates stay few when many sequences start and end.
"""

CHUNK_TOKENS = 2**12
"""Most tokens that all running sequences together generate in an update."""

READ_SECONDS = 0.02
"""Seconds for which prompts are read in an update."""

SCORED_TOKENS = 32
"""Tokens of a prompt that are scored in one call. The NumPy backend reads prompts in blocks of this size, so a prompt
that is scored gives the same state, bit for bit.
"""

SLOTS = 64
"""Default number of sequences that are in progress at the same time."""

MOST_SLOTS = 2**16
"""A text advances by one token a step, so more slots only make each slower."""

WAITING = 1024
"""Default number of requests that may wait for a slot."""


NOTHING_TO_CHOOSE = (
    "no character is left to choose: a small `no_repeat_ngram_size` excludes all of them, or training diverged; use a "
    "larger `no_repeat_ngram_size`, or another model"
)
"""The message of `ModelError` when a sequence ends because no token can be chosen."""


class Limits(Section):
    """Limits of a scheduler, in sequences."""

    slots: int = Field(SLOTS, ge=1, le=MOST_SLOTS, description="sequences in progress at the same time")
    waiting: int = Field(WAITING, ge=1, description="sequences that may wait for a slot")


class Scheduler:
    """Generates many requests at the same time, for a program that gets them one by one, such as a server.

    `submit` takes a request. Each call of `update` continues all sequences for a moment and returns their new text.
    `run` does both for requests that are known before. `idle` and `full` tell the state of the queue. Only one thread
    at a time may call a scheduler, except for `Sequence.cancel`.

        scheduler = model.scheduler()
        first = scheduler.submit(model.request("Once", length=200))
        second = scheduler.submit(model.request("Twice", length=100))
        while not scheduler.idle:
            for output in scheduler.update():
                print("first" if output.sequence is first else "second", repr(output.text), output.finish_reason)

    Args:
        backend: computes the network.
        vocabulary: the model's.
        slots: the number of sequences in progress at the same time; their states take memory.
        waiting: the number of requests that may wait for a slot.

    Raises:
        SettingsError: if `slots` or `waiting` is below 1.
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
        self._prompts: deque[_Prompt] = deque()  # in the order in which they are read
        self._last_prompt: _Prompt | None = None  # the last prompt that was read to its end
        self._running: list[Sequence] = []  # in the order of the batch rows
        self._batch = backend.batch()

    @property
    def idle(self) -> bool:
        """Whether no request is in progress or waiting."""
        return not (self._waiting or self._prompts or self._running)

    @property
    def full(self) -> bool:
        """Whether the queue is full, so that `submit` raises an error."""
        return len(self._waiting) >= self._most_waiting

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a slot."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """The number of slots in use: sequences that generate or whose prompt is read."""
        return len(self._running) + sum(len(prompt.sequences) for prompt in self._prompts)

    def submit(self, request: Request) -> Sequence:
        """Takes a request. Later updates return its output.

        Raises:
            QueueFullError: if the queue is full.
        """
        return self.submit_all([request])[0]

    def submit_all(self, requests: AnySequence[Request]) -> list[Sequence]:
        """Takes all of these requests, or none of them.

        Raises:
            QueueFullError: if the queue has no room for all.
        """
        if len(self._waiting) + len(requests) > self._most_waiting:
            raise QueueFullError(
                f"at most {self._most_waiting:,} requests may wait; {len(self._waiting):,} wait, and {len(requests):,} "
                "more do not fit; ask again once some have ended"
            )
        sequences = [Sequence(_checked(request), self._vocabulary) for request in requests]
        self._waiting.extend(sequences)
        return sequences

    def update(self) -> list[Output]:
        """Does a moment's work. Returns an output for each sequence that has new tokens or ended."""
        return [*self._cancel(), *self._admit(), *self._read_prompts(), *self._decode()]

    def run(self, requests: Iterator[Request]) -> Iterator[tuple[int, Output]]:
        """All outputs of these requests, with the number of the request from 0. A request is taken when the queue has
        room.

        Raises:
            ModelError: if a sequence ends with an error.
        """
        numbers: dict[int, int] = {}  # by the identity of a sequence that has not ended
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
        """Ends the sequences that were cancelled since the last update, whether they wait, read or run."""
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
        """Gives free slots to waiting requests in their order.

        A request for an empty text ends here, unless its prompt is to be scored.
        """
        ended = []
        used = self.running
        while self._waiting and used < self._slots:
            sequence = self._waiting.popleft()
            if sequence.finish_reason and sequence.request.prompt_logprobs is None:
                ended.append(Output(sequence, finish_reason=sequence.finish_reason))
                continue
            self._prompt_of(sequence.request).sequences.append(sequence)
            used += 1
        return ended

    def _prompt_of(self, request: Request) -> _Prompt:
        """The request's prompt in the list of prompts to read. Sequences with equal prompts share one reading."""
        known = [*self._prompts, *filter(None, [self._last_prompt])]
        for prompt in known:
            if prompt.fits(request):
                break
        else:
            prompt = _Prompt(request.prompt_T, self._backend.initial_state(), request.prompt_logprobs)
        if prompt not in self._prompts:
            self._prompts.append(prompt)
        return prompt

    def _read_prompts(self) -> list[Output]:
        """Reads prompts chunk by chunk, in turns. Sequences whose prompt is read to its end join the batch."""
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
                self._last_prompt = prompt if prompt.top is None else None  # log-probabilities take much memory
            if time.monotonic() >= end:
                break
        return outputs

    def _join(self, sequence: Sequence, prompt: _Prompt) -> list[Output]:
        """Puts a sequence into the batch. If it has no prompt, its first token is drawn here."""
        tokens_T, outputs = prompt.tokens_T, list[Output]()
        if prompt.failed:
            sequence.fail()
        if prompt.top is not None:
            outputs.append(
                Output(sequence, prompt_logprobs=tuple(prompt.logprobs), finish_reason=sequence.finish_reason)
            )
        if len(tokens_T) == 0 and sequence.finish_reason is None:
            token = sequence.draw_first()
            tokens_T = np.array([token])
            outputs.append(sequence.take([token], sequence.even_logprobs(token)))
        if sequence.finish_reason is None:
            self._batch.join(sequence.row(), sequence.recent(tokens_T), prompt.state)
            self._running.append(sequence)
        return outputs

    def _decode(self) -> list[Output]:
        """Continues all running sequences and removes those that end. A first text comes in a shorter update."""
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
    """A prompt that is being read, without its last token, which the first step reads; and its waiting sequences.

    tokens_T: the prompt; state: after the tokens that were read; top: the number of log-probabilities for each token
    beside its own; None for none.
    """

    def __init__(self, tokens_T: Integers, state: State, top: int | None) -> None:
        self.tokens_T, self.state, self.top = tokens_T, state, top
        self.sequences: list[Sequence] = []
        self.logprobs: list[TokenLogprobs] = []
        self.failed = False  # whether the network's output was not finite
        self._read = 0

    def fits(self, request: Request) -> bool:
        """Whether this is the prompt of a request."""
        same = self.tokens_T is request.prompt_T or np.array_equal(self.tokens_T, request.prompt_T)
        return same and self.top == request.prompt_logprobs

    @property
    def left(self) -> int:
        """The number of tokens that are not read yet."""
        return max(0, len(self.tokens_T) - 1 - self._read)

    def read(self, backend: Backend, seconds: float) -> None:
        """Reads a chunk."""
        if self.left and self.top is not None:
            self._score(backend, self.top)
        elif self.left:
            count, self.state = backend.read(self.tokens_T[self._read : -1], self.state, seconds)
            self._read += count

    def _score(self, backend: Backend, top: int) -> None:
        """Reads a chunk with the logits of every position: the log-probabilities of the token after each."""
        chunk_T = self.tokens_T[self._read : -1][:SCORED_TOKENS]
        logits_BTV, self.state = backend.logits(chunk_T[None], self.state)
        self._read += len(chunk_T)
        if not np.isfinite(logits_BTV).all():
            self.failed, self._read = True, len(self.tokens_T)
            return
        following = self.tokens_T[self._read - len(chunk_T) + 1 : self._read + 1].tolist()
        for token, logits_V in zip(following, logits_BTV[0], strict=True):
            (own, *most), ids = log_probabilities(logits_V, token, top)
            pairs = zip(ids.tolist(), map(float, most), strict=True)
            self.logprobs.append(TokenLogprobs(token, float(own), tuple(pairs)))


def _checked(request: object) -> Request:
    if isinstance(request, Request):
        return request
    raise SettingsError(f"`requests` must come from `Model.request`; got {request!r}")


def _logprobs(decoded: Decoded, row: int, top: int | None) -> list[TokenLogprobs] | None:
    """The log-probabilities of a call that a row asked for."""
    if top is None or decoded.logprobs is None or decoded.top_ids_BSN is None:
        return None
    tokens, ids = decoded.tokens_BS[row].tolist(), decoded.top_ids_BSN[row, :, :top].tolist()
    return [
        TokenLogprobs(token, own, tuple(zip(ids[step], most[:top], strict=True)))
        for step, (token, (own, *most)) in enumerate(zip(tokens, decoded.logprobs[row].tolist(), strict=True))
    ]
