"""Baselines without context, compared with values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from charloom.data.batches import StreamBatches
from charloom.data.ids import Ids
from charloom.evaluation.baselines import guesses, pairs_nats


def test_guesses_are_entropies_of_what_is_predicted():
    """Catches bits for nats, a token that never occurs but counts as one that does, and a text that is read too far."""
    ids = Ids.of(np.array([3, *[0, 1, 0, 0] * 16, *[2] * 64], np.uint8))
    found = guesses(StreamBatches(ids, 1, 8), 5, most=64)
    assert found.uniform == pytest.approx(math.log(5))
    assert found.frequency == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


def test_pairs_are_counted_from_training_and_judged_on_validation():
    """Catches counts of the validation split, exchanged rows and columns, and a base other than e."""
    train, judged = Ids.of(np.array([0, 1, 0, 1, 0, 2], np.uint8)), Ids.of(np.array([0, 1, 2], np.uint8))
    # after 0: 1 twice, 2 once, and one more of each of three; after 1: 0 twice
    expected = -(math.log(3 / 6) + math.log(1 / 5)) / 2
    assert pairs_nats(train, judged, 3) == pytest.approx(expected)
