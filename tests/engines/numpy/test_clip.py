"""The mean gradient, and clipping it."""

from __future__ import annotations

import numpy as np
import pytest

from charloom.engines.numpy import clip


def mean(sums, count=1, by_value=None, by_norm=None):
    arrays = [np.array(array) for array in sums]
    clip.to_mean(arrays, count, by_value, by_norm)
    return np.concatenate([array.ravel() for array in arrays]).tolist()


def test_sums_become_means():
    """Catches: sums left as they are where nothing is clipped."""
    assert mean([[6.0], [-3.0]], count=3) == [2, -1]


def test_by_norm_shortens_all_as_one_vector():
    """Catches: each array clipped to the norm by itself; a norm of the sums; a short gradient made longer."""
    assert mean([[[30.0, 0.0]], [-40.0]], 10, by_norm=0.5) == pytest.approx([0.3, 0, -0.4], rel=1e-6)
    assert mean([[[3.0, 0.0]], [-4.0]], 10, by_norm=1.0) == pytest.approx([0.3, 0, -0.4], rel=1e-15)


def test_by_value_stops_each_number():
    """Catches: one sign forgotten, all numbers scaled, sums clipped in place of means."""
    assert mean([[-6.0, 1.0, 4.0]], 2, by_value=1.0) == [-1.0, 0.5, 1.0]


def test_the_norm_is_taken_of_what_was_clipped_by_value():
    """Catches: the norm of what is clipped away."""
    assert mean([[-60.0, 80.0]], 2, by_value=4.0, by_norm=2.0) == pytest.approx([-2 / 2**0.5, 2 / 2**0.5], rel=1e-6)


def test_a_gradient_that_is_no_number_is_not_hidden():
    """Catches NaN gradients that pass: no comparison with NaN is true."""
    assert np.isnan(mean([[np.nan], [1.0]], by_norm=1.0)).all()
