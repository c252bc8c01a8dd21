"""A batch on several threads. Each computes the forward and backward pass of some rows; gradients are summed in order.

Rows are independent until their gradients are summed, and NumPy releases the GIL while it multiplies. BLAS itself uses
one thread, because its products here are small. When another program used a core, OpenBLAS with two threads was 7 to 37
times slower than with one (LOG.md), because its threads spin while they wait.

Shapes: see `arrays.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

from charloom.cells import Floats, Integers
from charloom.engines.numpy.arrays import CpuState
from charloom.engines.numpy.network import Masks, count

FEWEST = 8
"""The fewest rows for a thread. A step's two products took 0.87 times as long with 4 rows as with 8 at H 256, and 0.95
times at H 512. BLAS packs the weights during most of that time, and every thread repeats the packing.
"""

R = TypeVar("R")


class Rows(NamedTuple):
    """Some rows of a batch: the arguments of `NumpyNetwork.forward`."""

    inputs_BT: Integers
    targets_BT: Integers
    state: CpuState | None
    masks: Masks | None

    def cut(self, first: int, last: int) -> Rows:
        """The rows from `first` up to `last`. The head's mask is in row order, so its part is contiguous."""
        state, masks = self.state, self.masks
        if state is not None:
            state = tuple(part_LBH[:, first:last] for part_LBH in state)
        if masks is not None:
            start, end = first, last
            if not masks.locked:
                start, end = count(self.targets_BT[:first]), count(self.targets_BT[:last])
            between = [mask_TBH[:, first:last] for mask_TBH in masks.between]
            masks = Masks(between, masks.head[start:end], masks.locked)
        return Rows(self.inputs_BT[first:last], self.targets_BT[first:last], state, masks)


class RowThreads:
    """Threads that share the work on a batch."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._others = ThreadPoolExecutor(max(1, threads - 1))  # starts a thread only when it has work

    def share(self, work: Callable[[Rows], R], batch: Rows) -> list[R]:
        """The results of `work` for each part of the batch, in the order of the rows. Each thread has one part."""
        size = len(batch.inputs_BT)
        parts = max(1, min(self._threads, size // FEWEST))
        edges = [size * n // parts for n in range(parts + 1)]
        first, *rest = (batch.cut(*edge) for edge in pairwise(edges))
        waiting = [self._others.submit(_silently, work, rows) for rows in rest]
        return [_silently(work, first), *(done.result() for done in waiting)]


def _silently(work: Callable[[Rows], R], rows: Rows) -> R:
    """`work(rows)` without overflow warnings: the trainer checks the loss. Each thread has its own error state."""
    with np.errstate(all="ignore"):
        return work(rows)


def joined_states(states: list[CpuState]) -> CpuState:
    """The states of all rows."""
    return tuple(np.concatenate(parts_LBH, axis=1) for parts_LBH in zip(*states, strict=True))


def summed_gradients(gradients: list[dict[str, Floats]]) -> dict[str, Floats]:
    """The sum of the gradients, from left to right, in the arrays of the first."""
    first, *rest = gradients
    for other in rest:
        for name, gradient in first.items():
            np.add(gradient, other[name], out=gradient)
    return first
