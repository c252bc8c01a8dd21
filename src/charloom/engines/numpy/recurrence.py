"""Shared by the recurrent layers: their gradients, gates as views, and derivatives of σ and tanh.

Back-propagation through time (Werbos 1990) unrolls a layer: step t of T computes h_t from h_{t-1} with the same weights
as every other step. So the gradient with respect to h_t is a sum of two parts: the gradient from the layer above, and
the gradient from step t + 1. A weight's gradient is a sum over the steps. The unrolling ends at the first step of a
batch: the state before it is a constant (truncated BPTT, Williams & Peng 1990).

A layer's input product W x + b does not depend on the recurrence. `input_layer.py` and `linear.py` compute it first,
for all steps in one product.

Shapes: see `arrays.py`; K gates, so G = K times H.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charloom.cells import Floats
from charloom.engines.numpy.arrays import CpuState


class LayerGradients(NamedTuple):
    """What `backward` of a recurrent layer returns.

    inputs_TBG: with respect to each W x_t + b; state: to the state before the first step; weight_GH, bias_G: to U and
    b'; hidden_TBH: to each h_t, both parts; cell_TBH: to each c_t of an LSTM, including the path through h_t; None for
    other cells. The norm of hidden_TBH towards t = 0 shows how far back the layer learns.
    """

    inputs_TBG: Floats
    state: CpuState
    weight_GH: Floats
    bias_G: Floats
    hidden_TBH: Floats
    cell_TBH: Floats | None = None


def by_gate(rows_BG: Floats, hidden: int) -> Floats:
    """A view [K, B, H] in which each gate is a matrix. rows_BG must be contiguous."""
    return rows_BG.reshape(len(rows_BG), -1, hidden).swapaxes(0, 1)


def through_sigmoid(d: Floats, sigmoid: Floats) -> None:
    """d ← d σ (1 - σ), in place: from the gradient of a sigmoid's value to the gradient of its argument."""
    d *= sigmoid
    d *= 1 - sigmoid


def through_tanh(d: Floats, tanh: Floats) -> None:
    """d ← d (1 - tanh²), in place."""
    d *= 1 - tanh * tanh


def over_time(d_products_TBG: Floats, before_TBH: Floats) -> tuple[Floats, Floats]:
    """The gradients of U and b' in U h_{t-1} + b': sums over all steps and rows, one product each."""
    d_NG = d_products_TBG.reshape(-1, d_products_TBG.shape[-1])
    return d_NG.T @ before_TBH.reshape(len(d_NG), -1), np.add.reduce(d_NG, axis=0)


def unrolled(first_BH: Floats, steps: int) -> Floats:
    """An array [T + 1, B, H] for a value of each step; the first is the value before the first step."""
    values = np.empty((steps + 1, *first_BH.shape), first_BH.dtype)
    values[0] = first_BH
    return values


def zeros_or(d_state: CpuState | None, like: CpuState) -> CpuState:
    """A copy of the gradient with respect to the state after the last step; None is zero."""
    return tuple(map(np.zeros_like, like)) if d_state is None else tuple(part_BH.copy() for part_BH in d_state)
