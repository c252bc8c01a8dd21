"""The input of the first layer: an embedding, one number, or one-hot."""

from __future__ import annotations

import numpy as np
import pytest

from charloom.engines.numpy import input_layer

IDS = np.array([[6, 0, 6], [2, 2, 6]])  # [T, B]; ids 1, 3, 4 and 5 do not occur


@pytest.mark.parametrize("size", [7, 2, 1])
def test_inputs_are_the_product_of_each_tokens_features(random, size):
    """Catches a table of only the batch's tokens that is indexed with ids of the vocabulary."""
    tokens = None if size == 7 else random(7, size)
    weight, bias = random(4, size), random(4)
    found, _ = input_layer.forward(IDS, tokens, weight, bias)
    np.testing.assert_allclose(found, (np.eye(7) if tokens is None else tokens)[IDS] @ weight.T + bias, rtol=1e-13)


@pytest.mark.parametrize("size", [7, 2, 1])
def test_gradients(random, assert_slope, size):
    """Catches gradients in the rows of other tokens, gradients added twice, and a missing bias."""
    tokens = None if size == 7 else random(7, size)
    weight, bias, d_inputs = random(4, size), random(4), random(2, 3, 4)

    def value():
        return float((input_layer.forward(IDS, tokens, weight, bias)[0] * d_inputs).sum())

    d_features, d_weight, d_bias = input_layer.backward(d_inputs, input_layer.forward(IDS, tokens, weight, bias)[1])
    assert_slope(value, weight, d_weight, "weight")
    assert_slope(value, bias, d_bias, "bias")
    if tokens is None:
        assert d_features is None
    else:
        assert_slope(value, tokens, d_features, "tokens")
        assert not d_features[[1, 3, 4, 5]].any()
