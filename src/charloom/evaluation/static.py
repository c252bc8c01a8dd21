"""Static scores, which do not change the weights: over a layout, over a text, and in windows.

Shapes: B sequences side by side, T steps, N targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.data.batches import Batches
from charloom.data.groups import NOTHING
from charloom.engines.engine import Array, Engine, State
from charloom.evaluation.text import EvaluationText
from charloom.score import Score

BLOCK = 2**13
"""Tokens of a text that are scored in one call. An engine's buffers grow with it."""

PER_WINDOW = 4  # windows that begin within the length of one window

NOTHING_READ = Score(tokens=0, characters=0, nats=0.0, correct=0)

Part = tuple[int, int]
"""The position of a record's first input in a block, and of its last target."""


def measure(
    engine: Engine, batches: Batches, most: float = math.inf, watch: Callable[[], None] = lambda: None
) -> Score:
    """The engine's loss over a layout. The state is carried if the layout carries it.

    most: ends after this number of tokens; watch: called after every batch.
    """
    state: State = None
    total, read = NOTHING_READ, 0
    for index in range(len(batches)):
        if read >= most:
            break
        inputs_BT, targets_BT = batches.batch(0, index)
        before = state if batches.carried(0, index) else None
        nats_N, correct_N, state = engine.score(inputs_BT, targets_BT, before)
        total += Score.of_targets(nats_N, correct_N)
        read += inputs_BT.size
        watch()
    return total


def score(engine: Engine, text: EvaluationText, reset_id: int | None) -> Score:
    """The score of a text. Every token after the first counts once; see `targets`."""
    found = (Score.of_targets(*block) for block in targets(engine, text.ids_T, reset_id))
    return replace(sum(found, NOTHING_READ), characters=text.characters)


def in_windows(engine: Engine, ids_T: NDArray[np.integer[Any]], length: int) -> Score:
    """The score over windows of `length` tokens. Each is read from the zero state, and all its tokens are predicted.

    This is nanoGPT's protocol. nanoGPT draws its windows at random; here a window begins at every quarter of the
    length, so that the figure repeats. The text must be longer than a window. Each token counts as a character.
    """
    starts = np.arange(0, len(ids_T) - length, max(1, length // PER_WINDOW))
    total = NOTHING_READ
    at_once = max(1, BLOCK // length)
    for first in range(0, len(starts), at_once):
        rows_BT = ids_T[starts[first : first + at_once, None] + np.arange(length + 1)].astype(np.int64)
        nats_N, correct_N, _ = engine.score(rows_BT[:, :-1], rows_BT[:, 1:], None)
        total += Score.of_targets(nats_N, correct_N)
    return total


def targets(
    engine: Engine, ids_T: NDArray[np.integer[Any]], reset_id: int | None = None
) -> Iterator[tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]]:
    """(nats_N, whether it was the top guess) of each token after the first, in order, at most `BLOCK` in one item.

    The state is carried from the start of the text. reset_id: the token that is always read from the zero state.
    """
    state: State = None
    for start in range(0, len(ids_T) - 1, BLOCK):
        block_T = ids_T[start : start + BLOCK + 1].astype(np.int64)
        if reset_id is None:
            nats_N, correct_N, state = engine.score(block_T[None, :-1], block_T[None, 1:], state)
        else:
            nats_N, correct_N, state = _records(engine, block_T, reset_id, state)
        yield nats_N, correct_N


def _records(
    engine: Engine, block_T: Array, reset_id: int, state: State
) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_], State]:
    """The same for a block of records, each read from the zero state.

    The first record continues the block before, and the next block continues the last one. The others are scored side
    by side.
    """
    nats_N, correct_N = np.empty(len(block_T) - 1), np.empty(len(block_T) - 1, np.bool_)

    def fill(parts: list[Part], state: State) -> State:
        inputs_BT, targets_BT, positions_N = _rows(block_T, parts)
        nats_N[positions_N], correct_N[positions_N], after = engine.score(inputs_BT, targets_BT, state)
        return after

    resets = (np.flatnonzero(block_T[1:-1] == reset_id) + 1).tolist()
    first, *others = pairwise([0, *resets, len(block_T) - 1])
    state = fill([first], None if block_T[0] == reset_id else state)
    for parts in _alike(others[:-1]):
        fill(parts, None)
    if others:
        state = fill([others[-1]], None)
    return nats_N, correct_N, state


def _alike(parts: list[Part]) -> Iterator[list[Part]]:
    """Groups of records with similar lengths. Side by side, a group takes at most `BLOCK` places."""
    group: list[Part] = []
    for start, stop in sorted(parts, key=lambda part: part[1] - part[0]):
        if (len(group) + 1) * (stop - start) > BLOCK:
            yield group
            group = []
        group.append((start, stop))
    if group:
        yield group


def _rows(block_T: Array, parts: list[Part]) -> tuple[Array, Array, Array]:
    """(inputs_BT, targets_BT, positions_N): a row for each record, and each target's position in the block."""
    bounds_B2 = np.array(parts)
    lengths_B = bounds_B2[:, 1] - bounds_B2[:, 0]
    steps_T = np.arange(lengths_B.max())
    inside_BT = steps_T < lengths_B[:, None]
    positions_BT = np.where(inside_BT, bounds_B2[:, :1] + steps_T, 0)
    targets_BT = np.where(inside_BT, block_T[positions_BT + 1], NOTHING)
    return block_T[positions_BT], targets_BT, positions_BT[inside_BT]
