"""Clipping the gradient."""

from __future__ import annotations

import numpy as np
import pytest

from charloom.engines.numpy import clip


def test_by_norm_shortens_all_as_one_vector():
    """Each array clipped to the norm by itself; a short gradient made longer."""
    gradients = [np.array([[3.0, 0.0]]), np.array([-4.0])]
    assert clip.by_norm(gradients, 0.5) == 5.0
    np.testing.assert_allclose(np.concatenate([g.ravel() for g in gradients]), [0.3, 0, -0.4], rtol=1e-6)
    kept = [g.copy() for g in gradients]
    assert clip.by_norm(gradients, 1.0) == pytest.approx(0.5, rel=1e-6)
    for gradient, before in zip(gradients, kept, strict=True):
        np.testing.assert_array_equal(gradient, before)


def test_by_value_stops_each_number():
    """One sign forgotten, or all numbers scaled."""
    gradient = np.array([-3.0, 0.5, 2.0])
    clip.by_value([gradient], 1.0)
    assert gradient.tolist() == [-1.0, 0.5, 1.0]


def test_a_gradient_that_is_no_number_is_not_hidden():
    """NaN is not above any limit: a norm that compares the other way round would let the rest through."""
    gradients = [np.array([np.nan]), np.array([1.0])]
    clip.by_norm(gradients, 1.0)
    assert np.isnan(gradients[1]).all()
