"""Dynamic evaluation: the model learns from each part of a text after the part was scored."""

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

# LOG.md tells from what they were chosen.
LENGTH = 32  # tokens between two steps of learning
RATE = 0.1


def dynamic(engine: Engine, ids: NDArray[np.integer[Any]], reset_id: int | None = None) -> float:
    """Reads a text and learns from it; the sum of nats of each part before it was learnt.

    Dynamic evaluation (Mikolov et al. 2010; Krause et al. 2018) by plain gradient descent: the text may use its own
    past, as any adaptive compressor does. The engine then has the weights after the last token.

    reset_id: read from the zero state; the weights go on.
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
    """The model after it has learnt from a text by reading it once."""
    engine = open_evaluation_engine(model)
    dynamic(engine, ids, model.reset_id)
    return dataclasses.replace(model, parameters=engine.parameters())
