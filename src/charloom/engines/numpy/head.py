"""The head: logits, and their softmax cross-entropy with the targets.

Shapes: see `arrays.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charloom.cells import Booleans, Floats, Integers
from charloom.engines.numpy import linear


class LossActivations(NamedTuple):
    """The saved activations; probabilities_NV = softmax(logits)."""

    probabilities_NV: Floats
    targets_N: Integers
    x_NH: Floats
    weight_VH: Floats


def forward(
    x_NH: Floats, weight_VH: Floats, bias_V: Floats, targets_N: Integers
) -> tuple[Floats, Booleans, LossActivations]:
    """(-ln softmax(W x + b)[target] in nats, whether the target had the highest logit, saved activations).

    The highest logit is subtracted first: the softmax stays the same, and exp does not overflow.
    """
    logits_NV = linear.forward(x_NH, weight_VH, bias_V)
    rows_N, best_N = np.arange(len(targets_N)), logits_NV.argmax(axis=1)
    logits_NV -= logits_NV[rows_N, best_N][:, None]
    target_N = logits_NV[rows_N, targets_N]
    probabilities_NV = np.exp(logits_NV, out=logits_NV)
    sum_N = np.add.reduce(probabilities_NV, axis=1)
    probabilities_NV /= sum_N[:, None]
    saved = LossActivations(probabilities_NV, targets_N, x_NH, weight_VH)
    return np.log(sum_N) - target_N, best_N == targets_N, saved


def backward(saved: LossActivations) -> tuple[Floats, Floats, Floats]:
    """(d_x_NH, d_weight_VH, d_bias_V) of the sum of nats: d_logits = softmax - one-hot target."""
    probabilities_NV, targets_N, x_NH, weight_VH = saved
    d_logits_NV = probabilities_NV.copy()
    d_logits_NV[np.arange(len(targets_N)), targets_N] -= 1
    return linear.backward(d_logits_NV, x_NH, weight_VH)
