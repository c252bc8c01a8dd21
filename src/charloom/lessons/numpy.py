"""The LSTM without a library: backpropagation written by hand, and every gate for each letter of "CARS"."""

from __future__ import annotations

import math
from typing import Any

from charloom.evaluation.baselines import pairs_nats
from charloom.lessons.lesson import Lesson, LessonRun

QUICK: dict[str, Any] = {"steps": 4_000}
QUICK_LENGTH = 300_000  # characters of the text
SHOWN = 5  # losses and samples to show
WORD = "CARS"
# Four units are enough for four letters, and their values fit on a line.
TINY: dict[str, Any] = {"cell": "lstm", "layers": 1, "hidden": 4, "input": "onehot", "dropout": 0.0, "split": "1/0"}
TINY |= {"engine": "numpy", "batch_size": 1, "seq_length": 4, "steps": 400, "sample_length": 0}

# Names in a line of the lesson, and in a trace.
SHOWN_ARRAYS = {
    "i  input gate": "input_gate_TH",
    "f  forget gate": "forget_gate_TH",
    "o  output gate": "output_gate_TH",
    "g  candidate": "candidate_TH",
    "c  cell": "cell_TH",
    "h  hidden": "hidden_TH",
}


def teach(lesson: Lesson) -> bool:
    """Trains with backpropagation written by hand, prints losses and samples, then traces a word in a tiny LSTM."""
    lesson.check_validation()
    lesson.say(
        f"NumPy alone: {lesson.described()}, truncated backpropagation through 25 characters, Adagrad, one text."
    )
    run = lesson.train("numpy", lesson.shortened(QUICK_LENGTH), **(QUICK if lesson.quick else {}))
    rows = run.validations
    for row in [*rows[: -1 : max(1, len(rows) // SHOWN)], rows[-1]]:
        train = math.nan if row.train_nats is None else row.train_nats
        lesson.say(f"\nstep {row.step:,}: training {train:.4f}, validation {row.validation_nats:.4f} nats/char")
        lesson.say("\n".join(f"    {line}" for line in run.samples[row.step][:200].splitlines()))
    _walk(lesson)
    found, pairs = run.nats, _pairs(run)
    better = f"{found:.4f} nats/char on unseen text; a table of letter pairs needs {pairs:.4f}"
    return lesson.verdict(found < pairs, better)


def _pairs(run: LessonRun) -> float:
    """The loss of a table of character pairs on the same validation split."""
    dataset = run.dataset
    return pairs_nats(dataset.ids("train"), dataset.ids("validation"), dataset.vocabulary.size)


def _walk(lesson: Lesson) -> None:
    """Trains four units on the word, and prints every value of the trace for each letter."""
    model = lesson.train("cars", [lesson.write_text(WORD * 30, "cars.txt")], always=TINY).model
    units, characters = model.architecture.hidden, model.vocabulary.characters
    lesson.say(f"\n{WORD!r}, letter by letter, through an LSTM of {units} units that has learnt it:")
    trace = model.trace(WORD)
    layer = trace.layers[0]._asdict()
    for t, letter in enumerate(WORD):
        onehot = [int(token == letter) for token in characters]
        lesson.say(f"\nstep {t + 1}, {letter!r}: one-hot {onehot} over {' '.join(characters)}")
        lesson.say(_row("unit", [f"{n + 1}" for n in range(units)]))
        for name, array in SHOWN_ARRAYS.items():
            lesson.say(_row(name, [f"{value:+.3f}" for value in layer[array][t]]))
        chances = zip(characters, trace.probabilities_TV[t], strict=True)
        lesson.say("   next: " + "  ".join(f"{character} {p:.1%}" for character, p in chances))


def _row(name: str, cells: list[str]) -> str:
    return f"   {name:<15}" + "".join(f"{cell:>9}" for cell in cells)
