"""How far a run is, when it ends, and the learning rate in between.

The schedule follows the budget that will end first, so a run of two minutes cools down in two minutes. With a budget in
steps or epochs alone nothing here depends on a clock, and a run repeats bit for bit.
"""

from __future__ import annotations

import math

from pydantic import Field

from charloom.config import BUDGETS, Section, TrainingSettings

VALIDATIONS = 20  # in a budget, where nothing else is asked: they take about 2% of the time
FLOOR = 0.01  # of the highest rate: the rate never falls to nothing


class Progress(Section, frozen=False):
    """Where a run is: everything that resuming needs and the engine does not hold. Goes to `resume.json`.

    epoch, index: the next batch; tokens: targets that were learned, over all epochs; seconds: spent in training;
    best_nats: the best model's loss, of the kind that `best_by` names; waited: validations since the best; validations:
    how many there were; marks: twentieths of the budget that are spent; train_nats, train_tokens: sums since the last
    validation; lr_factor: halved by a rewind; log_bytes, samples_bytes: sizes of `log.jsonl` and `samples.txt`.
    """

    step: int = Field(0, ge=0)
    epoch: int = Field(0, ge=0)
    index: int = Field(0, ge=0)
    tokens: int = Field(0, ge=0)
    seconds: float = Field(0.0, ge=0)
    best_nats: float | None = None
    best_step: int = Field(0, ge=0)
    waited: int = Field(0, ge=0)
    validations: int = Field(0, ge=0)
    marks: int = Field(0, ge=0)
    train_nats: float = Field(0.0, ge=0)
    train_tokens: int = Field(0, ge=0)
    lr_factor: float = Field(1.0, gt=0, le=1)
    log_bytes: int = Field(0, ge=0)
    samples_bytes: int = Field(0, ge=0)


def fraction(settings: TrainingSettings, progress: Progress, batches: int) -> float:
    """How much of the budget is spent, 0 to 1 and beyond: the largest part of any budget.

    Args:
        batches: in one epoch.
    """
    return max((done / whole for done, whole in _parts(settings, progress, batches).values()), default=0.0)


def spent(settings: TrainingSettings, progress: Progress, batches: int) -> tuple[str, str]:
    """What was done of the budget that ended, in words, and an argument that doubles it."""
    parts = _parts(settings, progress, batches)
    name = max(parts, key=lambda part: parts[part][0] / parts[part][1])
    done, whole = parts[name]
    return f"{round(done, 1):,} of {whole:,} {name}", f"{name}={math.ceil(2 * max(parts[name]))}"


def _parts(settings: TrainingSettings, progress: Progress, batches: int) -> dict[str, tuple[float, float]]:
    """How much was done of each budget that there is, and all of it."""
    done = {
        "minutes": progress.seconds / 60,
        "epochs": progress.epoch + progress.index / batches,
        "steps": progress.step,
    }
    return {name: (done[name], whole) for name in BUDGETS if (whole := getattr(settings, name)) is not None}


def learning_rate(settings: TrainingSettings, spent: float) -> float:
    """The rate at a fraction of the budget: a linear rise, then a plateau or half a cosine.

    Source: Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts.
    """
    if spent < settings.warmup:
        shape = spent / settings.warmup
    elif settings.schedule == "constant":
        shape = 1.0
    else:
        shape = 0.5 * (1 + math.cos(math.pi * min(1.0, (spent - settings.warmup) / (1 - settings.warmup))))
    return settings.lr * (FLOOR + (1 - FLOOR) * shape)
