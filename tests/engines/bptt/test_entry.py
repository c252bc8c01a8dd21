"""Tokens entering the first layer: as an embedding, as one number, one-hot."""

from __future__ import annotations

import numpy as np
import pytest

from charloom.engines.bptt import entry

IDS = np.array([[6, 0, 6], [2, 2, 6]])  # [T, B]; 1, 3, 4 and 5 stand nowhere


@pytest.mark.parametrize("size", [7, 2, 1])
def test_inputs_are_the_product_of_each_symbols_row(random, size):
    """A table of the batch's distinct tokens that is gathered by the ids of the vocabulary."""
    tokens = None if size == 7 else random(7, size)
    weight, bias = random(4, size), random(4)
    found, _ = entry.forward(IDS, tokens, weight, bias)
    np.testing.assert_allclose(found, (np.eye(7) if tokens is None else tokens)[IDS] @ weight.T + bias, rtol=1e-13)


@pytest.mark.parametrize("size", [7, 2, 1])
def test_gradients(random, assert_slope, size):
    """Gradients put down in the rows of other tokens, or twice; a bias forgotten."""
    tokens = None if size == 7 else random(7, size)
    weight, bias, d_inputs = random(4, size), random(4), random(2, 3, 4)

    def value():
        return float((entry.forward(IDS, tokens, weight, bias)[0] * d_inputs).sum())

    d_symbols, d_weight, d_bias = entry.backward(d_inputs, entry.forward(IDS, tokens, weight, bias)[1])
    assert_slope(value, weight, d_weight, "weight")
    assert_slope(value, bias, d_bias, "bias")
    if tokens is None:
        assert d_symbols is None
    else:
        assert_slope(value, tokens, d_symbols, "tokens")
        assert not d_symbols[[1, 3, 4, 5]].any()
