"""Tokens entering the first layer: as an embedding, as one number, one-hot."""

from __future__ import annotations

import numpy as np
import pytest

from charloom.engines.numpy import input_layer

IDS = np.array([[6, 0, 6], [2, 2, 6]])  # [T, B]; 1, 3, 4 and 5 stand nowhere


@pytest.mark.parametrize("size", [7, 2, 1])
def test_inputs_are_the_product_of_each_tokens_features(random, size):
    """A table of the batch's distinct tokens that is gathered by the ids of the vocabulary."""
    tokens = None if size == 7 else random(7, size)
    weight, bias = random(4, size), random(4)
    found, _ = input_layer.forward(IDS, tokens, weight, bias)
    np.testing.assert_allclose(found, (np.eye(7) if tokens is None else tokens)[IDS] @ weight.T + bias, rtol=1e-13)


@pytest.mark.parametrize("size", [7, 2, 1])
def test_gradients(random, assert_slope, size):
    """Gradients put down in the rows of other tokens, or twice; a bias forgotten."""
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
