"""What is said of a run at its end."""

from __future__ import annotations

import pytest

from charloom.training.verdict import Curve, verdict

FALLING = Curve([10, 20, 30], [2.0, 1.8, 1.7])


@pytest.mark.parametrize(
    ("curve", "seen", "unseen", "read", "word", "advice"),
    [
        (FALLING, 1.65, 1.7, 4, "under-fitted: ", "More minutes would help most, and with them a larger"),
        (FALLING, 1.65, 1.7, 0.5, "under-fitted: ", "or a smaller network"),
        (FALLING, 1.65, 1.7, 20, "under-fitted, for a network so small", "A larger one"),
        (FALLING, 1.45, 1.7, 4, "well fitted: ", "More minutes"),
        (FALLING, 1.45, 1.7, 0.5, "well fitted: ", "More minutes"),
        (FALLING, 1.45, 1.7, 20, "well fitted, for a network so small", "A larger one"),
        (FALLING, 0.9, 1.7, 20, "fitted as far as this text goes", "More text"),
        (
            Curve([10, 20, 30], [2.0, 1.5, 1.6]),
            0.9,
            1.5,
            20,
            "over-fitted: validation was best at step 20 of 30",
            "More text",
        ),
        (Curve([10], [1.7]), 1.7, 1.7, 4, "under-fitted", "More minutes"),
        (Curve([10, 20], [0.0, 0.0]), 0.0, 0.0, 20, "nothing is left to learn", ""),
        (Curve([10, 20], [0.0002, 0.0003]), 0.0002, 0.0002, 20, "nothing is left to learn", ""),
    ],
    ids=["little", "large", "small", "well", "well-large", "well-small", "all", "too-much", "once", "one", "foreseen"],
)
def test_the_verdict(curve, seen, unseen, read, word, advice):
    """More minutes for a model that knows its text by heart; more text for one that has hardly read it."""
    said = verdict(curve, seen, unseen, "char", read)
    assert said.startswith(word)
    assert advice in said
    assert f"{seen:.3f} nats/char" in said
    assert f"{unseen:.3f} on" in said


def test_noise_is_no_over_fitting():
    """A last validation that is a hair above the best."""
    assert not verdict(Curve([1, 2, 3], [2.0, 1.7, 1.705]), 1.5, 1.7, "char", 4).startswith("over-fitted")
