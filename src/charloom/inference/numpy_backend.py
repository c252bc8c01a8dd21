"""The plain backend in NumPy: a step of the network, then sampling for each row. Twin of `native_backend.py`.

Shapes: B rows, S steps, T tokens of a prompt, V vocabulary size, N log-probabilities.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

import numpy as np

from charloom.cells import Floats, Integers
from charloom.inference.network import InferenceNetwork
from charloom.inference.rows import Decoded, Row, State
from charloom.inference.sampling import Doubles, choose, forbid_ngrams, log_probabilities, penalise, random_stream
from charloom.inference.weights import InferenceWeights

READ_TOKENS = 32
"""Tokens of a prompt between two reads of the clock: 0.1 s in a network of three layers of 512 units."""


class NumpyBackend:
    """See `charloom.inference.rows.Backend`."""

    def __init__(self, weights: InferenceWeights) -> None:
        self._network = InferenceNetwork(weights)

    def with_threads(self, threads: int | None) -> NumpyBackend:
        """This backend itself, which has one thread."""
        return self

    def initial_state(self) -> State:
        """See `Backend.initial_state`."""
        return self._network.initial_state(1)

    def read(self, ids_T: Integers, state: State, seconds: float) -> tuple[int, State]:
        """See `Backend.read`. NumPy computes each step separately, so a chunk may end after any step."""
        end, done = time.monotonic() + seconds, 0
        while done < len(ids_T):
            for count, after in self._network.states(ids_T[None, done : done + READ_TOKENS], state):
                done, state = done + count, after
            if time.monotonic() >= end:
                break
        return done, state

    def logits(self, ids_BT: Integers, state: State) -> tuple[Floats, State]:
        """See `Backend.logits`."""
        return self._network.sequence(ids_BT, state)

    def batch(self) -> NumpyBatch:
        """See `Backend.batch`."""
        return NumpyBatch(self._network)


class NumpyBatch:
    """See `charloom.inference.rows.DecodingBatch`."""

    def __init__(self, network: InferenceNetwork) -> None:
        self._network = network
        self._rows: list[_DecodingRow] = []
        self._state = network.initial_state(0)

    def join(self, row: Row, recent: Integers, state: State) -> None:
        """See `DecodingBatch.join`."""
        self._rows.append(_DecodingRow(row, recent))
        self._state = State(
            np.concatenate([self._state.h_LBH, state.h_LBH], axis=1),
            None if state.c_LBH is None else np.concatenate([self._state.memory, state.c_LBH], axis=1),
        )

    def leave(self, row: int) -> None:
        """See `DecodingBatch.leave`."""
        last = self._rows.pop()
        keep = np.arange(len(self._rows))
        if row < len(keep):
            self._rows[row], keep[row] = last, len(keep)
        self._state = self._state.rows(keep)

    def decode(self, steps: int, seconds: float) -> Decoded:
        """See `DecodingBatch.decode`."""
        end = time.monotonic() + seconds
        top = max((row.row.logprobs for row in self._rows if row.row.logprobs is not None), default=-1)
        tokens, logprobs, top_ids = list[Integers](), list[Doubles](), list[Integers]()
        for _ in range(steps):
            logits_BV, self._state = self._network.step(np.array([row.token for row in self._rows]), self._state)
            ids_B = self._choose(logits_BV.copy())
            tokens.append(ids_B)
            if top >= 0:
                own_and_top, ids_BN = self._log_probabilities(logits_BV, ids_B, top)
                logprobs.append(own_and_top)
                top_ids.append(ids_BN)
            if ids_B.min() < 0 or time.monotonic() >= end:
                break
        if top < 0:
            return Decoded(np.stack(tokens, axis=1))
        return Decoded(np.stack(tokens, axis=1), np.stack(logprobs, axis=1), np.stack(top_ids, axis=1))

    def _choose(self, logits_BV: Floats) -> Integers:
        """ids_B. Rows with the same sampling parameters are sampled together. Changes the logits."""
        ids_B = np.empty(len(self._rows), np.intp)
        uniform_B = np.array([next(row.random) for row in self._rows])
        alike: dict[int, list[int]] = {}
        for number, row in enumerate(self._rows):
            row.forbid(logits_BV[number])
            alike.setdefault(id(row.row.sampling), []).append(number)
        for rows in alike.values():
            ids_B[rows] = choose(logits_BV[rows], uniform_B[rows], self._rows[rows[0]].row.sampling)
        for row, token in zip(self._rows, ids_B.tolist(), strict=True):
            if token >= 0:
                row.take(token)
        return ids_B

    def _log_probabilities(self, logits_BV: Floats, ids_B: Integers, top: int) -> tuple[Doubles, Integers]:
        """[B, 1 + N] and ids_BN of `Decoded`, for rows that ask for them and have a token."""
        logprobs, ids_BN = np.zeros((len(ids_B), 1 + top)), np.zeros((len(ids_B), top), np.intp)
        for number, (row, token) in enumerate(zip(self._rows, ids_B.tolist(), strict=True)):
            if (wanted := row.row.logprobs) is not None and token >= 0:
                found = log_probabilities(logits_BV[number], token, wanted)
                logprobs[number, : 1 + wanted], ids_BN[number, :wanted] = found
        return logprobs, ids_BN


class _DecodingRow:
    """A row with its next input token, its random stream, and the last tokens that its filters use."""

    def __init__(self, row: Row, recent: Integers) -> None:
        self.row, self.token = row, int(recent[-1])
        self.random: Iterator[float] = random_stream(row.seed, row.index, row.position)
        self._tokens = deque(recent.tolist(), maxlen=row.sampling.history)

    def forbid(self, logits_V: Floats) -> None:
        """Applies, in place, the filters that depend on this row's tokens."""
        sampling, tokens = self.row.sampling, [*self._tokens]
        if sampling.penalised:
            penalise(logits_V, tokens[-sampling.penalised :], sampling.repetition_penalty)
        if sampling.no_repeat_ngram_size is not None:
            forbid_ngrams(logits_V, tokens, sampling.no_repeat_ngram_size)
        if self.token == self.row.separator_id:
            logits_V[self.token] = -np.inf
        logits_V[list(self.row.suppressed)] = -np.inf

    def take(self, token: int) -> None:
        """Adds the token to the row: the next step reads it."""
        self.token = token
        self._tokens.append(token)
