"""A random permutation of any size: each value once, in an order like chance."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from charloom.data.shuffle import shuffled


def test_shuffled_is_a_permutation_of_every_size():
    """Catches a value that is given twice or never, at and near every power of two."""
    for size in range(1, 301):
        assert np.bincount(shuffled(np.arange(size), size, 7, size), minlength=size).tolist() == [1] * size


@given(st.integers(1, 2**62), st.integers(0, 2**63 - 1), st.integers(0, 1000), st.data())
def test_shuffled_at_any_size(size: int, seed: int, epoch: int, data: st.DataObject):
    """Catches an overflow: values outside the range, or two that are equal."""
    chosen = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=50)))
    places = shuffled(np.array(chosen), size, seed, epoch)
    assert places.dtype == np.int64
    assert len({*places.tolist()}) == len(chosen)
    assert ((places >= 0) & (places < size)).all()


def test_shuffled_over_a_trillion():
    """Catches values that are not spread evenly for a large text."""
    size = 2**40
    places = shuffled(np.arange(100_000), size, 3, 0)
    assert len(np.unique(places)) == 100_000
    assert places.min() >= 0
    assert places.max() < size
    parts = np.bincount(places * 100 // size, minlength=100)
    assert abs(parts - 1000).max() < 200  # 6 standard deviations
    after = np.diff(places)
    assert 0.45 < (after > 0).mean() < 0.55


def test_shuffled_looks_like_chance():
    """Catches rounds that mix too little: fixed points and neighbours are as rare as in a random order."""
    fixed = neighbours = 0
    for epoch in range(200):
        order = shuffled(np.arange(100), 100, 0, epoch)
        fixed += int((order == np.arange(100)).sum())
        neighbours += int((np.diff(order) == 1).sum())
    assert 140 < fixed < 260  # 200 ± 14
    assert 140 < neighbours < 260


def test_without_a_seed_nothing_moves():
    """Catches a permutation without a seed."""
    assert shuffled(np.arange(9), 9, None, 5).tolist() == [*range(9)]
