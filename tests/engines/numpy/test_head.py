"""Logits and cross-entropy."""

from __future__ import annotations

import numpy as np
import pytest

from charloom.engines.numpy import head
from charloom.score import cross_entropy

TARGETS = np.array([4, 0, 2, 2])


def test_nats_and_guesses_are_those_of_the_evaluation(random):
    """Catches a mean instead of a sum, and a guess that is compared with another row's target."""
    x, weight, bias = random(4, 3), random(5, 3), random(5)
    nats_N, correct_N, _ = head.forward(x, weight, bias, TARGETS)
    nats, correct = cross_entropy(x @ weight.T + bias, TARGETS)
    assert (nats_N.sum(), correct_N.sum()) == (pytest.approx(nats, rel=1e-13), correct)
    assert correct == 1


def test_gradients_of_the_sum(random, assert_slope):
    """Catches a gradient from which the target is not subtracted."""
    x, weight, bias = random(4, 3), random(5, 3), random(5)
    d_x, d_weight, d_bias = head.backward(head.forward(x, weight, bias, TARGETS)[2])

    def value():
        return head.forward(x, weight, bias, TARGETS)[0].sum()

    assert_slope(value, x, d_x, "x")
    assert_slope(value, weight, d_weight, "weight")
    assert_slope(value, bias, d_bias, "bias")


def test_large_logits_overflow_nothing():
    """Catches exp before the highest logit is subtracted."""
    bias = np.array([1000.0, 0.0, -1000.0])
    nats_N, _, saved = head.forward(np.zeros((2, 1)), np.zeros((3, 1)), bias, np.array([0, 2]))
    assert nats_N.tolist() == [0, 2000]
    np.testing.assert_array_equal(saved.probabilities_NV, [[1, 0, 0], [1, 0, 0]])


def test_no_target_at_all_is_no_loss_and_no_gradient():
    """Catches a maximum or a mean of no targets, in a part of a batch that has only padding."""
    nats_N, correct_N, saved = head.forward(np.zeros((0, 2)), np.ones((3, 2)), np.ones(3), np.zeros(0, np.int64))
    assert len(nats_N) == len(correct_N) == 0
    assert not any(gradient.any() for gradient in head.backward(saved))
