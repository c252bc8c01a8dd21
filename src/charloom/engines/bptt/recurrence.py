"""What the recurrent layers have in common: what they hand back, gates as views, and σ by tanh.

Back-propagation through time (Werbos 1990) unrolls a layer: step t of T computes h_t from h_{t-1} with the same
weights as every other step. So the gradient with respect to h_t is a sum of two parts, what the layers above say of
step t and what comes back from step t + 1; and a weight's gradient is a sum over the steps. The unrolling ends at the
first step of a batch: the state before it is taken as given (truncated BPTT, Williams & Peng 1990).

A layer's input product W x + b waits for nothing and is computed before, for all steps at once (`entry.py`,
`linear.py`); here is what runs step by step.

Shapes: see `arrays.py`; K gates, so G = K times H.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charloom.engines.bptt.arrays import Floats, State


class Gradients(NamedTuple):
    """What `backward` of a recurrent layer returns.

    inputs_TBG: for what lies below; state: with respect to the state before the first step; weight_GH, bias_G;
    hidden_TBH: with respect to each h_t, both parts. How its norm falls towards t = 0 is how far back the layer learns.
    """

    inputs_TBG: Floats
    state: State
    weight_GH: Floats
    bias_G: Floats
    hidden_TBH: Floats


def by_gate(rows_BG: Floats, hidden: int) -> Floats:
    """The same numbers seen as [K, B, H], so that each gate is a matrix; the rows must lie in one piece."""
    return rows_BG.reshape(len(rows_BG), -1, hidden).swapaxes(0, 1)


def to_sigmoid(tanh: Floats) -> None:
    """σ(x) = ½ tanh(½x) + ½, from tanh(½x), in place. It saturates, where 1 / (1 + exp(-x)) overflows."""
    tanh *= 0.5
    tanh += 0.5


def through_sigmoid(d: Floats, sigmoid: Floats) -> None:
    """d ← d σ (1 - σ), in place: from the gradient of a sigmoid to that of what stands inside."""
    d *= sigmoid
    d *= 1 - sigmoid


def through_tanh(d: Floats, tanh: Floats) -> None:
    """d ← d (1 - tanh²), in place."""
    d *= 1 - tanh * tanh


def over_time(d_products_TBG: Floats, before_TBH: Floats) -> tuple[Floats, Floats]:
    """The gradients of U and b' in U h_{t-1} + b': sums over all steps and texts, as one product each."""
    d_NG = d_products_TBG.reshape(-1, d_products_TBG.shape[-1])
    return d_NG.T @ before_TBH.reshape(len(d_NG), -1), np.add.reduce(d_NG, axis=0)


def unrolled(first_BH: Floats, steps: int) -> Floats:
    """Room for a value of each step, with the one before the first step at the front: [T + 1, B, H]."""
    values = np.empty((steps + 1, *first_BH.shape), first_BH.dtype)
    values[0] = first_BH
    return values


def zeros_or(d_state: State | None, like: State) -> State:
    """The gradient that reaches the last step from beyond it, in arrays of its own; None is zero."""
    return tuple(map(np.zeros_like, like)) if d_state is None else tuple(part_BH.copy() for part_BH in d_state)
