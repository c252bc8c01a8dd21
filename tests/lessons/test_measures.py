"""What lessons measure, against what can be counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from charloom.data.ids import Ids
from charloom.lessons.measures import Loop, longest_copy, loop_at_end, pairs_nats


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so it went: " + "and the " * 10, Loop(11, 8)),
        ("x" * 30, Loop(0, 1)),
        ("abc" * 6, None),  # 18 characters: too short to call it one
        ("abcdefghijklmno" * 2, Loop(0, 15)),
        ("the cat and the dog and the bird flew away from here", None),
        ("a loop a loop a loop a loop that ends in other words", None),
        ("", None),
    ],
)
def test_a_loop_at_the_end(text, found):
    """A loop in the midst, a period twice as long as it is, a start one too late."""
    assert loop_at_end(text) == found


def test_the_longest_copy():
    """A copy cut off at its last character, or the first one instead of the longest."""
    text = "down the rabbit hole she fell"
    assert longest_copy("the hole, the rabbit hole she saw", text) == " the rabbit hole she "
    assert longest_copy("fell", text) == "fell"
    assert longest_copy("xyz", text) == ""


def test_pairs_are_counted_from_training_and_judged_on_validation():
    """Counts of the judged text, rows and columns confused, or a base other than e."""
    train, judged = Ids.of(np.array([0, 1, 0, 1, 0, 2], np.uint8)), Ids.of(np.array([0, 1, 2], np.uint8))
    # after 0: 1 twice, 2 once, and one more of each of three; after 1: 0 twice
    expected = -(math.log(3 / 6) + math.log(1 / 5)) / 2
    assert pairs_nats(train, judged, 3) == pytest.approx(expected)
