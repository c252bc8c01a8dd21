"""The GRU layer against its equations and against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from charloom.engines.numpy import gru


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_each_step_is_the_equations(random):
    """Catches a reset before the product or without its bias, and an inverted update gate."""
    inputs, h, weight, bias = random(4, 2, 9), random(2, 3), random(9, 3), random(9)
    out, (last,), saved = gru.forward(inputs, (h,), weight, bias)
    np.testing.assert_array_equal(saved.hidden[0], h)
    for t in range(4):
        (x_r, x_z, x_n), (p_r, p_z, p_n) = (np.split(a, 3, axis=1) for a in (inputs[t], h @ weight.T + bias))
        r, z = sigmoid(x_r + p_r), sigmoid(x_z + p_z)
        n = np.tanh(x_n + r * p_n)
        h = (1 - z) * n + z * h
        np.testing.assert_allclose(out[t], h, rtol=1e-12)
        np.testing.assert_allclose(saved.gates_T3BH[t], [r, z, n], rtol=1e-12)
        np.testing.assert_allclose(saved.past_TBH[t], p_n, rtol=1e-12)
    np.testing.assert_array_equal(last, out[-1])


@pytest.mark.parametrize(("steps", "rows"), [(4, 2), (1, 2), (3, 1), (1, 1)])
def test_gradients(judge_layer, steps, rows):
    """Catches a wrong gradient of the reset gate, z h or the candidate's tanh, a wrong sign, and a step too many."""
    judge_layer(gru.forward, gru.backward, 1, 3, steps, rows)
