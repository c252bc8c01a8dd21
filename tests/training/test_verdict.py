"""The verdict at the end of a run."""

from __future__ import annotations

import pytest

from charloom.training.curve import Curve
from charloom.training.verdict import Guesses, Outcome, verdict

GUESSES = Guesses(uniform=4.0, frequency=3.3)


def course(*nats, training=None):
    """A curve with a validation at every tenth step; by default the training loss falls evenly."""
    training = training or [3.0 - number / 9 for number in range(len(nats))]
    return Curve(range(10, 10 * len(nats) + 1, 10), nats, training)


def said(curve, seen, unseen, read=4.0):
    return verdict(Outcome(curve, seen, unseen, "char", read, GUESSES))


FALLING = course(2.0, 1.8, 1.7)


@pytest.mark.parametrize(
    ("curve", "seen", "unseen", "read", "word", "advice"),
    [
        (FALLING, 1.65, 1.7, 4, "under-fitted: ", "More minutes, together with a larger"),
        (FALLING, 1.65, 1.7, 0.5, "under-fitted: ", "or a smaller `hidden`"),
        (FALLING, 1.65, 1.7, 20, "under-fitted; the network is small", "A larger `hidden`"),
        (FALLING, 1.45, 1.7, 4, "well fitted: ", "More minutes"),
        (FALLING, 1.45, 1.7, 0.5, "well fitted: ", "More minutes"),
        (FALLING, 1.45, 1.7, 20, "well fitted; the network is small", "A larger `hidden`"),
        (FALLING, 0.9, 1.7, 20, "fitted as well as this text allows", "leave both out"),
        (
            course(2.0, 1.5, 1.6),
            0.9,
            1.5,
            20,
            "over-fitted: validation was best at step 20 of 30",
            "More text",
        ),
        (course(1.7), 1.7, 1.7, 4, "under-fitted", "More minutes"),
        (course(0.0, 0.0), 0.0, 0.0, 20, "nothing is left to learn", ""),
        (course(0.0002, 0.0003), 0.0002, 0.0002, 20, "nothing is left to learn", ""),
    ],
    ids=["little", "large", "small", "well", "well-large", "well-small", "all", "too-much", "once", "one", "foreseen"],
)
def test_the_verdict(curve, seen, unseen, read, word, advice):
    """Catches advice to train longer for a model that memorised its text, or to use more text for an
    under-fitted one.
    """
    words = said(curve, seen, unseen, read)
    assert words.startswith(word)
    assert advice in words
    assert f"{seen:.3f} nats/char" in words
    assert f"{unseen:.3f} on" in words


def test_noise_is_no_over_fitting():
    """Catches a last validation just above the best that counts as over-fitting."""
    assert not said(course(2.0, 1.7, 1.705), 1.5, 1.7).startswith("over-fitted")


@pytest.mark.parametrize(
    ("curve", "seen", "words"),
    [
        (
            course(70.0, 50.0, 3.0, training=[59.4, 60.2, 3.2]),
            2.9,
            "diverged: training loss rose to 60.2 nats/char, a uniform guess gives 4.000 (2.900 nats/char on",
        ),
        (course(3.8, 3e10, 2e12, training=[3.9, 3e10, 1e12]), 3.6, "diverged: training loss rose to 1e+12 nats/char"),
        (
            course(2.5, 2.0, 3.1, training=[2.6, 2.1, 3.2]),
            1.9,
            "diverged: training loss rose from 2.100 to 3.200 nats/char after step 20",
        ),
    ],
    ids=["came-back", "never-came-back", "late"],
)
def test_a_training_loss_that_rose(curve, seen, words):
    """Catches a verdict of over-fitting (`50997761420% worse`) for a learning rate of 1,000."""
    found = said(curve, seen, 3.0)
    assert found.startswith(words)
    assert found.endswith("A smaller `lr` would help most")
    assert "%" not in found


def test_no_better_than_frequencies():
    """Catches advice for a larger network if the learning rate is too high or too low."""
    flat = course(3.3, 3.2, 3.18, 3.18, training=[3.74, 3.22, 3.2, 3.23])
    found = said(flat, 3.2, 3.18, read=20)
    assert found.startswith("stalled: 3.200 nats/char on the training text, 3.180 on the validation text; the")
    assert found.endswith(
        "a guess by the frequencies of the characters alone, has 3.300. A smaller `lr` would help most"
    )
    slow = course(4.15, 4.1, 4.06, 4.03, training=[4.17, 4.12, 4.07, 4.05])
    found = said(slow, 4.03, 4.03, read=20)
    assert found.startswith("under-fitted: ")
    assert found.endswith("More minutes would help most, or a larger `lr`")
    assert said(course(3.8), 3.8, 3.8).endswith("or a larger `lr`")


@pytest.mark.parametrize(
    ("training", "seen", "useless"),
    [([70.0, 14.0], 14.2, True), ([70.0, 3.2], 2.9, False), ([3.9, 3.8], 3.8, False), ([9.0, 4.2], 4.0, False)],
    ids=["nothing-left", "came-back", "hardly-begun", "fine-tuned"],
)
def test_what_is_left_of_a_run_that_diverged(training, seen, useless):
    """Catches a run of two steps that fails, and a useless model without an error."""
    assert Outcome(course(5.0, 4.0, training=training), seen, 4.0, "char", 1.0, GUESSES).useless == useless
