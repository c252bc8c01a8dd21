"""What is dropped in a step: NumPy draws it from the seed and the step's number, so there is no random state to save.

In PyTorch on a CPU too, whose own draw took a quarter of a training step: locked masks, dropped weights and what enters
the head are the same in all engines. Masks drawn anew at every character between two layers are PyTorch's own there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

LEVELS = 2**8
"""Of the draw: a byte a unit, of which the share `kept / LEVELS` survives. Two bytes would cost twice the time, and no
one can tell a share of 0.3 from one of 77/256.
"""


def generator(seed: int, step: int) -> np.random.Generator:
    """The masks of one step are a matter of (seed, step)."""
    return np.random.Generator(np.random.Philox(key=[seed, step]))


class DropoutLevels(NamedTuple):
    """A level, 0 … LEVELS - 1, for each unit; those below `kept` survive."""

    levels: NDArray[np.uint8]
    kept: int

    def mask(self, dtype: DTypeLike = np.float32) -> NDArray[np.floating[Any]]:
        """0 for what is dropped; for the others what keeps the mean."""
        mask = (self.levels < self.kept if self.kept < LEVELS else np.ones_like(self.levels)).astype(dtype)
        mask *= LEVELS / self.kept
        return mask


NOTHING_DROPPED: Mapping[str, DropoutLevels] = MappingProxyType({})


def dropout_levels(random: np.random.Generator, shape: tuple[int, ...], dropout: float) -> DropoutLevels:
    """What the share `dropout` of the units, to the nearest of LEVELS, is dropped by."""
    size = math.prod(shape)
    levels = random.bit_generator.random_raw(-(-size // 8)).view(np.uint8)[:size]
    return DropoutLevels(levels.reshape(shape), max(1, round((1 - dropout) * LEVELS)))
