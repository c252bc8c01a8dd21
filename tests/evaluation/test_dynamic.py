"""Dynamic evaluation with the state carried, or with each record from the zero state."""

from __future__ import annotations

import numpy as np

from charloom.evaluation.dynamic import LENGTH, dynamic

RESET = 9


class Listening:
    """An engine that records what it reads; its state is what it read before."""

    def __init__(self):
        self.read = []

    def step(self, inputs_BT, targets_BT, state, learning_rate):
        before = state or ()
        self.read.append((before, inputs_BT[0].tolist(), targets_BT[0].tolist()))
        return float(len(inputs_BT[0])), len(inputs_BT[0]), (*before, *inputs_BT[0].tolist())


def test_independent_records_are_learnt_from_the_zero_state():
    """Catches a record that is scored after another one, although the model learned independent records."""
    ids = np.array([RESET, 1, 2, RESET, 3, RESET, *[4] * 40, RESET])
    engine = Listening()
    assert dynamic(engine, ids, RESET) == len(ids) - 1
    assert engine.read[0] == ((), [RESET, 1, 2], [1, 2, RESET])
    assert engine.read[1] == ((), [RESET, 3], [3, RESET])
    assert engine.read[2] == ((), [RESET, *[4] * (LENGTH - 1)], [4] * LENGTH)
    assert engine.read[3][0] == tuple(engine.read[2][1])
    assert len(engine.read) == 4


def test_other_texts_are_read_on():
    """Catches a text of other models that is split into records."""
    ids = np.array([RESET, 1, 2, RESET, 3, RESET])
    engine = Listening()
    assert dynamic(engine, ids) == 5
    assert engine.read == [((), [RESET, 1, 2, RESET, 3], [1, 2, RESET, 3, RESET])]
