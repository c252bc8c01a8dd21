"""The LSTM without a library: training by hand-made backpropagation, and "CARS" walked through every gate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from charloom.cells import Floats
from charloom.checkpoint import load_model
from charloom.data.dataset import open_dataset
from charloom.engines.numpy.network import NumpyNetwork
from charloom.evaluation.baselines import pairs_nats
from charloom.lessons.lesson import Lesson, LessonRun
from charloom.model import Model

QUICK: dict[str, Any] = {"steps": 4_000}
QUICK_LENGTH = 300_000  # characters of the text
SHOWN = 5  # losses and samples
WORD = "CARS"
# Four units can be printed, and are enough for four letters.
TINY: dict[str, Any] = {"cell": "lstm", "layers": 1, "hidden": 4, "input": "onehot", "dropout": 0.0, "split": "1/0"}
TINY |= {"engine": "numpy", "batch_size": 1, "seq_length": 4, "steps": 400, "sample_length": 0}


def teach(lesson: Lesson) -> bool:
    """Trains by hand-made backpropagation, prints losses and samples, then walks a word through a tiny LSTM."""
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
    """What a table of pairs needs on the same validation split."""
    dataset = open_dataset(Path(run.finished.run) / "data")
    return pairs_nats(dataset.ids("train"), dataset.ids("validation"), dataset.vocabulary.size)


def _walk(lesson: Lesson) -> None:
    """Trains four units on the word, and prints every number that it makes of each letter."""
    run = lesson.train("cars", [lesson.write_text(WORD * 30, "cars.txt")], always=TINY)
    model, folder = run.model, load_model(run.finished.run)
    network = NumpyNetwork(folder.architecture, folder.parameters)
    ids_BT = model.vocabulary.encode(WORD)[None].astype(np.int64)
    done = network.forward(ids_BT, np.roll(ids_BT, -1, axis=1))
    cache = done.layers[0]
    lesson.say(
        f"\n{WORD!r}, letter by letter, through an LSTM of {model.architecture.hidden} units that has learnt it:"
    )
    for t, letter in enumerate(WORD):
        i_BH, f_BH, g_BH, o_BH = cache.gates_T4BH[t]
        onehot = [int(token == letter) for token in model.vocabulary.characters]
        lesson.say(f"\nstep {t + 1}, {letter!r}: one-hot {onehot} over {' '.join(model.vocabulary.characters)}")
        lesson.say(_row("unit", [f"{n + 1}" for n in range(i_BH.shape[1])]))
        named = {"i  input gate": i_BH, "f  forget gate": f_BH, "o  output gate": o_BH, "g  candidate": g_BH}
        named |= {"c  cell": cache.cell[t + 1], "h  hidden": cache.hidden[t + 1]}
        for name, values_BH in named.items():
            lesson.say(_row(name, [f"{value:+.3f}" for value in values_BH[0]]))
        lesson.say("   next: " + _distribution(model, cache.hidden[t + 1][0], network))


def _row(name: str, cells: list[str]) -> str:
    return f"   {name:<15}" + "".join(f"{cell:>9}" for cell in cells)


def _distribution(model: Model, h_H: Floats, network: NumpyNetwork) -> str:
    """The predicted probability of each character."""
    logits_V = network.parameters["head.weight"] @ h_H + network.parameters["head.bias"]
    p_V = np.exp(logits_V - logits_V.max())
    p_V /= p_V.sum()
    return "  ".join(f"{c} {p:.1%}" for c, p in zip(model.vocabulary.characters, p_V, strict=True))
