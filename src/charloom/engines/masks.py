"""Dropout levels. NumPy draws them from the seed and the step's number, so there is no random state to save.

The PyTorch engine uses them on a CPU too, because PyTorch's own draw took a quarter of a training step. So all masks
are the same in all engines there. On a GPU the device draws them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

LEVELS = 2**8
"""One random byte for each unit; the share `kept / LEVELS` of the units stays. Two bytes would take twice the time, and
a share of 0.3 trains like one of 77/256.
"""


def dropout_stream(seed: int, step: int) -> np.random.Generator:
    """The random numbers of one step: a function of (seed, step)."""
    return np.random.Generator(np.random.Philox(key=[seed, step]))


class DropoutLevels(NamedTuple):
    """A level from 0 to LEVELS - 1 for each unit. Units with a level below `kept` stay."""

    levels: NDArray[np.uint8]
    kept: int

    def mask(self, dtype: DTypeLike = np.float32) -> NDArray[np.floating[Any]]:
        """0 for dropped units, LEVELS / kept for the others, so that the mean does not change."""
        mask = (self.levels < self.kept if self.kept < LEVELS else np.ones_like(self.levels)).astype(dtype)
        mask *= LEVELS / self.kept
        return mask


NOTHING_DROPPED: Mapping[str, DropoutLevels] = MappingProxyType({})


def dropout_levels(random: np.random.Generator, shape: tuple[int, ...], dropout: float) -> DropoutLevels:
    """Random levels for units of this shape. They drop the share `dropout`, rounded to 1 / LEVELS."""
    size = math.prod(shape)
    levels = random.bit_generator.random_raw(-(-size // 8)).view(np.uint8)[:size]
    return DropoutLevels(levels.reshape(shape), max(1, round((1 - dropout) * LEVELS)))
