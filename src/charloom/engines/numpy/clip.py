"""The mean gradient and its clipping: over many time steps it can explode (Pascanu, Mikolov & Bengio 2013)."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from charloom.cells import Floats


def to_mean(sums: Collection[Floats], count: int, by_value: float | None, by_norm: float | None) -> None:
    """Divides sums over `count` targets to get their mean, and clips it, in place.

    by_value: limits each number to ± this value, first. by_norm: then limits the norm of all numbers together, as one
    vector. None or 0 does not clip. The 1e-6 is that of `torch.nn.utils.clip_grad_norm_`.
    """
    if by_value:
        for array in sums:
            np.clip(array, -by_value * count, by_value * count, out=array)
    factor = 1 / count
    if by_norm:
        norm = factor * math.sqrt(sum(float(np.vdot(array, array)) for array in sums))
        if not norm + 1e-6 <= by_norm:  # not >, so that a NaN norm reaches all numbers and is noticed
            factor *= by_norm / (norm + 1e-6)
    for array in sums:
        np.multiply(array, factor, out=array)
