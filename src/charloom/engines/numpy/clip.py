"""The mean gradient, and clipping it: through many steps of time it can explode (Pascanu, Mikolov & Bengio 2013)."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from charloom.cells import Floats


def to_mean(sums: Collection[Floats], count: int, by_value: float | None, by_norm: float | None) -> None:
    """Sums over `count` targets to their mean, clipped, in place.

    by_value: first, each number to within ± this. by_norm: then all of them, taken as one vector, to this length at
    most. None or 0 clips nothing. The 1e-6 is that of `torch.nn.utils.clip_grad_norm_`.
    """
    if by_value:
        for array in sums:
            np.clip(array, -by_value * count, by_value * count, out=array)
    factor = 1 / count
    if by_norm:
        norm = factor * math.sqrt(sum(float(np.vdot(array, array)) for array in sums))
        if not norm + 1e-6 <= by_norm:  # so that a norm that is no number spreads, and is noticed
            factor *= by_norm / (norm + 1e-6)
    for array in sums:
        np.multiply(array, factor, out=array)
