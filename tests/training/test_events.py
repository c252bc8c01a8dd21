"""Events as lines of text, for `report=print`."""

from __future__ import annotations

import pytest

from charloom.training.events import Notice, Planned, PlannedChoice, Sample, Step, Validation


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Notice("a file is empty"), "a file is empty"),
        (Sample(50, "To be\nor \ud800"), r"Sample: step 50, text 'To be\nor \ud800'"),
        (
            Step(1_234, 0, 1.23456, 0.002, 98_765.4, 61.25, None, 0.5),
            "Step: step 1,234, epoch 0, train_nats 1.235, learning_rate 0.002, tokens_per_second 98,765, "
            "seconds 61.25, fraction 0.5",
        ),
        (
            Validation(50, 1, None, 1.5, 0.25, True, 2.0),
            "Validation: step 50, epoch 1, validation_nats 1.5, accuracy 0.25, best True, seconds 2",
        ),
    ],
)
def test_an_event_is_one_line(event, line):
    """Catches an event that prints several lines, characters that cannot be printed, or fields without a value."""
    assert str(event) == line


def test_a_plan_is_a_table():
    """Catches a plan that prints as one long line, and a column that is not aligned."""
    choices = PlannedChoice("hidden", 1024, "fast enough"), PlannedChoice("lr", 0.01, "for 1024 units")
    assert str(Planned(1.0, 5_000, 40, 1, 0.0, 2.5, choices)).split("\n") == [
        "plan for 1 minute: 5,000 tokens in 1 record, 40 different; xz packs a sample into 2.50 bits/token",
        "  hidden        1024  fast enough",
        "  lr            0.01  for 1024 units",
    ]
