"""What a run reports while it trains: values for a display, and lines of `log.jsonl`.

Losses are nats per token (a character, or a byte of a byte-level model), so a display can show bits too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """Something that happened in a run; the base class of all events."""

    def __str__(self) -> str:
        """The event in one line, for `report=print`; fields that are None are left out."""
        fields = [f"{name} {_shown(value)}" for name, value in vars(self).items() if value is not None]
        return f"{type(self).__name__}: {', '.join(fields)}"

    def to_json(self) -> dict[str, Any]:
        """The event as one flat object with its name. Beside each loss in nats stands the same loss in bits."""
        record: dict[str, Any] = {"event": type(self).__name__.lower()}
        for name, value in dataclasses.asdict(self).items():
            record[name] = value
            if name.endswith("nats") and value is not None:
                record[name.removesuffix("nats") + "bits"] = value / math.log(2)
        return record


@dataclass(frozen=True)
class Notice(Event):
    """One message for the user, in one line."""

    text: str

    def __str__(self) -> str:
        """The message."""
        return self.text


@dataclass(frozen=True)
class PlannedChoice:
    """A setting that the user did not set, its planned value and the reason."""

    setting: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Planned(Event):
    """The settings that charloom chose from the text, the speed of the machine and the budget.

    tokens: their number in the training text; distinct: the vocabulary size; records: their number, 0 if the text has
    none; repeated: share of the tokens in lines that are a copy of an earlier line; xz_bits_per_token: bits per token,
    as xz compresses the beginning of the text.
    """

    minutes: float
    tokens: int
    distinct: int
    records: int
    repeated: float
    xz_bits_per_token: float
    choices: tuple[PlannedChoice, ...]

    def __str__(self) -> str:
        """The choices as a table, one setting a row."""
        repeated = f", {self.repeated:.0%} in repeated lines" if self.repeated >= 0.01 else ""
        records = f" in {self.records:,} record{'s' * (self.records != 1)}" if self.records else ""
        unit = "minute" if self.minutes == 1 else "minutes"
        rows = [
            f"plan for {self.minutes:g} {unit}: {self.tokens:,} tokens{records}, "
            f"{self.distinct:,} different{repeated}; xz packs a sample into {self.xz_bits_per_token:.2f} bits/token"
        ]
        width = max((len(str(choice.value)) for choice in self.choices), default=0)
        rows += [f"  {choice.setting:<14}{choice.value!s:>{width}}  {choice.reason}" for choice in self.choices]
        return "\n".join(rows)


@dataclass(frozen=True)
class Started(Event):
    """Training begins, or a resumed run continues."""

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
    """The progress of training, every second or two. train_nats: mean since the last report."""

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
    """A quick validation: many streams over at most 200,000 tokens. Without a validation split, only the training loss.

    best: whether the loss is the lowest so far; kept: the folder in `kept/` of this model, or None.
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
    """The end of a run. The losses are those of the best weights over each whole split, with the state carried. If
    records are independent, each record starts from the zero state.

    seen_nats: loss on a part of the training text, without dropout; verdict: the verdict in words; predictions: targets
    learned, over all epochs.
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


def _shown(value: object) -> str:
    """A field in a line: large numbers with commas, other floats with four digits, strings in quotes."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return repr(value)
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"


EventHandler = Callable[[Event], None]
