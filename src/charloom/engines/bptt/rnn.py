"""The simple recurrent layer (Elman 1990), with tanh or relu.

    h_t = tanh(W x_t + b + U h_{t-1} + b')        or, with relu, max(0, …)

Shapes: see `arrays.py`; here G = H.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from charloom.engines.bptt.arrays import Floats, State
from charloom.engines.bptt.recurrence import Gradients, over_time, through_tanh, unrolled, zeros_or

Nonlinearity = Literal["tanh", "relu"]


class Cache(NamedTuple):
    """What `backward` needs. hidden: [T + 1, B, H], the state before the first step at the front."""

    hidden: Floats
    weight_GH: Floats
    nonlinearity: Nonlinearity


def forward(
    inputs_TBG: Floats, state: State, weight_GH: Floats, bias_G: Floats, nonlinearity: Nonlinearity = "tanh"
) -> tuple[Floats, State, Cache]:
    """All steps: (h_TBH, state after the last, cache).

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
        if nonlinearity == "tanh":
            np.tanh(h_BH, out=h_BH)
        else:
            np.maximum(h_BH, 0, out=h_BH)
    return hidden[1:], (hidden[-1],), Cache(hidden, weight_GH, nonlinearity)


def backward(d_out_TBH: Floats, d_state: State | None, cache: Cache) -> Gradients:
    """All steps, the last first. With a_t = W x_t + b + U h_{t-1} + b':

        d_a_t = d_h_t (1 - h_t²)        or, with relu, d_h_t where h_t > 0
        d_h_{t-1} = Uᵀ d_a_t + what the layers above say of h_{t-1}

    Args:
        d_out_TBH: what the layers above say of each h_t.
        d_state: with respect to the state after the last step; None for zero, as truncation has it.
        cache: of `forward`.
    """
    hidden, weight_GH, nonlinearity = cache
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
    return Gradients(d_inputs_TBG, (d_next_BH,), d_weight_GH, d_bias_G, d_hidden_TBH)
