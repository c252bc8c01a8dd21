"""Ids → batches: the layouts of a training step. Each layout is a pure function of a position.

`batch(epoch, index)` always gives the same arrays, so a run resumes from two numbers.

Shapes: B sequences in a batch, T tokens a step.
inputs_BT: int64, ids; 0 for padding. targets_BT: int64, the id that follows each input, or NOTHING where there is no
prediction (padding, or every step but the last). Positions with NOTHING do not count in the loss. Padding is always at
the end of a row, and the state after that row is not used again, so the state needs no mask.

With `wrap` the corpus is a ring: the target of its last token is its first token.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from charloom.config import TrainingSettings
from charloom.data.groups import NOTHING, GroupBatches, chunks
from charloom.data.ids import Ids, separator_positions
from charloom.data.shuffle import Array, shuffled
from charloom.errors import TextError

MEASURED_LENGTH = 256  # tokens a step in validation; with so many, the cost of a call does not matter
MEASURED_ROWS = 64  # B of independent records in validation
Batch = tuple[Array, Array]


class Batches(Protocol):
    """A layout, as the trainer uses it."""

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        ...

    def batch(self, epoch: int, index: int) -> Batch:
        """(inputs_BT, targets_BT) of one step."""
        ...

    def carried(self, epoch: int, index: int) -> int:
        """The number of sequences that continue from the previous batch; 0 if all start from the zero state."""
        ...


class StreamBatches:
    """The ids as B contiguous streams; each step reads the next T tokens of all streams.

    Every token but the first is predicted exactly once an epoch. Streams differ in length by at most one token; a
    shorter one is padded.
    """

    def __init__(
        self,
        ids: Ids,
        batch_size: int,
        seq_length: int,
        carries_state: bool = True,
        last: bool = False,
        wrap: bool = False,
    ) -> None:
        self._ids, self._seq_length, self._last, self._carries_state = ids, seq_length, last, carries_state
        targets = count_targets(ids, wrap)
        self.batch_size = min(batch_size, targets)
        self._starts = np.arange(self.batch_size + 1) * targets // self.batch_size
        self._length = math.ceil(targets / self.batch_size)  # of the longest stream

    def __len__(self) -> int:
        return math.ceil(self._length / self._seq_length)

    def batch(self, epoch: int, index: int) -> Batch:
        """(inputs_BT, targets_BT); T is smaller in the last step. Every epoch is the same."""
        begin = index * self._seq_length
        width = min(self._seq_length, self._length - begin)
        starts = self._starts[:-1] + begin
        return _rows(self._ids, starts, np.minimum(self._starts[1:] - starts, width), width, self._last)

    def carried(self, epoch: int, index: int) -> int:
        """All streams; 0 at the start of an epoch."""
        return self.batch_size if index and self._carries_state else 0


class WindowBatches:
    """Every window of T tokens predicts the token after it; in a new random order each epoch."""

    def __init__(self, ids: Ids, batch_size: int, seq_length: int, seed: int | None, wrap: bool = False) -> None:
        self._ids, self._seed, self._seq_length = ids, seed, seq_length
        self._windows = len(ids) if wrap else len(ids) - seq_length
        self.batch_size = min(batch_size, self._windows)

    def __len__(self) -> int:
        return math.ceil(self._windows / self.batch_size)

    def batch(self, epoch: int, index: int) -> Batch:
        """(inputs_BT, targets_BT) with one target a row, at its end; the last batch of an epoch may be smaller."""
        rows = np.arange(index * self.batch_size, min((index + 1) * self.batch_size, self._windows))
        starts = shuffled(rows, self._windows, self._seed, epoch)
        widths = np.full(len(rows), self._seq_length)
        return _rows(self._ids, starts, widths, self._seq_length, last=True)

    def carried(self, epoch: int, index: int) -> int:
        """Zero: every window begins from the zero state."""
        return 0


class RecordBatches:
    """One record in each batch row, padded to the longest in the batch, in a new random order each epoch.

    A record longer than T is cut into chunks of T; every chunk begins from the zero state. A corpus without records is
    cut into chunks of T. With records it begins and ends with a separator, so `wrap` changes nothing.
    """

    def __init__(
        self,
        ids: Ids,
        separator_id: int | None,
        batch_size: int,
        seq_length: int,
        seed: int | None,
        last: bool = False,
        wrap: bool = False,
    ) -> None:
        self._ids, self._seed, self._last = ids, seed, last
        marks = (
            np.array([0, count_targets(ids, wrap)]) if separator_id is None else separator_positions(ids, separator_id)
        )
        self._starts, widths = chunks(marks[:-1], np.diff(marks), seq_length)
        self._widths = widths.astype(np.min_scalar_type(seq_length))
        self.batch_size = min(batch_size, len(self._starts))

    def __len__(self) -> int:
        return math.ceil(len(self._starts) / self.batch_size)

    def batch(self, epoch: int, index: int) -> Batch:
        """(inputs_BT, targets_BT), padded at the end of each row; the last batch of an epoch may be smaller."""
        rows = np.arange(index * self.batch_size, min((index + 1) * self.batch_size, len(self._starts)))
        chosen = shuffled(rows, len(self._starts), self._seed, epoch)
        widths = self._widths[chosen].astype(np.int64)
        return _rows(self._ids, self._starts[chosen], widths, int(widths.max()), self._last)

    def carried(self, epoch: int, index: int) -> int:
        """Zero: every chunk begins from the zero state."""
        return 0


def count_targets(ids: Ids, wrap: bool) -> int:
    """The number of tokens that have a next token."""
    return len(ids) if wrap else len(ids) - 1


def _rows(ids: Ids, starts: Array, widths: Array, width: int, last: bool) -> Batch:
    """One batch row from each start, with `widths[b]` inputs. The targets are the ids one position later."""
    view = ids.view()
    places = starts[:, None] + np.arange(width + 1)
    block = view[places % len(view)].astype(np.int64)
    inside = np.arange(width) < widths[:, None]
    inputs = np.where(inside, block[:, :-1], 0)
    targets = np.where(inside, block[:, 1:], NOTHING)
    if last:
        targets[np.arange(width) != widths[:, None] - 1] = NOTHING
    return inputs, targets


def training_batches(
    ids: Ids, separator_id: int | None, settings: TrainingSettings, independent: bool, notice: Callable[[str], None]
) -> Batches:
    """The layout that the settings name; if the split is too short for it, a smaller one, with a notice.

    independent: whether each record is read from the zero state.

    Raises:
        TextError: if there is nothing to predict.
    """
    if len(ids) < 2:
        raise TextError(f"training needs at least 2 characters; the training split has {len(ids)}")
    asked_B, asked_T = settings.batch_size, settings.seq_length
    targets = count_targets(ids, settings.wrap)
    seq_length = min(asked_T, targets)
    last, wrap = settings.loss == "last", settings.wrap
    layout: StreamBatches | WindowBatches | RecordBatches
    if independent:
        return _groups(ids, separator_id, settings, asked_B, seq_length, notice)
    if settings.batches == "windows":
        layout = WindowBatches(ids, asked_B, seq_length, settings.seed, wrap)
    elif settings.batches == "records":
        layout = RecordBatches(ids, separator_id, asked_B, seq_length, settings.seed, last, wrap)
    else:
        streams = max(1, min(asked_B, targets // seq_length))
        layout = StreamBatches(ids, streams, seq_length, settings.state == "carry", last, wrap)
    if (layout.batch_size, seq_length) != (asked_B, asked_T):
        notice(
            f"the training text ({len(ids):,} tokens) is too short for a batch of {asked_B} x {asked_T} tokens; "
            f"using {layout.batch_size} x {seq_length}"
        )
    return layout


def validation_batches(
    ids: Ids, separator_id: int | None, settings: TrainingSettings, independent: bool, streams: int
) -> Batches | None:
    """The same layout for validation, with long steps if the state is carried; None for an empty split.

    Epoch 0 contains every target once. If the order is random, the first batches are a random sample of the split.
    """
    if len(ids) < 2:
        return None
    last, seq_length = settings.loss == "last", min(settings.seq_length, len(ids) - 1)
    length = seq_length if last or settings.state == "reset" else MEASURED_LENGTH
    if independent:
        return _groups(ids, separator_id, settings, MEASURED_ROWS, length)
    if settings.batches == "windows" and len(ids) > settings.seq_length:
        return WindowBatches(ids, settings.batch_size, seq_length, settings.seed)
    if settings.batches == "records":
        return RecordBatches(ids, separator_id, settings.batch_size, seq_length, settings.seed, last)
    return StreamBatches(ids, max(1, min(streams, (len(ids) - 1) // length)), length, settings.state == "carry", last)


def _groups(
    ids: Ids,
    separator_id: int | None,
    settings: TrainingSettings,
    rows: int,
    seq_length: int,
    notice: Callable[[str], None] = lambda _: None,
) -> GroupBatches:
    assert separator_id is not None
    groups = GroupBatches(
        ids, separator_id, rows, seq_length, settings.seed, settings.state == "carry", settings.loss == "last"
    )
    if groups.cut:
        notice(
            f"records of more than {groups.longest:,} tokens are cut into chunks, each from the zero state; this makes "
            f"{groups.cut:,} more chunks than records"
        )
    return groups
