"""Sequence to sequence on one small book: what over-fitting looks like, and why good greedy text proves nothing.

Three layers of 700 units have eighty parameters for every character of the book. After a dozen epochs they memorise it.
The training loss and the validation loss together show when learning ends and memorising begins.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import charloom
from charloom.lessons.lesson import Lesson, LessonRun
from charloom.lessons.measures import longest_copy
from charloom.training.events import Validation

EPOCHS = 20  # epochs of the lesson; memorising begins far earlier
QUICK: dict[str, Any] = {"layers": 1, "hidden": 256, "lr": 0.01, "epochs": 40}
QUICK_LENGTH = 12_000  # characters of the text
GENERATED = 1_000  # characters that are searched in the text


def teach(lesson: Lesson) -> bool:
    """Trains, prints both losses and 20 characters of greedy text for each epoch, and searches the text for copies."""
    lesson.check_validation()
    changes: dict[str, Any] = QUICK if lesson.quick else {"epochs": EPOCHS}
    lesson.say(
        f"Sequence to sequence: {lesson.described(**changes)}, chunks of 100 characters, a softmax at every step."
    )
    run = lesson.train("chunks", lesson.shortened(QUICK_LENGTH), **changes)
    lesson.say("\nepoch   training   validation   20 greedy characters")
    for row in run.validations:
        lesson.say(
            f"{row.epoch + 1:>5} {row.train_nats:>10.4f} {row.validation_nats:>12.4f}   {run.samples[row.step]!r}"
        )
    best = min(run.validations, key=lambda row: row.validation_nats or math.inf)
    last = run.validations[-1]
    proven = best.step < last.step and (last.train_nats or math.inf) < (best.train_nats or math.inf)
    lesson.say("\n" + (_over_fitting(best, last) if proven else "No over-fitting yet: give it more epochs."))
    copied = _copied(run)
    lesson.say(f"The last weights generated {len(copied)} characters of the training text word for word: {copied!r}")
    found = f"best validation {best.validation_nats:.4f} nats/char in epoch {best.epoch + 1} of {last.epoch + 1}"
    return lesson.verdict(proven, f"{found}; those weights are in best/")


def _over_fitting(best: Validation, last: Validation) -> str:
    return (
        f"Over-fitting began after epoch {best.epoch + 1}: from there the training loss fell from "
        f"{best.train_nats:.4f} to {last.train_nats:.4f}, and the validation loss rose from "
        f"{best.validation_nats:.4f} to {last.validation_nats:.4f} nats/char."
    )


def _copied(run: LessonRun) -> str:
    """The longest passage of the training text in greedy text of the last weights, after the first 20 characters."""
    trained = run.dataset.vocabulary.decode(run.dataset.ids("train").view())
    last = charloom.load(Path(run.finished.run) / "last")
    return longest_copy(last.generate(trained[:20], GENERATED, greedy=True), trained)
