"""The LSTM layer (Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000).

    i, f, o = σ(W x_t + b + U h_{t-1} + b')       what enters the cell, what stays, what shows
    g = tanh(W x_t + b + U h_{t-1} + b')          what would enter
    c_t = f c_{t-1} + i g
    h_t = o tanh(c_t)

Each gate has rows of its own in W, b, U and b', in PyTorch's order i, f, g, o.

Shapes: see `arrays.py`; G = 4H.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charloom.engines.bptt.arrays import Floats, State
from charloom.engines.bptt.recurrence import (
    Gradients,
    by_gate,
    over_time,
    through_sigmoid,
    through_tanh,
    to_sigmoid,
    unrolled,
    zeros_or,
)


class Cache(NamedTuple):
    """What `backward` needs. hidden, cell: [T + 1, B, H], the state before the first step at the front.

    gates_T4BH: `i_TBH, f_TBH, g_TBH, o_TBH = cache.gates_T4BH.swapaxes(0, 1)`; squashed_TBH: tanh(c_t).
    """

    gates_T4BH: Floats
    hidden: Floats
    cell: Floats
    squashed_TBH: Floats
    weight_GH: Floats


def forward(inputs_TBG: Floats, state: State, weight_GH: Floats, bias_G: Floats) -> tuple[Floats, State, Cache]:
    """All steps: (h_TBH, state after the last, cache). All four gates of a step are one product.

    Args:
        inputs_TBG: W x + b of every step.
        state: (h_BH, c_BH) before the first step.
        weight_GH: U.
        bias_G: b'.
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
        i_BH, f_BH, g_BH, o_BH = gates_T4BH[t]
        np.multiply(f_BH, cell[t], out=cell[t + 1])
        cell[t + 1] += i_BH * g_BH
        np.tanh(cell[t + 1], out=squashed_TBH[t])
        np.multiply(o_BH, squashed_TBH[t], out=hidden[t + 1])
    cache = Cache(gates_T4BH, hidden, cell, squashed_TBH, weight_GH)
    return hidden[1:], (hidden[-1], cell[-1]), cache


def _activate(sum_BG: Floats, gates_4BH: Floats) -> None:
    """σ for i, f and o, tanh for g; a gate at a time from here on, so that each lies in one piece."""
    gates_4BH[...] = by_gate(sum_BG, gates_4BH.shape[-1])
    gates_4BH[:2] *= 0.5
    gates_4BH[3] *= 0.5
    np.tanh(gates_4BH, out=gates_4BH)
    to_sigmoid(gates_4BH[:2])
    to_sigmoid(gates_4BH[3])


def backward(d_out_TBH: Floats, d_state: State | None, cache: Cache) -> Gradients:
    """All steps, the last first. With s_t = tanh(c_t) and a the sum inside each gate:

        d_o = d_h_t s_t
        d_c_t = d_h_t o (1 - s_t²) + d_c_{t+1} f_{t+1}
        d_i = d_c_t g;    d_f = d_c_t c_{t-1};    d_g = d_c_t i
        d_a = d_gate gate (1 - gate) for i, f and o;    d_a = d_g (1 - g²) for g
        d_h_{t-1} = Uᵀ d_a + what the layers above say of h_{t-1}

    Args:
        d_out_TBH: what the layers above say of each h_t.
        d_state: with respect to the state after the last step; None for zero, as truncation has it.
        cache: of `forward`.
    """
    gates_T4BH, hidden, cell, squashed_TBH, weight_GH = cache
    d_next_BH, d_c_BH = zeros_or(d_state, (hidden[0], cell[0]))
    d_inputs_TBG = np.empty((*d_out_TBH.shape[:2], len(weight_GH)), d_out_TBH.dtype)
    d_hidden_TBH, d_gates_4BH = np.empty_like(d_out_TBH), np.empty_like(gates_T4BH[0])
    for t in reversed(range(len(d_out_TBH))):
        i_BH, f_BH, g_BH, o_BH = gates_T4BH[t]
        d_i_BH, d_f_BH, d_g_BH, d_o_BH = d_gates_4BH
        d_h_BH = np.add(d_out_TBH[t], d_next_BH, out=d_hidden_TBH[t])
        np.multiply(d_h_BH, squashed_TBH[t], out=d_o_BH)
        d_squashed_BH = d_h_BH * o_BH
        through_tanh(d_squashed_BH, squashed_TBH[t])
        d_c_BH += d_squashed_BH
        np.multiply(d_c_BH, g_BH, out=d_i_BH)
        np.multiply(d_c_BH, cell[t], out=d_f_BH)
        np.multiply(d_c_BH, i_BH, out=d_g_BH)
        d_c_BH *= f_BH
        through_sigmoid(d_gates_4BH[:2], gates_T4BH[t, :2])
        through_tanh(d_g_BH, g_BH)
        through_sigmoid(d_o_BH, o_BH)
        by_gate(d_inputs_TBG[t], d_h_BH.shape[-1])[...] = d_gates_4BH
        np.matmul(d_inputs_TBG[t], weight_GH, out=d_next_BH)
    d_weight_GH, d_bias_G = over_time(d_inputs_TBG, hidden[:-1])
    return Gradients(d_inputs_TBG, (d_next_BH, d_c_BH), d_weight_GH, d_bias_G, d_hidden_TBH)
