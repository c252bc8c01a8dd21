"""A batch divided by rows among several threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from charloom.engines.masks import dropout_stream
from charloom.engines.numpy.network import NOTHING, NumpyNetwork
from charloom.engines.numpy.rows import FEWEST, Rows, RowThreads, joined_states, summed_gradients


def batch(rows):
    random = np.random.default_rng(0)
    targets = random.integers(0, 5, (rows, 4))
    targets[random.random(targets.shape) < 0.4] = NOTHING
    return random.integers(0, 5, (rows, 4)), targets


@pytest.mark.parametrize("locked", [False, True])
def test_the_parts_together_are_the_whole(random, architecture, weights, cell, locked):
    """Catches a state or a mask divided at other rows than the ids, and a missing gradient or target count of a
    part.
    """
    shape = architecture(cell, layers=2)
    network = NumpyNetwork(shape, weights(shape))
    inputs, targets = batch(3 * FEWEST + 1)
    state = tuple(random(*part.shape) for part in network.zero_state(len(inputs)))
    whole = Rows(inputs, targets, state, network.dropout_masks(targets, 0.3, dropout_stream(0, 0), locked))

    def work(rows):
        done = network.forward(*rows)
        return done.nats, done.state, network.backward(done).parameters

    ((nats, after, expected),) = RowThreads(1).share(work, whole)
    parts = RowThreads(3).share(work, whole)
    assert len(parts) == 3
    assert sum(part[0] for part in parts) == pytest.approx(nats, rel=1e-13)
    np.testing.assert_allclose(joined_states([part[1] for part in parts]), after, rtol=1e-13)
    for name, gradient in summed_gradients([part[2] for part in parts]).items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-11, atol=1e-14, err_msg=name)


@pytest.mark.parametrize(("rows", "parts"), [(1, 1), (FEWEST, 1), (2 * FEWEST - 1, 1), (2 * FEWEST, 2), (99, 4)])
def test_no_thread_takes_fewer_rows_than_are_worth_it(rows, parts):
    """Catches an empty part, and a row that is lost or used twice."""
    batch = Rows(np.arange(rows)[:, None], np.zeros((rows, 1)), None, None)
    seen = RowThreads(4).share(lambda part: part.inputs_BT[:, 0], batch)
    assert len(seen) == parts
    assert np.concatenate(seen).tolist() == list(range(rows))
    assert rows < FEWEST or min(map(len, seen)) >= FEWEST


def test_the_parts_run_side_by_side_and_come_back_in_order():
    """Catches parts that run one after the other: each of these two waits until the other begins."""
    both = threading.Barrier(2, timeout=60)

    def work(part):
        both.wait()
        return part.inputs_BT[0, 0]

    ids = np.arange(2 * FEWEST)[:, None]
    assert RowThreads(2).share(work, Rows(ids, ids, None, None)) == [0, FEWEST]


def test_overflow_in_any_thread_is_no_warning():
    """Catches a warning in a thread: NumPy's error state belongs to each thread, and the trainer checks the loss."""
    ids = np.zeros((2 * FEWEST, 1))
    assert RowThreads(2).share(lambda part: np.exp(np.float32(1000)), Rows(ids, ids, None, None)) == [np.inf, np.inf]
