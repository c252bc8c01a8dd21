"""The alphabet, one letter at a time: what a carried state is, and what fails without one.

The network reads one letter at each step, and gradients reach back over this step only. So it can know the earlier
letters only from the state that is carried from step to step.
"""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_uppercase as ALPHABET

from charloom.errors import SettingsError
from charloom.lessons.lesson import Lesson
from charloom.model import Model

WINDOW = 3  # letters in a window, for the comparison without carried state
FIRST = "K"  # first letter of the third proof
STEPS = 5  # letters that the model generates after it


def teach(lesson: Lesson) -> bool:
    """Trains on the alphabet. Shows the accuracy, the generated alphabet, and the effect of the carried state."""
    if lesson.paths:
        raise SettingsError(f"`paths` must be left out, because this lesson has its own text; got {lesson.paths[0]}")
    lesson.say(f"The alphabet, one letter at a time: {lesson.described()}, carried state, batches of one letter.")
    text = lesson.write_text(ALPHABET)
    model = lesson.train("carried", [text]).model
    score = model.score(ALPHABET)
    generated = "A" + _next(model, "A", len(ALPHABET) - 1)
    before = ALPHABET[: ALPHABET.index(FIRST)]
    from_zero, carried = _next(model, FIRST, STEPS), _next(model, before + FIRST, STEPS)
    lesson.say(f"\n1. Accuracy over the sequence, the state carried: {score.correct} of {score.characters}")
    lesson.say(f"2. From A, each prediction fed back:  {generated}")
    lesson.say("3. The same letter, from two states:")
    lesson.say(f"     from the zero state:     {FIRST} → {' '.join(from_zero)}")
    lesson.say(f"     after it has read {before[0]}…{before[-1]}:   {FIRST} → {' '.join(carried)}")
    lesson.say("   The prediction depends on the state. After the zero state, any letter counts as the first one.")
    _contrast(lesson, text)
    right = ALPHABET[len(before) + 1 :][:STEPS]
    proven = score.correct == score.characters and generated == ALPHABET and carried == right
    return lesson.verdict(
        proven, f"{score.accuracy:.0%} accuracy; from A: {generated}; with carried state {carried} follows {FIRST}"
    )


def _contrast(lesson: Lesson, text: str) -> None:
    """The same network, trained without carried state: each prediction starts from the zero state."""
    single = lesson.train("reset", [text], always={"state": "reset"}).model
    window = lesson.train("window", [text], always={"batches": "windows", "seq_length": WINDOW}).model
    lesson.say("\nThe same network without carried state:")
    _contrast_line(lesson, "state reset after every letter", single, 1)
    _contrast_line(lesson, f"windows of {WINDOW} letters, each from the zero state", window, WINDOW)


def _contrast_line(lesson: Lesson, name: str, model: Model, width: int) -> None:
    count, right = _windows_right(lambda seen: _next(model, seen, 1), width)
    generated = ALPHABET[:width]
    while len(generated) < len(ALPHABET):
        generated += _next(model, generated[-width:], 1)
    lesson.say(f"   {name}: {right} of {count} right; from {ALPHABET[:width]}, fed back: {generated}")


def _windows_right(predict: Callable[[str], str], width: int) -> tuple[int, int]:
    """(number of windows, number of windows after which the next letter is right)."""
    starts = range(len(ALPHABET) - width)
    return len(starts), sum(predict(ALPHABET[n : n + width]) == ALPHABET[n + width] for n in starts)


def _next(model: Model, seen: str, count: int) -> str:
    """The most probable letters after `seen`, which is read from the zero state."""
    return model.generate(seen, count, greedy=True)
