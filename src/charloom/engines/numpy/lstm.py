"""The LSTM layer: `cells.lstm_step` over all steps, and its backward pass.

Each gate has its own rows in W, b, U and b', in PyTorch's order i, f, g, o.

Shapes: see `arrays.py`; G = 4H.
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


class LstmActivations(NamedTuple):
    """The saved activations. hidden, cell: [T + 1, B, H]; the first is the state before the first step.

    gates_T4BH: `i_TBH, f_TBH, g_TBH, o_TBH = gates_T4BH.swapaxes(0, 1)`; squashed_TBH: tanh(c_t).
    """

    gates_T4BH: Floats
    hidden: Floats
    cell: Floats
    squashed_TBH: Floats
    weight_GH: Floats
    capped: bool


def forward(
    inputs_TBG: Floats, state: CpuState, weight_GH: Floats, bias_G: Floats, capped: bool = False
) -> tuple[Floats, CpuState, LstmActivations]:
    """All steps: (h_TBH, state after the last, saved activations). One product serves all four gates of a step.

    Args:
        inputs_TBG: W x + b of every step.
        state: (h_BH, c_BH) before the first step.
        weight_GH: U.
        bias_G: b'.
        capped: whether the input gate is capped (`cells.cap`).
    """
    hidden, cell = (unrolled(part_BH, len(inputs_TBG)) for part_BH in state)
    gates_T4BH = np.empty((len(inputs_TBG), 4, *state[0].shape), inputs_TBG.dtype)
    squashed_TBH = np.empty_like(hidden[1:])
    weight_HG, sum_BG = np.ascontiguousarray(weight_GH.T), np.empty_like(inputs_TBG[0])
    for t, inputs_BG in enumerate(inputs_TBG):
        np.matmul(hidden[t], weight_HG, out=sum_BG)
        sum_BG += bias_G
        sum_BG += inputs_BG
        _activate(sum_BG, gates_T4BH[t])
        if capped:
            cells.cap(*gates_T4BH[t, :2])
        cells.lstm_step(gates_T4BH[t], cell[t], cell[t + 1], squashed_TBH[t], hidden[t + 1])
    saved = LstmActivations(gates_T4BH, hidden, cell, squashed_TBH, weight_GH, capped)
    return hidden[1:], (hidden[-1], cell[-1]), saved


def _activate(sum_BG: Floats, gates_4BH: Floats) -> None:
    """σ for i, f and o, tanh for g. Writes each gate as a contiguous array."""
    gates_4BH[...] = by_gate(sum_BG, gates_4BH.shape[-1])
    input_forget_2BH, output_BH = gates_4BH[:2], gates_4BH[3]
    input_forget_2BH *= 0.5
    output_BH *= 0.5
    np.tanh(gates_4BH, out=gates_4BH)
    cells.sigmoid(input_forget_2BH)
    cells.sigmoid(output_BH)


def _through_cap(i_BH: Floats, f_BH: Floats, d_i_BH: Floats, d_f_BH: Floats) -> None:
    """Where i is 1 - f, its gradient belongs to f, with the opposite sign: d_f = d_c_t (c_{t-1} - g), d_i = 0."""
    at_cap_BH = i_BH >= 1 - f_BH
    d_f_BH -= np.where(at_cap_BH, d_i_BH, 0)
    d_i_BH[at_cap_BH] = 0


def backward(d_out_TBH: Floats, d_state: CpuState | None, saved: LstmActivations) -> LayerGradients:
    """All steps, the last first. s_t = tanh(c_t), and a is the sum inside each gate:

        d_o = d_h_t s_t
        d_c_t = d_h_t o (1 - s_t²) + d_c_{t+1} f_{t+1}
        d_i = d_c_t g;    d_f = d_c_t c_{t-1};    d_g = d_c_t i
        d_a = d_gate gate (1 - gate) for i, f and o;    d_a = d_g (1 - g²) for g
        d_h_{t-1} = Uᵀ d_a + the gradient from above with respect to h_{t-1}

    Args:
        d_out_TBH: the gradient from above with respect to each h_t.
        d_state: with respect to the state after the last step; None for zero (truncated BPTT).
        saved: the result of `forward`.
    """
    gates_T4BH, hidden, cell, squashed_TBH, weight_GH, capped = saved
    d_next_BH, d_next_c_BH = zeros_or(d_state, (hidden[0], cell[0]))
    d_inputs_TBG = np.empty((*d_out_TBH.shape[:2], len(weight_GH)), d_out_TBH.dtype)
    d_hidden_TBH, d_cell_TBH = np.empty_like(d_out_TBH), np.empty_like(d_out_TBH)
    d_gates_4BH = np.empty_like(gates_T4BH[0])
    for t in reversed(range(len(d_out_TBH))):
        i_BH, f_BH, g_BH, o_BH = gates_T4BH[t]
        d_i_BH, d_f_BH, d_g_BH, d_o_BH = d_gates_4BH
        d_h_BH = np.add(d_out_TBH[t], d_next_BH, out=d_hidden_TBH[t])
        np.multiply(d_h_BH, squashed_TBH[t], out=d_o_BH)
        d_squashed_BH = d_h_BH * o_BH
        through_tanh(d_squashed_BH, squashed_TBH[t])
        d_c_BH = np.add(d_next_c_BH, d_squashed_BH, out=d_cell_TBH[t])
        np.multiply(d_c_BH, g_BH, out=d_i_BH)
        np.multiply(d_c_BH, cell[t], out=d_f_BH)
        np.multiply(d_c_BH, i_BH, out=d_g_BH)
        np.multiply(d_c_BH, f_BH, out=d_next_c_BH)
        if capped:
            _through_cap(i_BH, f_BH, d_i_BH, d_f_BH)
        through_sigmoid(d_gates_4BH[:2], gates_T4BH[t, :2])
        through_tanh(d_g_BH, g_BH)
        through_sigmoid(d_o_BH, o_BH)
        by_gate(d_inputs_TBG[t], d_h_BH.shape[-1])[...] = d_gates_4BH
        np.matmul(d_inputs_TBG[t], weight_GH, out=d_next_BH)
    d_weight_GH, d_bias_G = over_time(d_inputs_TBG, hidden[:-1])
    return LayerGradients(d_inputs_TBG, (d_next_BH, d_next_c_BH), d_weight_GH, d_bias_G, d_hidden_TBH, d_cell_TBH)
