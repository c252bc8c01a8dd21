"""What a run reports while it goes: values for a display, and lines of `log.jsonl`.

Losses are nats per token (a character, or a byte of a byte-level model), so whoever shows them can say bits too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """Something that happened in a run."""

    def to_json(self) -> dict[str, Any]:
        """The event as one flat object, with its name and, beside each loss in nats, the same in bits."""
        record: dict[str, Any] = {"event": type(self).__name__.lower()}
        for name, value in dataclasses.asdict(self).items():
            record[name] = value
            if name.endswith("nats") and value is not None:
                record[name.removesuffix("nats") + "bits"] = value / math.log(2)
        return record


@dataclass(frozen=True)
class Notice(Event):
    """One line that a person should read."""

    text: str


@dataclass(frozen=True)
class PlannedChoice:
    """A setting that nobody chose, its value and the reason."""

    setting: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Planned(Event):
    """What nobody chose, chosen from the text and the clock.

    tokens: of the training text; distinct: of its vocabulary; records: in it, 0 where it is one text; repeated: share
    of the tokens in lines that are a copy of an earlier line; xz_bits_per_token: what xz makes of its beginning.
    """

    minutes: float
    tokens: int
    distinct: int
    records: int
    repeated: float
    xz_bits_per_token: float
    choices: tuple[PlannedChoice, ...]


@dataclass(frozen=True)
class Started(Event):
    """Training is about to begin, or to go on."""

    run: str
    engine: str
    cell: str
    layers: int
    hidden: int
    parameters: int
    tokens: int
    unit: str
    train_tokens: int
    validation_tokens: int
    step: int
    resumed: bool


@dataclass(frozen=True)
class Step(Event):
    """Where training is; reported every second or two. train_nats: mean since the last report."""

    step: int
    epoch: int
    train_nats: float
    learning_rate: float
    tokens_per_second: float
    seconds: float
    seconds_left: float | None
    fraction: float


@dataclass(frozen=True)
class Validation(Event):
    """A quick validation: many streams over at most 200,000 tokens; without a validation split, training's loss alone.

    best: whether it beats all before it; kept: the folder of the model that was kept for good, if one was.
    """

    step: int
    epoch: int
    train_nats: float | None
    validation_nats: float | None
    accuracy: float | None
    best: bool
    seconds: float
    kept: str | None = None


@dataclass(frozen=True)
class Sample(Event):
    """Text that the model generated at this step."""

    step: int
    text: str


@dataclass(frozen=True)
class Finished(Event):
    """The end. Losses are of the best weights over the whole split, the state carried from
    its start, or from each record's where records are independent.

    seen_nats: over a part of the training text, nothing dropped; verdict: what that says, in words; predictions: how
    many were learnt from, over all epochs.
    """

    run: str
    step: int
    epoch: int
    seconds: float
    best_step: int
    validation_nats: float | None
    accuracy: float | None
    test_nats: float | None
    seen_nats: float | None = None
    verdict: str | None = None
    predictions: int = 0


EventHandler = Callable[[Event], None]
