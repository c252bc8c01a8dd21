"""A step in two halves: gradients that several processes add in between."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.engines.engine import EngineChoice, open_engine
from charloom.engines.initial import initial_parameters
from charloom.kernels import chosen

pytestmark = pytest.mark.processor

CELLS = [("lstm", "tanh"), ("lstm", "capped"), ("gru", "tanh"), ("rnn", "tanh"), ("rnn", "relu")]
ENGINES = [("numpy", "fp32"), ("native", "fp32"), ("native", "bf16"), ("torch", "fp32"), ("torch", "bf16")]
FLOAT32, BFLOAT16 = 5e-6, 3e-2
"""The largest differences, as a part of the largest value of an array. Measured: 8e-7, and 1.1e-2 if PyTorch rounds
gradients to bfloat16; the kernels sum them in float32.
"""


def skip_what_is_not_here(engine, precision, cell):
    if engine == "native":
        if chosen().module is None:
            pytest.skip("no kernels are in use")
        if precision not in chosen().module.precisions():
            pytest.skip("no bf16 products")
    elif engine == "torch":
        if importlib.util.find_spec("torch") is None:
            pytest.skip("no torch")
        from charloom.engines.torch.device import trains_in_bf16

        if precision == "bf16" and not trains_in_bf16("cpu", cell):
            pytest.skip("PyTorch has no bf16 for this cell here")


def made(engine, precision, cell, **values):
    """An engine with small random weights."""
    kind, variant = cell
    shape = Architecture(
        cell=kind,
        nonlinearity="relu" if variant == "relu" else "tanh",
        input_gate="capped" if variant == "capped" else "free",
        layers=2,
        hidden=48,
        input="embedding",
        embedding=9,
        vocabulary_size=30,
    )
    asked = TrainingSettings(steps=9, engine=engine, threads=2, dropout=0.0, device="cpu", **values)
    found = open_engine(EngineChoice(engine, precision=precision), shape, asked)
    found.load(initial_parameters(shape, 1))
    return found


def batch(rows=20, steps=12):
    """Ids and targets; the second half of the rows has fewer targets."""
    random = np.random.default_rng(0)
    inputs, targets = random.integers(0, 30, (2, rows, steps))
    targets[rows // 2 :][random.random((rows - rows // 2, steps)) < 0.4] = -1
    return inputs, targets


def gradients_of_two(first, second, inputs, targets, cut=9):
    """Each engine computes some rows; then both hold the sums of both, as after `all_reduce`. The number of targets."""
    _, count, _ = first.gradients(inputs[:cut], targets[:cut], None)
    _, other, _ = second.gradients(inputs[cut:], targets[cut:], None)
    sums = second.gradient_arrays
    for name, array in first.gradient_arrays.items():
        sums[name] += array
        array[...] = sums[name]
    return count + other


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
@pytest.mark.parametrize(("engine", "precision"), ENGINES)
def test_the_sums_of_two_parts_are_those_of_the_whole(engine, precision, cell):
    """Catches: means in place of sums; a part's mean where the parts have different numbers of targets."""
    skip_what_is_not_here(engine, precision, cell[0])
    whole, first, second = (made(engine, precision, cell) for _ in range(3))
    inputs, targets = batch()
    _, count, _ = whole.gradients(inputs, targets, None)
    assert gradients_of_two(first, second, inputs, targets) == count == (targets >= 0).sum()
    limit = BFLOAT16 if (engine, precision) == ("torch", "bf16") else FLOAT32
    for name, wanted in whole.gradient_arrays.items():
        difference = abs(np.asarray(second.gradient_arrays[name]) - np.asarray(wanted)).max()
        assert difference <= limit * abs(np.asarray(wanted)).max(), name


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
@pytest.mark.parametrize("engine", ["numpy", "native", "torch"])
def test_both_processes_take_the_step_of_the_whole_batch(engine, optimizer):
    """Catches: an update that reads other arrays than `gradient_arrays`, divides by its own count, or clips before."""
    skip_what_is_not_here(engine, "fp32", "lstm")
    values = {"optimizer": optimizer, "clip": 0.1, "clip_value": 0.02, "momentum": 0.9 * (optimizer == "sgd")}
    whole, first, second = (made(engine, "fp32", CELLS[0], **values) for _ in range(3))
    inputs, targets = batch()
    for _ in range(2):
        whole.step(inputs, targets, None, 0.1)
        count = gradients_of_two(first, second, inputs, targets)
        first.update(0.1, count)
        second.update(0.1, count)
    for name, wanted in whole.parameters().items():
        np.testing.assert_array_equal(first.parameters()[name], second.parameters()[name], err_msg=name)
        if optimizer == "sgd":  # the others divide by the gradient's own size, so rounding of a tiny one shows
            np.testing.assert_allclose(first.parameters()[name], wanted, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("engine", ["numpy", "native", "torch"])
def test_a_batch_without_targets_adds_nothing(engine):
    """Catches: 0/0, which would end the run; one process of several may have a batch of padding only."""
    skip_what_is_not_here(engine, "fp32", "lstm")
    idle = made(engine, "fp32", CELLS[0], optimizer="sgd", momentum=0.0, weight_decay=0.0)
    before = idle.parameters()
    inputs, targets = batch()
    nats, count, _ = idle.step(inputs, np.full_like(targets, -1), None, 0.1)
    assert (nats, count) == (0, 0)
    for name, array in idle.gradient_arrays.items():
        assert not np.asarray(array).any(), name
        np.testing.assert_array_equal(idle.parameters()[name], before[name])
