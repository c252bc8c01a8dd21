"""Compares two processes with one, at each of 50 steps."""

from __future__ import annotations

import time
from datetime import timedelta
from unittest.mock import patch

import numpy as np

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.engines import shared
from charloom.engines.engine import EngineChoice, open_engine
from charloom.engines.follower import follow
from charloom.engines.initial import initial_parameters
from charloom.engines.process_part import Command, command
from charloom.engines.shared import open_for, open_processes
from charloom.engines.torch import processes as torch_processes

STEPS, ROWS, TIMES, LETTERS, RATE = 50, 21, 12, 30, 0.5
DROPPED = {"dropout": 0.3, "weight_drop": 0.2}
CASES = {
    "plain": {},
    "locked": {**DROPPED, "dropout_mask": "locked"},
    "fresh": {**DROPPED, "dropout_mask": "fresh"},
    "one layer": {**DROPPED, "dropout_mask": "fresh", "layers": 1},
}


def batch(step):
    """The last batches have one row, so the first process has none. Every third has positions without a target."""
    random = np.random.default_rng(step)
    rows = 1 if step >= STEPS - 3 else ROWS
    inputs, targets = random.integers(0, LETTERS, (2, rows, TIMES))
    if step % 3 == 0:
        targets[rows // 3 :, TIMES // 2 :] = -1
    return inputs, targets


def flat(arrays):
    return np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])


def distance(found, expected):
    """As a part of the norm."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def compare(processes, engine, layers=2, **values):
    """The largest distances of gradients at equal parameters, and those of parameters and state at the end."""
    shape = Architecture(
        cell="lstm",
        nonlinearity="tanh",
        layers=layers,
        hidden=40,
        input="embedding",
        embedding=9,
        vocabulary_size=LETTERS,
    )
    asked = TrainingSettings(
        steps=9, engine=engine, device="cpu", threads=1, optimizer="sgd", momentum=0.0, **{"dropout": 0.0, **values}
    )
    choice = EngineChoice(engine)
    shared = open_for(processes, choice, shape, asked)
    alone, beside = (open_engine(choice, shape, asked) for _ in range(2))
    for one in (shared, alone, beside):
        one.load(initial_parameters(shape, 1))
    states, worst, wrong = [None] * 3, 0.0, 0
    for step in range(STEPS):
        inputs, targets = batch(step)
        if len(inputs) == 1:
            states = [None] * 3
        beside.load(shared.parameters())
        nats, count, states[0] = shared.gradients(inputs, targets, states[0])
        expected, whole, states[1] = beside.gradients(inputs, targets, states[1])
        worst = max(worst, distance(flat(shared.gradient_arrays.values()), flat(beside.gradient_arrays.values())))
        wrong += count != whole or abs(nats / expected - 1) > 1e-5
        for one in (shared, beside):
            one.update(RATE, count)
        _, _, states[2] = alone.step(inputs, targets, states[2], RATE)
    found, expected = shared.snapshot(states[0]), alone.snapshot(states[2])
    return {
        "gradients": worst,
        "sums": wrong,
        "parameters": distance(flat(shared.parameters().values()), flat(alone.parameters().values())),
        "state": max(distance(found[name], expected[name]) for name in ("state.0", "state.1")),
        "names": found.keys() == expected.keys(),
    }


def measured(processes, engines):
    found = {}
    for engine in engines:
        for case, values in CASES.items():
            found[f"{engine} {case}"] = compare(processes, engine, **values)
    return found


def wait():
    """The first process is busy for longer than the others wait: "alive" if they are still there after it."""
    with (
        patch.object(torch_processes, "TIMEOUT", timedelta(seconds=3)),
        patch.object(shared, "SIGN_OF_LIFE", 0.3),
        shared.open_processes() as group,
    ):
        if group.rank:
            follow(group, lambda: False)
            return None
        time.sleep(4.5)
        with command(group, Command.WAIT):
            return "alive"


def compare_all(engines):
    """What the first process measured; None in the others."""
    with open_processes() as group:
        if group.rank:
            follow(group, lambda: False)
            return None
        return measured(group, engines)
