"""The losses of a run's validations in order, as `log.jsonl` has them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from charloom.files import opened

RISEN = 0.01
"""A part of the loss. A rise above the best loss by more than this part is not noise between validations."""

TRAINING_RISEN = 0.05
"""The same for the training loss. It has more noise: each time it is a mean over fewer tokens, and over other ones."""


@dataclass(frozen=True)
class Curve:
    """The validations of a run: for each its step, its loss, and the mean training loss since the one before it."""

    steps: Sequence[int]
    nats: Sequence[float]
    training: Sequence[float]

    @property
    def best(self) -> int:
        """The index of the validation with the lowest loss."""
        return min(range(len(self.nats)), key=self.nats.__getitem__)

    @property
    def risen(self) -> float:
        """How far the last loss is above the lowest, as a part of the lowest."""
        best = self.nats[self.best]
        return self.nats[-1] / best - 1 if best else 0.0

    @property
    def training_rose(self) -> bool:
        """Whether the training loss rose after the best validation. If so, the network does not memorise the text."""
        return self.training[-1] > self.training[self.best] * (1 + TRAINING_RISEN)

    @property
    def training_falls(self) -> bool:
        """Whether the training loss still fell in the second half, and never rose before."""
        half = self.training[: (len(self.training) + 1) // 2]
        steady = all(after < before * (1 + TRAINING_RISEN) for before, after in itertools.pairwise(self.training))
        return steady and (len(self.training) < 3 or self.training[-1] < min(half) * (1 - RISEN / 2))


def read_curve(log: Path) -> tuple[Curve, int]:
    """The curve of a run from its beginning, and the number of lines in the log that a power cut damaged."""
    rows: list[tuple[int, float, float]] = []
    damaged = 0
    with opened(log) as lines:  # only \n ends a line; a text may contain U+2028
        for line in lines:
            try:
                rows += _measured(line)
            except (ValueError, RecursionError):
                damaged += 1
    return Curve([step for step, _, _ in rows], [nats for _, nats, _ in rows], [nats for _, _, nats in rows]), damaged


def _measured(line: bytes) -> list[tuple[int, float, float]]:
    """(step, loss, training loss) of a line of the log; empty if the line is no validation with both losses.

    Raises:
        ValueError: if the line is not an event.
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
