"""Dropout's masks."""

from __future__ import annotations

import numpy as np
import pytest

from charloom.engines.bptt import dropout


def test_a_mask_drops_the_share_and_keeps_the_mean():
    """The share kept instead of dropped, or what is kept not scaled up: both change the mean or the count."""
    mask = dropout.draw(dropout.generator(1, 2), (400, 500), 0.3, np.float64)
    assert set(np.unique(mask)) == {0.0, 2**16 / round(0.7 * 2**16)}
    assert (mask == 0).mean() == pytest.approx(0.3, abs=0.005)  # standard error 0.001
    assert mask.mean() == pytest.approx(1, abs=0.01)


def test_masks_are_a_matter_of_seed_and_step():
    """A generator that goes on from step to step: a resumed run would draw other masks."""
    masks = {
        (seed, step): dropout.draw(dropout.generator(seed, step), (8, 8), 0.5, np.float32).tobytes()
        for seed in (0, 1)
        for step in (0, 1)
    }
    assert len(set(masks.values())) == 4
    assert masks[1, 1] == dropout.draw(dropout.generator(1, 1), (8, 8), 0.5, np.float32).tobytes()


def test_float32_stays_float32_and_no_mask_drops_nothing(random):
    x = random(3, 4).astype(np.float32)
    mask = dropout.draw(dropout.generator(0, 0), (3, 4), 0.5, np.float32)
    assert dropout.forward(x, mask).dtype == dropout.backward(x, mask).dtype == np.float32
    assert dropout.forward(x, None) is x
