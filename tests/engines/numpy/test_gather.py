"""Rows of a table by index, and their gradients."""

from __future__ import annotations

import numpy as np

from charloom.engines.numpy import gather


def test_rows_are_what_a_one_hot_product_gives(random):
    """Catches a row at a wrong index, and ids that are read in another axis order."""
    table, ids = random(5, 4), np.array([[0, 4, 4], [2, 1, 4]])
    np.testing.assert_array_equal(gather.forward(table, ids), np.eye(5)[ids] @ table)


def test_the_way_back_adds_up_every_place(random):
    """Catches a scatter that overwrites: only the last position of a repeated token would learn."""
    ids, d_rows = np.array([[0, 4, 4], [2, 0, 4]]), random(2, 3, 4)
    expected = np.eye(5)[ids].reshape(-1, 5).T @ d_rows.reshape(-1, 4)
    found = gather.backward(d_rows, ids, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert not found[[1, 3]].any()  # tokens without a position


def test_float32_stays_float32(random):
    ids = np.array([[1, 0]])
    assert gather.backward(random(1, 2, 3).astype(np.float32), ids, 2).dtype == np.float32
