"""Dropout (Srivastava et al. 2014): between layers and before the head (Zaremba, Sutskever & Vinyals 2014).

What is kept is scaled up, so that its mean stays and nothing is to be done when the network is used.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from charloom.engines.bptt.arrays import Floats

LEVELS = 2**16  # of the draw: 16 bits a unit, of which the share `kept / LEVELS` survives


def generator(seed: int, step: int) -> np.random.Generator:
    """The masks of one step are a matter of (seed, step): there is no random state to save."""
    return np.random.Generator(np.random.Philox(key=[seed, step]))


def draw(random: np.random.Generator, shape: tuple[int, ...], dropout: float, dtype: DTypeLike) -> Floats:
    """A mask: 0 for the share `dropout` of the units, 1 / (1 - dropout) for the others."""
    kept = round((1 - dropout) * LEVELS)
    mask = (random.integers(0, LEVELS, shape, np.uint16) < kept).astype(dtype)
    mask *= LEVELS / kept
    return mask


def forward(x: Floats, mask: Floats | None) -> Floats:
    """x times the mask; None drops nothing."""
    return x if mask is None else x * mask


def backward(d_out: Floats, mask: Floats | None) -> Floats:
    """The mask again: a unit that was dropped had no part in the loss."""
    return d_out if mask is None else d_out * mask
