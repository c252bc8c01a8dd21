"""The progress of a run, and the learning rate during it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.config import TrainingSettings
from charloom.training.budget import FLOOR, Progress, fraction, learning_rate


def settings(**values):
    return TrainingSettings(**{"steps": 100, "lr": 1.0, "warmup": 0.1, **values})


@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        ({"steps": 100}, 0.3),
        ({"minutes": 2.0}, 0.5),
        ({"epochs": 4}, (1 + 5 / 20) / 4),
        ({"steps": 100, "minutes": 2.0}, 0.5),
        ({"steps": 40, "minutes": 2.0, "epochs": 4}, 0.75),
    ],
)
def test_the_budget_that_ends_first_counts(budgets, expected):
    """Catches minutes taken for seconds, a missing part of an epoch, and the smallest part in place of the largest."""
    progress = Progress(step=30, epoch=1, index=5, seconds=60.0)
    assert fraction(TrainingSettings(**budgets), progress, batches=20) == pytest.approx(expected)


def test_warm_up_then_cosine():
    """Catches a shift by the warm-up: the rate is highest at its end, and half of it in the middle of the rest."""
    made = settings()
    assert learning_rate(made, 0.0) == pytest.approx(FLOOR)
    assert learning_rate(made, 0.05) == pytest.approx((1 + FLOOR) / 2)
    assert learning_rate(made, 0.1) == pytest.approx(1.0)
    assert learning_rate(made, 0.55) == pytest.approx((1 + FLOOR) / 2)
    assert learning_rate(made, 1.0) == pytest.approx(FLOOR)
    assert learning_rate(made, 1.5) == pytest.approx(FLOOR), "the last step of a budget in minutes ends beyond it"


def test_a_constant_schedule_only_warms_up():
    made = settings(schedule="constant")
    assert learning_rate(made, 0.05) == pytest.approx((1 + FLOOR) / 2)
    assert {learning_rate(made, spent) for spent in (0.1, 0.5, 1.0)} == {1.0}


@given(spent=st.floats(0, 2), warmup=st.floats(0, 0.999), schedule=st.sampled_from(["cosine", "constant"]))
def test_the_rate_is_never_nothing_nor_beyond_what_was_asked(spent, warmup, schedule):
    """Catches a division by a warm-up of 0 or 1, and a cosine that rises again."""
    rate = learning_rate(settings(warmup=warmup, schedule=schedule), spent)
    assert math.isfinite(rate)
    assert FLOOR * 0.999 <= rate <= 1.0 + 1e-12
