"""The head: logits, and their softmax cross-entropy with the targets.

Shapes: see `arrays.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charloom.engines.bptt import linear
from charloom.engines.bptt.arrays import Floats, Integers


class Cache(NamedTuple):
    """What `backward` needs; probabilities_NV = softmax(logits)."""

    probabilities_NV: Floats
    targets_N: Integers
    x_NH: Floats
    weight_VH: Floats


def forward(x_NH: Floats, weight_VH: Floats, bias_V: Floats, targets_N: Integers) -> tuple[float, int, Cache]:
    """(sum over N of -ln softmax(W x + b)[target] in nats, how many targets had the highest logit, cache).

    The highest logit is taken off first, which leaves the softmax as it is and keeps exp from overflowing.
    """
    logits_NV = linear.forward(x_NH, weight_VH, bias_V)
    rows_N, best_N = np.arange(len(targets_N)), logits_NV.argmax(axis=1)
    logits_NV -= logits_NV[rows_N, best_N][:, None]
    target_N = logits_NV[rows_N, targets_N]
    probabilities_NV = np.exp(logits_NV, out=logits_NV)
    sum_N = np.add.reduce(probabilities_NV, axis=1)
    probabilities_NV /= sum_N[:, None]
    nats = np.add.reduce(np.log(sum_N) - target_N, dtype=np.float64)
    return float(nats), int((best_N == targets_N).sum()), Cache(probabilities_NV, targets_N, x_NH, weight_VH)


def backward(scale: float, cache: Cache) -> tuple[Floats, Floats, Floats]:
    """(d_x_NH, d_weight_VH, d_bias_V) of scale times the nats: d_logits = scale (softmax - one-hot target).

    scale: 1/N where the loss is their mean.
    """
    probabilities_NV, targets_N, x_NH, weight_VH = cache
    d_logits_NV = probabilities_NV * scale
    d_logits_NV[np.arange(len(targets_N)), targets_N] -= scale
    return linear.backward(d_logits_NV, x_NH, weight_VH)
