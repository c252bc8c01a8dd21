"""The values that pass between a scheduler and a backend.

Shapes: B rows, S steps, L layers, H hidden, N log-probabilities beside that of the token itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from charloom.cells import Floats, Integers
from charloom.inference.sampling import Doubles, Sampling


@dataclass(frozen=True, eq=False)
class State:
    """The recurrent state of B sequences: h_LBH, and c_LBH for an LSTM. Never changed in place."""

    h_LBH: Floats
    c_LBH: Floats | None = None

    def rows(self, keep: Integers) -> State:
        """The state of these rows of the batch, in this order; a row may be taken more than once."""
        return State(self.h_LBH[:, keep], None if self.c_LBH is None else self.c_LBH[:, keep])

    @property
    def memory(self) -> Floats:
        """c_LBH, or as many empty arrays: what a cell of any kind takes."""
        return np.empty((len(self.h_LBH), 0, 0), self.h_LBH.dtype) if self.c_LBH is None else self.c_LBH


@dataclass(frozen=True)
class Row:
    """One sequence of a batch, as a backend must know it.

    sampling: how its tokens are chosen; seed, index: of its random stream; position: of the random number that its next
    token takes; suppressed: ids that are never generated; separator_id: an id that never follows itself; logprobs: how
    many log-probabilities are wanted beside that of the token itself, None for none at all.
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
    """What a call of `DecodingBatch.decode` generated.

    tokens_BS: ids; -1 in the last step of a row whose logits leave no token to choose. logprobs: where a row asks for
    them, [B, S, 1 + N] of the token and of the N most probable ones, whose ids top_ids_BSN has; N is the most that a
    row asks for, and what a row does not ask for is not set.
    """

    tokens_BS: Integers
    logprobs: Doubles | None = None
    top_ids_BSN: Integers | None = None


class DecodingBatch(Protocol):
    """Sequences side by side; their recurrent state stays here from call to call."""

    def join(self, row: Row, recent: Integers, state: State) -> None:
        """A new last row.

        Args:
            row: what it must know.
            recent: its last tokens, of which the first step reads the last.
            state: [L, 1, H], before that one.
        """

    def leave(self, row: int) -> None:
        """Removes a row; the last one takes its number."""

    def decode(self, steps: int, seconds: float) -> Decoded:
        """Continues every row by at most so many tokens; ends after so many seconds, but not before the first token,
        and after a step in which a row has no token to choose.
        """


class Backend(Protocol):
    """A network that reads and generates. Nothing in it changes, so threads may share it."""

    def with_threads(self, threads: int | None) -> Backend:
        """The same backend on at most so many threads; None is all cores."""

    def initial_state(self) -> State:
        """The zero state of one sequence, [L, 1, H]."""

    def read(self, ids_T: Integers, state: State, seconds: float) -> tuple[int, State]:
        """Reads a chunk of a prompt, for about so many seconds. The result does not depend on where a chunk ends.

        Returns:
            how many tokens were read, at least one, and the state after them.
        """

    def logits(self, ids_BT: Integers, state: State) -> tuple[Floats, State]:
        """logits_BTV after each of these tokens, and the state after the last."""

    def batch(self) -> DecodingBatch:
        """An empty batch."""
