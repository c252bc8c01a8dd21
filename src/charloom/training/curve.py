"""The losses of a run's validations, one after the other, as `log.jsonl` holds them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from charloom.files import opened

RISEN = 0.01
"""Of the loss: so much above the best is more than the noise from one validation to the next."""

TRAINING_RISEN = 0.05
"""The same of the training loss. It is noisier: the mean over fewer tokens, and over other ones each time."""


@dataclass(frozen=True)
class Curve:
    """The course of a run: at which steps it was validated, the loss found there, and the mean training loss before."""

    steps: Sequence[int]
    nats: Sequence[float]
    training: Sequence[float]

    @property
    def best(self) -> int:
        """Which validation was the best."""
        return min(range(len(self.nats)), key=self.nats.__getitem__)

    @property
    def risen(self) -> float:
        """How far the last one lies above the best, as a part of it."""
        best = self.nats[self.best]
        return self.nats[-1] / best - 1 if best else 0.0

    @property
    def training_rose(self) -> bool:
        """Whether the training loss rose after the best validation: then the text is not learnt by heart."""
        return self.training[-1] > self.training[self.best] * (1 + TRAINING_RISEN)

    @property
    def training_falls(self) -> bool:
        """Whether the training loss still fell in the second half, without a rise before."""
        half = self.training[: (len(self.training) + 1) // 2]
        steady = all(after < before * (1 + TRAINING_RISEN) for before, after in itertools.pairwise(self.training))
        return steady and (len(self.training) < 3 or self.training[-1] < min(half) * (1 - RISEN / 2))


def read_curve(log: Path) -> tuple[Curve, int]:
    """The curve of a run from its beginning, and how many lines of the log are no events: a power cut left them."""
    rows: list[tuple[int, float, float]] = []
    damaged = 0
    with opened(log) as lines:  # only \n ends a line; a text may hold U+2028
        for line in lines:
            try:
                rows += _measured(line)
            except (ValueError, RecursionError):
                damaged += 1
    return Curve([step for step, _, _ in rows], [nats for _, nats, _ in rows], [nats for _, _, nats in rows]), damaged


def _measured(line: bytes) -> list[tuple[int, float, float]]:
    """The step, the loss and the training loss of a line of the log, if it is a validation that has both.

    Raises:
        ValueError: if it is no event.
    """
    event = json.loads(line)
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise ValueError("no event")
    step, nats, training = (event.get(name) for name in ("step", "validation_nats", "train_nats"))
    if event["event"] != "validation" or nats is None or training is None:
        return []
    if type(step) is not int or not all(type(x) is float and math.isfinite(x) for x in (nats, training)):
        raise ValueError("no validation")
    return [(step, nats, training)]
