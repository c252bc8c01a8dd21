"""Clipping the gradient, which through many steps of time can explode (Pascanu, Mikolov & Bengio 2013)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from charloom.cells import Floats


def by_value(gradients: Iterable[Floats], limit: float) -> None:
    """Each number to within ± limit, in place."""
    for gradient in gradients:
        np.clip(gradient, -limit, limit, out=gradient)


def by_norm(gradients: Iterable[Floats], limit: float) -> float:
    """All of them, taken as one vector, to this length at most, in place; returns the length before.

    The 1e-6 is that of `torch.nn.utils.clip_grad_norm_`.
    """
    gradients = list(gradients)
    norm = math.sqrt(sum(float(np.vdot(gradient, gradient)) for gradient in gradients))
    if not norm + 1e-6 <= limit:  # so that a norm that is no number spreads, and is noticed
        for gradient in gradients:
            np.multiply(gradient, limit / (norm + 1e-6), out=gradient)
    return norm
