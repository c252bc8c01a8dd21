"""The simple recurrent layer against its equation and against finite differences."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from charloom.engines.numpy import rnn


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_each_step_is_the_equation(random, nonlinearity):
    """Catches a state one step late, a weight that is not transposed, and the wrong nonlinearity."""
    inputs, h, weight, bias = random(4, 2, 3), random(2, 3), random(3, 3), random(3)
    out, (last,), saved = rnn.forward(inputs, (h,), weight, bias, nonlinearity)
    np.testing.assert_array_equal(saved.hidden[0], h)
    for t in range(4):
        a = inputs[t] + h @ weight.T + bias
        h = np.tanh(a) if nonlinearity == "tanh" else np.where(a > 0, a, 0)
        np.testing.assert_allclose(out[t], h, rtol=1e-12)
    np.testing.assert_array_equal(last, out[-1])


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize(("steps", "rows"), [(4, 2), (1, 2), (3, 1), (1, 1)])
def test_gradients(judge_layer, nonlinearity, steps, rows):
    """Catches a missing slope, the slope of another step, a gradient one step off, and a missing gradient of the
    state.
    """
    judge_layer(partial(rnn.forward, nonlinearity=nonlinearity), rnn.backward, 1, 1, steps, rows)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_a_unit_that_is_saturated_or_off_has_no_gradient(nonlinearity):
    """Catches a relu whose slope at 0 or below is 1, and a negative 1 - h² from rounding."""
    size = {"tanh": 500.0, "relu": -500.0}[nonlinearity]
    inputs, zero = np.full((2, 1, 1), size, np.float32), np.zeros((1, 1), np.float32)
    _, _, saved = rnn.forward(inputs, (zero,), zero, zero[0], nonlinearity)
    assert not rnn.backward(np.ones((2, 1, 1), np.float32), None, saved).inputs_TBG.any()
