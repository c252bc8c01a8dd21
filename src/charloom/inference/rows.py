"""The values that pass between a scheduler and a backend.

Shapes: B rows, S steps, L layers, H hidden, N log-probabilities beside the token's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from charloom.cells import Floats, Integers
from charloom.inference.sampling import Doubles, Sampling


@dataclass(frozen=True, eq=False)
class State:
    """The recurrent state of B sequences: h_LBH, and c_LBH for an LSTM. It is never changed in place."""

    h_LBH: Floats
    c_LBH: Floats | None = None

    def rows(self, keep: Integers) -> State:
        """The state of these rows of the batch, in this order. A row may be taken more than once."""
        return State(self.h_LBH[:, keep], None if self.c_LBH is None else self.c_LBH[:, keep])

    @property
    def memory(self) -> Floats:
        """c_LBH, or empty arrays of the same number: every cell accepts them."""
        return np.empty((len(self.h_LBH), 0, 0), self.h_LBH.dtype) if self.c_LBH is None else self.c_LBH


@dataclass(frozen=True)
class Row:
    """One sequence of a batch: what a backend needs.

    sampling: how its tokens are chosen; seed, index: of its random stream; position: the number of the random number
    for its next token; suppressed: ids that are never generated; separator_id: an id that never follows itself;
    logprobs: the number of log-probabilities beside the token's own; None for none.
    """

    sampling: Sampling
    seed: int
    index: int
    position: int = 0
    suppressed: tuple[int, ...] = ()
    separator_id: int | None = None
    logprobs: int | None = None


@dataclass(frozen=True, eq=False)
class Decoded:
    """The result of `DecodingBatch.decode`.

    tokens_BS: ids; -1 in the last step of a row whose logits leave no token to choose. logprobs: None unless a row asks
    for them, else [B, S, 1 + N], first of the token, then of the N most probable tokens. top_ids_BSN: the ids of those.
    N is the largest number that a row asks for. Values that a row does not ask for are not set.
    """

    tokens_BS: Integers
    logprobs: Doubles | None = None
    top_ids_BSN: Integers | None = None


class DecodingBatch(Protocol):
    """Sequences side by side. The batch keeps their recurrent state between calls."""

    def join(self, row: Row, recent: Integers, state: State) -> None:
        """Adds a row at the end.

        Args:
            row: the parameters of the sequence.
            recent: its last tokens. The first step reads the last of them.
            state: [L, 1, H], before that token.
        """

    def leave(self, row: int) -> None:
        """Removes a row. The last row takes its number."""

    def decode(self, steps: int, seconds: float) -> Decoded:
        """Continues every row by at most `steps` tokens.

        Ends after about `seconds`, but never before the first token. Also ends after a step in which a row has no token
        to choose.
        """


class Backend(Protocol):
    """A network that reads and generates. Nothing in it changes, so threads may share it."""

    def with_threads(self, threads: int | None) -> Backend:
        """The same backend on at most `threads` threads; None is all cores."""

    def initial_state(self) -> State:
        """The zero state of one sequence, [L, 1, H]."""

    def read(self, ids_T: Integers, state: State, seconds: float) -> tuple[int, State]:
        """Reads a chunk of a prompt for about `seconds`. The result does not depend on where a chunk ends.

        Returns:
            how many tokens were read, at least one, and the state after them.
        """

    def logits(self, ids_BT: Integers, state: State) -> tuple[Floats, State]:
        """logits_BTV after each of these tokens, and the state after the last."""

    def batch(self) -> DecodingBatch:
        """An empty batch."""
