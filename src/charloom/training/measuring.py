"""How well an engine predicts a text: over a layout, in windows that begin cold, or learning from it as it reads.

Shapes: B sequences side by side, T characters.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.checkpoint import ModelFolder
from charloom.config import TrainingSettings
from charloom.data.batches import Batches, StreamBatches
from charloom.data.ids import Ids
from charloom.engines.engine import Engine, State, choose_engine, open_engine
from charloom.score import Score
from charloom.training.verdict import Guesses

AT_ONCE = 2**14  # tokens of windows that are read side by side
QUICK_VALIDATION = 200_000  # tokens; the standard error of their mean is below 0.005 nats
NOTHING_READ = Score(tokens=0, characters=0, nats=0.0, correct=0)
PER_WINDOW = 4  # windows begin so often in the length of one

# Of dynamic evaluation; LOG.md tells from what they were chosen.
DYNAMIC_LENGTH = 32  # characters between two steps of learning
DYNAMIC_RATE = 0.1


def measure(
    engine: Engine, batches: Batches, most: float = math.inf, watch: Callable[[], None] = lambda: None
) -> Score:
    """The engine's loss over a layout, the state carried where the layout carries it.

    most: ends once so many tokens have been read; watch: called after every batch.
    """
    state: State = None
    total, read = NOTHING_READ, 0
    for index in range(len(batches)):
        if read >= most:
            break
        inputs_BT, targets_BT = batches.batch(0, index)
        before = state if batches.carried(0, index) else None
        nats_N, correct_N, state = engine.score(inputs_BT, targets_BT, before)
        total += Score.of_targets(nats_N, correct_N)
        read += inputs_BT.size
        watch()
    return total


def guesses(batches: Batches, tokens: int, most: float = math.inf) -> Guesses:
    """Losses of guesses without context on the same part of a layout; `tokens` is the vocabulary size."""
    counts = np.zeros(tokens, np.int64)
    read = 0
    for index in range(len(batches)):
        if read >= most:
            break
        inputs_BT, targets_BT = batches.batch(0, index)
        counts += np.bincount(targets_BT[targets_BT >= 0], minlength=tokens)
        read += inputs_BT.size
    shares = counts[counts > 0] / max(1, counts.sum())
    return Guesses(math.log(tokens), float(-(shares * np.log(shares)).sum()))


def in_windows(engine: Engine, ids: NDArray[np.integer[Any]], length: int) -> Score:
    """The mean over windows of so many characters, each read from a cold start and every character of it predicted.

    nanoGPT's protocol, which draws its windows at random; here they are those that begin at every quarter of their
    length, so that the figure repeats. The text is longer than one.
    """
    starts = np.arange(0, len(ids) - length, max(1, length // PER_WINDOW))
    total = NOTHING_READ
    at_once = max(1, AT_ONCE // length)
    for first in range(0, len(starts), at_once):
        rows_BT = ids[starts[first : first + at_once, None] + np.arange(length + 1)].astype(np.int64)
        nats_N, correct_N, _ = engine.score(rows_BT[:, :-1], rows_BT[:, 1:], None)
        total += Score.of_targets(nats_N, correct_N)
    return total


def reader(model: ModelFolder) -> Engine:
    """An engine that computes with a model's weights exactly, and that learns by plain gradient descent."""
    settings = TrainingSettings(
        steps=1, dropout=0.0, optimizer="sgd", momentum=0.0, weight_decay=0.0, clip=1.0, precision="fp32", device="cpu"
    )
    engine = open_engine(choose_engine(settings, model.architecture.cell), model.architecture, settings)
    engine.load(model.parameters)
    return engine


def adapted(model: ModelFolder, ids: NDArray[np.integer[Any]]) -> ModelFolder:
    """The model after it has learnt from a text by reading it once."""
    engine = reader(model)
    dynamic(engine, ids, model.reset_id)
    return dataclasses.replace(model, parameters=engine.parameters())


def dynamic(engine: Engine, ids: NDArray[np.integer[Any]], reset_id: int | None = None) -> float:
    """Reads a text and learns from it as it goes; the sum of nats of each part before it was learnt.

    Dynamic evaluation (Mikolov et al. 2010; Krause et al. 2018) by plain gradient descent: the text may use its own
    past, as any adaptive compressor does. The engine then has the weights after the last character.

    reset_id: read from the zero state; the weights go on.
    """
    resets = [] if reset_id is None else (np.flatnonzero(ids[1:-1] == reset_id) + 1).tolist()
    total = 0.0
    for start, stop in pairwise([0, *resets, len(ids) - 1]):
        streams, state = StreamBatches(Ids.of(ids[start : stop + 1]), 1, DYNAMIC_LENGTH), None
        for index in range(len(streams)):
            nats, _, state = engine.step(*streams.batch(0, index), state, DYNAMIC_RATE)
            total += nats
    return total
