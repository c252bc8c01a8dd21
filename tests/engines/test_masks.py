"""Dropout's masks."""

from __future__ import annotations

import numpy as np
import pytest

from charloom.engines import masks
from charloom.engines.numpy import dropout


def test_a_mask_drops_the_share_and_keeps_the_mean():
    """Catches the kept share in place of the dropped one, and kept values that are not scaled."""
    mask = masks.dropout_levels(masks.dropout_stream(1, 2), (400, 500), 0.3).mask(np.float64)
    assert set(np.unique(mask)) == {0.0, 256 / 179}
    assert (mask == 0).mean() == pytest.approx(77 / 256, abs=0.005)  # standard error 0.001
    assert mask.mean() == pytest.approx(1, abs=0.01)


def test_masks_are_a_matter_of_seed_and_step():
    """Catches a generator that continues from step to step: a resumed run would have other masks."""
    found = {
        (seed, step): masks.dropout_levels(masks.dropout_stream(seed, step), (8, 8), 0.5).mask().tobytes()
        for seed in (0, 1)
        for step in (0, 1)
    }
    assert len(set(found.values())) == 4
    assert found[1, 1] == masks.dropout_levels(masks.dropout_stream(1, 1), (8, 8), 0.5).mask().tobytes()


def test_float32_stays_float32_and_no_mask_drops_nothing():
    """Catches a float64 mask, which doubles the time of all that follows."""
    x = np.ones((3, 4), np.float32)
    mask = masks.dropout_levels(masks.dropout_stream(0, 0), (3, 4), 0.5).mask()
    assert dropout.forward(x, mask).dtype == dropout.backward(x, mask).dtype == np.float32
    assert dropout.forward(x, None) is x


def test_shares_at_the_edge():
    """Catches a share that rounds to 0, or to 1, which leaves no unit to scale."""
    assert (masks.dropout_levels(masks.dropout_stream(0, 0), (100, 100), 0.001).mask() == 1).all()
    mask = masks.dropout_levels(masks.dropout_stream(0, 0), (1000, 100), 0.999).mask()
    assert mask.max() == 256
    assert mask.mean() == pytest.approx(1, abs=0.2)
