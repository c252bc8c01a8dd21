"""The GRU layer: `cells.gru_step` over all steps, and its backward pass.

Each gate has its own rows in W, b, U and b', in PyTorch's order r, z, n. r multiplies U h + b', not h. So all three
products of a step are one product, and n keeps two biases.

Shapes: see `arrays.py`; G = 3H.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charloom import cells
from charloom.cells import Floats
from charloom.engines.numpy.arrays import CpuState
from charloom.engines.numpy.recurrence import (
    LayerGradients,
    by_gate,
    over_time,
    through_sigmoid,
    through_tanh,
    unrolled,
    zeros_or,
)


class GruActivations(NamedTuple):
    """The saved activations. hidden: [T + 1, B, H]; the first is the state before the first step.

    gates_T3BH: `r_TBH, z_TBH, n_TBH = gates_T3BH.swapaxes(0, 1)`; past_TBH: m = U h_{t-1} + b' of n.
    """

    gates_T3BH: Floats
    past_TBH: Floats
    hidden: Floats
    weight_GH: Floats


def forward(
    inputs_TBG: Floats, state: CpuState, weight_GH: Floats, bias_G: Floats
) -> tuple[Floats, CpuState, GruActivations]:
    """All steps: (h_TBH, state after the last, saved activations). One product serves all three gates of a step.

    Args:
        inputs_TBG: W x + b of every step.
        state: (h_BH,) before the first step.
        weight_GH: U.
        bias_G: b'.
    """
    hidden = unrolled(state[0], len(inputs_TBG))
    gates_T3BH = np.empty((len(inputs_TBG), 3, *state[0].shape), inputs_TBG.dtype)
    past_TBH = np.empty_like(hidden[1:])
    weight_HG, product_BG = np.ascontiguousarray(weight_GH.T), np.empty_like(inputs_TBG[0])
    for t, inputs_BG in enumerate(inputs_TBG):
        np.matmul(hidden[t], weight_HG, out=product_BG)
        product_BG += bias_G
        product_3BH, inputs_3BH = (by_gate(rows_BG, past_TBH.shape[-1]) for rows_BG in (product_BG, inputs_BG))
        reset_update_2BH = gates_T3BH[t, :2]
        np.add(product_3BH[:2], inputs_3BH[:2], out=reset_update_2BH)
        reset_update_2BH *= 0.5
        np.tanh(reset_update_2BH, out=reset_update_2BH)
        cells.sigmoid(reset_update_2BH)
        past_TBH[t] = product_3BH[2]
        cells.gru_step(gates_T3BH[t], past_TBH[t], inputs_3BH[2], hidden[t], hidden[t + 1])
    return hidden[1:], (hidden[-1],), GruActivations(gates_T3BH, past_TBH, hidden, weight_GH)


def backward(d_out_TBH: Floats, d_state: CpuState | None, saved: GruActivations) -> LayerGradients:
    """All steps, the last first. a is the sum inside each gate, and p = U h_{t-1} + b':

        d_z = d_h_t (h_{t-1} - n);    d_n = d_h_t (1 - z)
        d_a = d_n (1 - n²) for n;     d_r = d_a m;     d_m = d_a r
        d_a = d_gate gate (1 - gate) for r and z
        d_p = d_a for r and z, and d_m for n
        d_h_{t-1} = d_h_t z + Uᵀ d_p + the gradient from above with respect to h_{t-1}

    Args:
        d_out_TBH: the gradient from above with respect to each h_t.
        d_state: with respect to the state after the last step; None for zero (truncated BPTT).
        saved: the result of `forward`.
    """
    gates_T3BH, past_TBH, hidden, weight_GH = saved
    (d_next_BH,) = zeros_or(d_state, (hidden[0],))
    d_inputs_TBG = np.empty((*d_out_TBH.shape[:2], len(weight_GH)), d_out_TBH.dtype)
    d_products_TBG, d_hidden_TBH = np.empty_like(d_inputs_TBG), np.empty_like(d_out_TBH)
    d_gates_3BH = np.empty_like(gates_T3BH[0])
    for t in reversed(range(len(d_out_TBH))):
        r_BH, z_BH, n_BH = gates_T3BH[t]
        d_r_BH, d_z_BH, d_n_BH = d_gates_3BH
        d_h_BH = np.add(d_out_TBH[t], d_next_BH, out=d_hidden_TBH[t])
        np.multiply(d_h_BH, hidden[t] - n_BH, out=d_z_BH)
        np.multiply(d_h_BH, 1 - z_BH, out=d_n_BH)
        through_tanh(d_n_BH, n_BH)
        np.multiply(d_n_BH, past_TBH[t], out=d_r_BH)
        through_sigmoid(d_gates_3BH[:2], gates_T3BH[t, :2])
        by_gate(d_inputs_TBG[t], d_h_BH.shape[-1])[...] = d_gates_3BH
        d_n_BH *= r_BH  # d_m from here on
        by_gate(d_products_TBG[t], d_h_BH.shape[-1])[...] = d_gates_3BH
        np.matmul(d_products_TBG[t], weight_GH, out=d_next_BH)
        d_next_BH += d_h_BH * z_BH
    d_weight_GH, d_bias_G = over_time(d_products_TBG, hidden[:-1])
    return LayerGradients(d_inputs_TBG, (d_next_BH,), d_weight_GH, d_bias_G, d_hidden_TBH)
