"""The measures of lessons, compared with values counted by hand."""

from __future__ import annotations

import pytest

from charloom.lessons.measures import Loop, longest_copy, loop_at_end


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so it went: " + "and the " * 10, Loop(11, 8)),
        ("x" * 30, Loop(0, 1)),
        ("abc" * 6, None),  # 18 characters: too short for a loop
        ("abcdefghijklmno" * 2, Loop(0, 15)),
        ("the cat and the dog and the bird flew away from here", None),
        ("a loop a loop a loop a loop that ends in other words", None),
        ("", None),
    ],
)
def test_a_loop_at_the_end(text, found):
    """Catches a loop in the middle, a period twice as long as the real one, and a start one character late."""
    assert loop_at_end(text) == found


def test_the_longest_copy():
    """Catches a copy without its last character, and the first copy instead of the longest."""
    text = "down the rabbit hole she fell"
    assert longest_copy("the hole, the rabbit hole she saw", text) == " the rabbit hole she "
    assert longest_copy("fell", text) == "fell"
    assert longest_copy("xyz", text) == ""
