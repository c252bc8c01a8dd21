"""Dynamic evaluation: the model learns from each chunk of a text after that chunk was scored."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.checkpoint import ModelFolder
from charloom.data.batches import StreamBatches
from charloom.data.ids import Ids
from charloom.engines.engine import Engine
from charloom.evaluation.engine import open_evaluation_engine

# LOG.md has the measurements that chose these values.
LENGTH = 32  # tokens between two steps of learning
RATE = 0.1


def dynamic(engine: Engine, ids: NDArray[np.integer[Any]], reset_id: int | None = None) -> float:
    """Scores a text and learns from it. Returns the sum of nats; each chunk is scored before the model learns from it.

    Dynamic evaluation (Mikolov et al. 2010; Krause et al. 2018) uses plain gradient descent. The model may use the text
    before each token, as any adaptive compressor does. Afterwards the engine has the weights of the last step.

    reset_id: the token that is read from the zero state; the weights are not reset.
    """
    resets = [] if reset_id is None else (np.flatnonzero(ids[1:-1] == reset_id) + 1).tolist()
    total = 0.0
    for start, stop in pairwise([0, *resets, len(ids) - 1]):
        streams, state = StreamBatches(Ids.of(ids[start : stop + 1]), 1, LENGTH), None
        for index in range(len(streams)):
            nats, _, state = engine.step(*streams.batch(0, index), state, RATE)
            total += nats
    return total


def adapted(model: ModelFolder, ids: NDArray[np.integer[Any]]) -> ModelFolder:
    """The model after it has read a text once and learnt from it."""
    engine = open_evaluation_engine(model)
    dynamic(engine, ids, model.reset_id)
    return dataclasses.replace(model, parameters=engine.parameters())
