"""A random permutation of any size as a function of the position; it needs no memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]


def shuffled(positions: Array, size: int, seed: int | None, epoch: int) -> Array:
    """The values of a random permutation of 0 … size-1 at these positions; without a seed, the positions themselves.

    A Feistel network of eight rounds over the next power of four, repeated until the value is below `size` (Black and
    Rogaway 2002, "Ciphers with arbitrary finite domains", cycle walking). So a billion windows need no list in memory.
    """
    if seed is None:
        return positions
    half = max(1, (max(1, size - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = np.random.SeedSequence([seed, epoch]).generate_state(8, np.uint64)
    result, outside = positions.astype(np.uint64), np.ones(len(positions), np.bool_)
    while outside.any():
        left, right = result[outside] >> np.uint64(half), result[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        result[outside] = left << np.uint64(half) | right
        outside = result >= size
    return result.astype(np.int64)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every input bit affects every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
