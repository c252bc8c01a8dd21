"""The LSTM layer against its equations and against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from charloom.engines.numpy import lstm


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_each_step_is_the_equations(random):
    """Catches gates in another order, tanh of the cell before it is saved, and wrong names of saved activations."""
    inputs, h, c, weight, bias = random(4, 2, 12), random(2, 3), random(2, 3), random(12, 3), random(12)
    out, state, saved = lstm.forward(inputs, (h, c), weight, bias)
    np.testing.assert_array_equal([saved.hidden[0], saved.cell[0]], [h, c])
    for t in range(4):
        i, f, g, o = np.split(inputs[t] + h @ weight.T + bias, 4, axis=1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c = f * c + i * g
        h = o * np.tanh(c)
        np.testing.assert_allclose(out[t], h, rtol=1e-12)
        np.testing.assert_allclose(saved.gates_T4BH[t], [i, f, g, o], rtol=1e-12)
        np.testing.assert_allclose(saved.cell[t + 1], c, rtol=1e-12)
        np.testing.assert_allclose(saved.squashed_TBH[t], np.tanh(c), rtol=1e-12)
    np.testing.assert_array_equal(state, [saved.hidden[-1], saved.cell[-1]])


@pytest.mark.parametrize(("steps", "rows"), [(4, 2), (1, 2), (3, 1), (1, 1)])
def test_gradients(judge_layer, steps, rows):
    """Catches a gate's wrong sign or slope, a missing path through the forget gate, and a gradient one step off."""
    judge_layer(lstm.forward, lstm.backward, 2, 4, steps, rows)


def test_saturated_gates_make_no_warning_and_no_gradient():
    """Catches exp, which overflows in float32 at 89; warnings are errors here."""
    inputs = np.full((2, 1, 4), -1000, np.float32)
    zero = np.zeros((1, 1), np.float32)
    _, _, saved = lstm.forward(inputs, (zero, zero), np.zeros((4, 1), np.float32), np.zeros(4, np.float32))
    assert np.unique(saved.gates_T4BH).tolist() == [-1.0, 0.0]
    assert not lstm.backward(np.ones((2, 1, 1), np.float32), None, saved).inputs_TBG.any()
