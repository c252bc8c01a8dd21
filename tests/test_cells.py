"""The parts of the cells that training and generation share besides the steps, which tests of both check."""

from __future__ import annotations

import numpy as np
import pytest

from charloom.architecture import GATES, Architecture
from charloom.cells import cap, gru_step, input_features, lstm_step, merged_biases, rnn_step, sigmoid

H = 3


def architecture(kind):
    return Architecture(cell="gru", nonlinearity="tanh", layers=1, hidden=H, input=kind, embedding=2, vocabulary_size=5)


def test_sigmoid_is_exact_and_saturates_without_a_warning():
    """Catches 1 / (1 + exp(-x)), which overflows, and a sum that is not halved."""
    x = np.array([-1000, -1, 0, 2, 1000], np.float64)
    found = np.tanh(x / 2)
    sigmoid(found)
    np.testing.assert_allclose(found, [0, 1 / (1 + np.e), 0.5, 1 / (1 + np.exp(-2)), 1], rtol=1e-15)


def test_a_capped_cell_stays_within_one():
    """Catches a cap that takes the wrong gate's place, and one that changes an input gate below it."""
    random = np.random.default_rng(0)
    i, f = random.random((2, 1000))
    before = i.copy()
    cap(i, f)
    assert np.all(i + f <= 1 + 1e-15)
    np.testing.assert_array_equal(i[before + f <= 1], before[before + f <= 1])
    c, h, ones = np.ones((1, 1000)), np.empty((1, 1000)), np.ones((1, 1000))
    for _ in range(50):
        lstm_step((i[None], f[None], ones, ones), c, c, h, h)
        assert np.all(c <= 1 + 1e-12)


@pytest.mark.parametrize("cell", sorted(GATES))
def test_merged_biases_leave_every_sum_as_it_is(cell):
    """Catches a hidden bias of the n gate outside the reset product, and an array of the caller that is changed."""
    inputs, hidden = np.arange(GATES[cell] * H, dtype=float), np.arange(GATES[cell] * H) + 100.0
    before = inputs.copy(), hidden.copy()
    merged, n_hidden = merged_biases(cell, inputs, hidden)
    expected = inputs + hidden
    if cell == "gru":
        expected[2 * H :] = inputs[2 * H :]
        np.testing.assert_array_equal(n_hidden, hidden[2 * H :])
        n_hidden[:] = 0
    else:
        assert n_hidden is None
    np.testing.assert_array_equal(merged, expected)
    np.testing.assert_array_equal((inputs, hidden), before)


def test_features_are_what_each_token_enters_as():
    """Catches an index that is not divided by V, a shape [V], another dtype, and one-hot rows, which are not needed."""
    parameters = {"head.bias": np.zeros(5, np.float32), "embedding.weight": np.ones((5, 2), np.float32)}
    scalar = input_features(architecture("scalar"), parameters)
    assert scalar.dtype == np.float32
    np.testing.assert_array_equal(scalar, np.array([[0], [0.2], [0.4], [0.6], [0.8]], np.float32))
    assert input_features(architecture("embedding"), parameters) is parameters["embedding.weight"]
    assert input_features(architecture("onehot"), parameters) is None


@pytest.mark.parametrize("rows", [1, 4])
def test_outputs_may_share_arrays(rows):
    """Catches a value that is overwritten before its last use where generation passes one array twice."""
    random = np.random.default_rng(0)
    gates, h, c, x = random.random((4, rows, H)), *random.random((3, rows, H))
    apart, shared = np.empty((3, rows, H)), c.copy()
    lstm_step(gates, c, *apart)
    out = np.empty_like(h)
    lstm_step(gates, shared, shared, out, out)
    np.testing.assert_array_equal((shared, out), (apart[0], apart[2]))
    product, n = random.random((2, rows, H))
    gru_step((gates[0], gates[1], n), product, x, h, out)
    expected = out.copy()
    gru_step((gates[0], gates[1], product), product, x, h, out)
    np.testing.assert_array_equal(out, expected)
    for nonlinearity in ("tanh", "relu"):
        rnn_step(x, nonlinearity, out)
        rnn_step(same := x.copy(), nonlinearity, same)
        np.testing.assert_array_equal(same, out)
