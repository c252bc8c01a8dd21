"""The figures that a lesson takes from its runs."""

from __future__ import annotations

import pytest

from charloom.lessons.lesson import LessonRun
from charloom.training.events import Finished


def test_the_speed_of_a_run_that_ended_within_a_second():
    """Catches a division by zero on a fast machine, for a run without a `Step` event."""
    finished = Finished("run", 10, 1, 0.5, 10, None, None, None, predictions=300)
    assert LessonRun(finished, events=[]).predictions_per_second == pytest.approx(600)
