"""The simple recurrent layer: `cells.rnn_step` over all steps, and its backward pass.

Shapes: see `arrays.py`; here G = H.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charloom import cells
from charloom.cells import Floats, Nonlinearity
from charloom.engines.numpy.arrays import CpuState
from charloom.engines.numpy.recurrence import LayerGradients, over_time, through_tanh, unrolled, zeros_or


class RnnActivations(NamedTuple):
    """The saved activations. hidden: [T + 1, B, H]; the first is the state before the first step."""

    hidden: Floats
    weight_GH: Floats
    nonlinearity: Nonlinearity


def forward(
    inputs_TBG: Floats, state: CpuState, weight_GH: Floats, bias_G: Floats, nonlinearity: Nonlinearity = "tanh"
) -> tuple[Floats, CpuState, RnnActivations]:
    """All steps: (h_TBH, state after the last, saved activations).

    Args:
        inputs_TBG: W x + b of every step.
        state: (h_BH,) before the first step.
        weight_GH: U.
        bias_G: b'.
    """
    hidden = unrolled(state[0], len(inputs_TBG))
    weight_HG = np.ascontiguousarray(weight_GH.T)
    for t, inputs_BG in enumerate(inputs_TBG):
        h_BH = hidden[t + 1]
        np.matmul(hidden[t], weight_HG, out=h_BH)
        h_BH += bias_G
        h_BH += inputs_BG
        cells.rnn_step(h_BH, nonlinearity, h_BH)
    return hidden[1:], (hidden[-1],), RnnActivations(hidden, weight_GH, nonlinearity)


def backward(d_out_TBH: Floats, d_state: CpuState | None, saved: RnnActivations) -> LayerGradients:
    """All steps, the last first. a_t = W x_t + b + U h_{t-1} + b':

        d_a_t = d_h_t (1 - h_t²)        or, with relu, d_h_t where h_t > 0
        d_h_{t-1} = Uᵀ d_a_t + the gradient from above with respect to h_{t-1}

    Args:
        d_out_TBH: the gradient from above with respect to each h_t.
        d_state: with respect to the state after the last step; None for zero (truncated BPTT).
        saved: the result of `forward`.
    """
    hidden, weight_GH, nonlinearity = saved
    d_inputs_TBG, d_hidden_TBH = np.empty_like(d_out_TBH), np.empty_like(d_out_TBH)
    (d_next_BH,) = zeros_or(d_state, (hidden[0],))
    for t in reversed(range(len(d_out_TBH))):
        np.add(d_out_TBH[t], d_next_BH, out=d_hidden_TBH[t])
        d_inputs_TBG[t] = d_hidden_TBH[t]
        if nonlinearity == "tanh":
            through_tanh(d_inputs_TBG[t], hidden[t + 1])
        else:
            d_inputs_TBG[t] *= hidden[t + 1] > 0
        np.matmul(d_inputs_TBG[t], weight_GH, out=d_next_BH)
    d_weight_GH, d_bias_G = over_time(d_inputs_TBG, hidden[:-1])
    return LayerGradients(d_inputs_TBG, (d_next_BH,), d_weight_GH, d_bias_G, d_hidden_TBH)
