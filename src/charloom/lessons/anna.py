"""The PyTorch lesson on Anna Karenina, with its published loss, compared with our own preset."""

from __future__ import annotations

import math
from typing import Any

from charloom.lessons.lesson import Lesson, LessonRun

PUBLISHED = 1.2917  # nats/char: the best validation loss in the lesson's saved output, 20 epochs
QUARTER = 0.25  # the largest part of the lesson's time that our own preset may take
QUICK_STEPS = 300  # steps of both runs, so that the verdict is the same on every machine
QUICK: dict[str, Any] = {"hidden": 128, "lr": 0.005, "batch_size": 16, "steps": QUICK_STEPS}
QUICK_LENGTH = 250_000  # characters of the text
LENGTH = 1_000  # characters to generate, as in the lesson
PROMPT, QUICK_PROMPT = "Anna ", "The "


def teach(lesson: Lesson) -> bool:
    """Trains as published, then with our preset; generates with top-k 5 and 10; compares losses and times."""
    changes: dict[str, Any] = QUICK if lesson.quick else {}
    lesson.check_validation()
    lesson.say(f"The PyTorch lesson: {lesson.described(**changes)}, one-hot, dropout, Adam; then our preset `novel`.")
    paths, prompt = lesson.shortened(QUICK_LENGTH), QUICK_PROMPT if lesson.quick else PROMPT
    published = lesson.train("published", paths, **changes)
    target = _best(published)
    smaller: dict[str, Any] = {"hidden": 128, "batch_size": 16, "steps": QUICK_STEPS} if lesson.quick else {}
    ours = lesson.train("novel", paths, "novel", **smaller)
    for top_k in (5, 10):
        text = published.model.generate(prompt, LENGTH, top_k=top_k, temperature=1.0, seed=top_k, unknown="skip")
        lesson.say(
            f"\nWhat it generates after {prompt!r}, from the {top_k} most probable characters:\n\n{prompt}{text}"
        )
    reached = _seconds_to(ours, target)
    share = reached / published.finished.seconds
    lesson.say(f"\n{'':<11} {'best validation':>16} {'whole split':>12} {'time':>9}")
    for name, run in (("published", published), ("novel", ours)):
        lesson.say(f"{name:<11} {_best(run):>16.4f} {run.nats:>12.4f} {run.finished.seconds:>7.0f} s")
    when = f"reached {target:.4f} after {reached:.0f} s, {share:.0%} of the time" if share < math.inf else "never did"
    if lesson.quick:
        return lesson.verdict(_best(ours) < target, f"novel: {_best(ours):.4f}, the lesson's: {target:.4f} nats/char")
    found = f"best validation {target:.4f} nats/char, published {PUBLISHED}; novel {when}"
    return lesson.verdict(target <= PUBLISHED and share <= QUARTER, found)


def _best(run: LessonRun) -> float:
    """The lowest validation loss of the run, nats/char."""
    return min(row.validation_nats for row in run.validations if row.validation_nats is not None)


def _seconds_to(run: LessonRun, nats: float) -> float:
    """Seconds until the validation loss first was as low as this; infinity if it never was."""
    times = (row.seconds for row in run.validations if (row.validation_nats or math.inf) <= nats)
    return next(times, math.inf)
