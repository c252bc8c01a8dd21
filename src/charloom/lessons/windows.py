"""Many to one over sliding windows, and why this method is too slow today.

Each window gives one prediction, and every character is read once for each window that it is in. With windows of 100
characters, this is a hundred times the work of parallel streams, which predict after every character.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from charloom.lessons.lesson import Lesson, LessonRun
from charloom.lessons.measures import loop_at_end

ENOUGH = 300  # seconds for the better methods; the windows took hours
WINDOW = 100  # characters that are read before a prediction
LENGTH = 400  # characters to generate, as in the lesson
TEMPERATURE = 0.8
STREAMS = 32  # parallel streams: with 128, a small book would have too few steps
QUICK: dict[str, Any] = {"hidden": 64, "seq_length": 40, "lr": 0.01, "epochs": 2}
QUICK_LENGTH = 25_000  # characters of the text


def teach(lesson: Lesson) -> bool:
    """Trains on windows, generates from one window, then trains on streams and on sentences for the same time."""
    lesson.check_validation()
    changes = QUICK if lesson.quick else {}
    lesson.say(f"Sliding windows: {lesson.described(**changes)}; each window predicts the one character after it.")
    text = lesson.shortened(QUICK_LENGTH)
    windows = lesson.train("windows", text, always={"batches": "windows"}, **changes)
    greedy, sampled = _generate_from_a_window(lesson, windows, int(lesson.values.get("seed", 0)))
    took = windows.finished.seconds
    seconds = min(took, ENOUGH)
    sentences, streams = _for_seconds(lesson, text, seconds)
    lesson.say(f"\nThe same network with other batches, in {seconds:.0f} s; the windows took {took:.0f} s:")
    for name, run in (("windows", windows), ("sentences, padded", sentences), ("streams", streams)):
        lesson.say(f"   {name:<18} {run.predictions_per_second:>9,.0f} predictions/s   validation {_loss(run)}")
    lesson.say(f"\nThe greedy text: {_looped(greedy)}. Sampled at temperature {TEMPERATURE}: {_looped(sampled)}.")
    ratio = streams.predictions_per_second / windows.predictions_per_second
    lesson.say(
        "(Each loss is of the run's own batches: the last character of a window; all of a sentence; all of a stream.)"
    )
    then = _best_within(windows, seconds)
    found = f"streams learn {ratio:.0f} times the predictions/s; in {seconds:.0f} s they reach {_loss(streams)}"
    found += f", windows {then:.4f}" + (f" (after {took:.0f} s: {windows.nats:.4f})" if took > seconds else "")
    return lesson.verdict(streams.nats < then and ratio > 1, found)


def _for_seconds(lesson: Lesson, text: Sequence[str], seconds: float) -> tuple[LessonRun, LessonRun]:
    """Trains the same network for `seconds` on sentences, padded to the longest in the batch, and on streams."""
    changes = {name: value for name, value in QUICK.items() if name != "epochs"} if lesson.quick else {}
    always: dict[str, Any] = {"minutes": seconds / 60, "loss": "every", "best_by": "validation"}
    always |= {"keep": None, "validate_every": None}
    by_sentence, by_stream = (
        {"batches": "records", "records": "sentence", "keep_order": True},
        {"batches": "streams", "state": "carry"},
    )
    sentences = lesson.train("sentences", text, always={**always, **by_sentence}, **changes)
    return sentences, lesson.train("streams", text, always={**always, **by_stream}, **changes, batch_size=STREAMS)


def _best_within(run: LessonRun, seconds: float) -> float:
    """The lowest validation loss within the first `seconds`, nats/char; infinity if there was no validation yet."""
    rows = (row.validation_nats for row in run.validations if row.seconds <= seconds)
    return min((nats for nats in rows if nats is not None), default=math.inf)


def _loss(run: LessonRun) -> str:
    return f"{run.nats:.4f} nats/char"


def _looped(text: str) -> str:
    loop = loop_at_end(text)
    return "no loop" if loop is None else f"a loop of {loop.period} from character {loop.start} on"


def _generate_from_a_window(lesson: Lesson, run: LessonRun, seed: int) -> tuple[str, str]:
    """Prints a random window of the text; returns the greedy text and a sampled text that follow it."""
    model = run.model
    text = model.tokenizer.clean(lesson.text())
    width = min(WINDOW, len(text) // 2)
    start = int(np.random.default_rng(seed).integers(len(text) - width))
    window = text[start : start + width]
    greedy = model.generate(window, LENGTH, greedy=True, unknown="skip")
    sampled = model.generate(window, LENGTH, temperature=TEMPERATURE, seed=seed, unknown="skip")
    lesson.say(f"\nseed: {window!r}\ngreedy: {greedy!r}\nsampled at temperature {TEMPERATURE}: {sampled!r}")
    return greedy, sampled
