"""The number of steps of each setting in its minutes. All are timed in turns, because a machine's speed varies.

Training for these numbers of steps compares equal times, even if the machine is busy meanwhile.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from charloom.architecture import Architecture
from charloom.config import Settings
from charloom.engines.engine import choose_engine, open_engine
from charloom.engines.initial import initial_parameters

ROUNDS, SECONDS = 7, 0.5
SHARE = 0.93
"""The share of the time for steps; the rest is for validation and checkpoints."""


def steps_in_time(all_flags: Sequence[str], distinct: int) -> list[int]:
    """Steps for each of these flags, which must contain `--minutes`. `distinct` is the vocabulary size."""
    workers = [Worker(Settings.from_flat(flat(flags)), distinct) for flags in all_flags]
    rates = [[worker.rate() for worker in workers] for _ in range(ROUNDS)][1:]  # the first is a warm-up
    seconds = [60 * float(flat(flags)["minutes"]) for flags in all_flags]
    return [round(SHARE * s * median(each)) for s, each in zip(seconds, zip(*rates, strict=True), strict=True)]


def flat(flags: str) -> dict[str, Any]:
    """Flags of `charloom train` under the names of `Settings.from_flat`. Each has a value."""
    words = shlex.split(flags)
    pairs = zip(words[::2], words[1::2], strict=True)
    return {flag.removeprefix("--").replace("-", "_"): _value(word) for flag, word in pairs}


def _value(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word


class Worker:
    """Trains on random tokens for a short time in each turn."""

    def __init__(self, settings: Settings, distinct: int) -> None:
        made, training = Architecture.of(settings.model, distinct), settings.training
        choice = choose_engine(training, made.cell)
        self._engine, self._state = open_engine(choice, made, training), None
        self._engine.load(initial_parameters(made, 0))
        self._ids_BT = np.random.default_rng(0).integers(0, distinct, (training.batch_size, training.seq_length + 1))

    def rate(self) -> float:
        """Steps/s."""
        begun, steps = time.perf_counter(), 0
        while (passed := time.perf_counter() - begun) < SECONDS:
            _, _, self._state = self._engine.step(self._ids_BT[:, :-1], self._ids_BT[:, 1:], self._state, 1e-3)
            steps += 1
        return steps / passed
