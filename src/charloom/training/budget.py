"""The progress of a run within its budget, and the learning rate.

The learning rate follows the budget that ends first: a run of two minutes reaches its lowest rate after two minutes. If
the budget is only in steps or epochs, nothing here depends on a clock, and a run repeats bit for bit.
"""

from __future__ import annotations

import math

from pydantic import Field

from charloom.config import BUDGETS, Section, TrainingSettings

VALIDATIONS = 20  # validations in one budget, by default; they take about 2% of the time
FLOOR = 0.01  # the lowest learning rate, as a part of the highest


class Progress(Section, frozen=False):
    """The position of a run: all that resuming needs beside the engine's snapshot. Stored in `resume.json`.

    epoch, index: the next batch; tokens: targets learned, over all epochs; seconds: spent in training; best_nats: the
    lowest loss so far, of the kind that `best_by` names; waited: validations since the best one; validations: their
    number; marks: twentieths of the budget that are spent; train_nats, train_tokens: sums since the last validation;
    lr_factor: each rewind halves it; log_bytes, samples_bytes: sizes of `log.jsonl` and `samples.txt`.
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
    """The part of the budget that is spent, 0 or more; 1 is its end. With several budgets, the largest part.

    Args:
        batches: the number of batches in one epoch.
    """
    return max((done / whole for done, whole in _parts(settings, progress, batches).values()), default=0.0)


def spent(settings: TrainingSettings, progress: Progress, batches: int) -> tuple[str, str]:
    """How much of the budget that ended was done, in words, and an argument that doubles this budget."""
    parts = _parts(settings, progress, batches)
    name = max(parts, key=lambda part: parts[part][0] / parts[part][1])
    done, whole = parts[name]
    return f"{round(done, 1):,} of {whole:,} {name}", f"{name}={math.ceil(2 * max(parts[name]))}"


def _parts(settings: TrainingSettings, progress: Progress, batches: int) -> dict[str, tuple[float, float]]:
    """For each budget that is set: (how much is done, the whole)."""
    done = {
        "minutes": progress.seconds / 60,
        "epochs": progress.epoch + progress.index / batches,
        "steps": progress.step,
    }
    return {name: (done[name], whole) for name in BUDGETS if (whole := getattr(settings, name)) is not None}


def learning_rate(settings: TrainingSettings, spent: float) -> float:
    """The learning rate when the part `spent` of the budget is spent: a linear rise, then constant or half a cosine.

    Source: Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts.
    """
    if spent < settings.warmup:
        shape = spent / settings.warmup
    elif settings.schedule == "constant":
        shape = 1.0
    else:
        shape = 0.5 * (1 + math.cos(math.pi * min(1.0, (spent - settings.warmup) / (1 - settings.warmup))))
    return settings.lr * (FLOOR + (1 - FLOOR) * shape)
