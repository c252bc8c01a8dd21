"""The linear map and its gradients."""

from __future__ import annotations

from charloom.engines.numpy import linear


def test_gradients(random, assert_slope):
    """Catches a transposed weight, a bias that is not summed, and a second axis of rows that is ignored."""
    x, weight, bias, d_y = random(2, 3, 4), random(5, 4), random(5), random(2, 3, 5)

    def value():
        return float((linear.forward(x, weight, bias) * d_y).sum())

    d_x, d_weight, d_bias = linear.backward(d_y, x, weight)
    assert_slope(value, x, d_x, "x")
    assert_slope(value, weight, d_weight, "weight")
    assert_slope(value, bias, d_bias, "bias")
