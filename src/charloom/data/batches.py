"""Ids → batches: what stands beside what in a step of training. Each layout is a pure function of a position.

`batch(epoch, index)` gives the same arrays whenever it is asked, so a run resumes from two numbers.

Shapes: B texts side by side, T characters a step.
inputs_BT: int64, ids; 0 where there is nothing. targets_BT: int64, the id that follows each input, or NOTHING where no
prediction is asked for (padding, or every step but the last). Positions with NOTHING count in no loss; padding always
stands at the end of a row after which the state is not used again, so it is masked from the state too.

With `wrap` the text is a ring: its last character has a target too, its first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from charloom.config import TrainingSettings
from charloom.data.dataset import Ids, separators
from charloom.data.groups import NOTHING, Groups, pieces
from charloom.data.shuffle import Array, shuffled
from charloom.errors import TextError

MEASURED_LENGTH = 256  # characters a step where nothing is learned: long enough that calls cost nothing
MEASURED_ROWS = 64  # of long records
Batch = tuple[Array, Array]


class Batches(Protocol):
    """What the trainer needs of a layout."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def batch(self, epoch: int, index: int) -> Batch:
        """(inputs_BT, targets_BT) of one step."""
        ...

    def carried(self, epoch: int, index: int) -> int:
        """How many texts the state has that this batch goes on from, that of the batch before; 0 if it is zero."""
        ...


class Streams:
    """The ids as B contiguous streams, T characters a step, one after the other.

    Every character but the first is predicted exactly once an epoch: streams differ by one character at most, and those
    that end early are masked there.
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
        targets = predicted(ids, wrap)
        self.batch_size = min(batch_size, targets)
        self._starts = np.arange(self.batch_size + 1) * targets // self.batch_size
        self._length = math.ceil(targets / self.batch_size)  # of the longest stream

    def __len__(self) -> int:
        return math.ceil(self._length / self._seq_length)

    def batch(self, epoch: int, index: int) -> Batch:
        """(inputs_BT, targets_BT); T is smaller in the last step. The epoch makes no difference."""
        begin = index * self._seq_length
        width = min(self._seq_length, self._length - begin)
        starts = self._starts[:-1] + begin
        return _rows(self._ids, starts, np.minimum(self._starts[1:] - starts, width), width, self._last)

    def carried(self, epoch: int, index: int) -> int:
        """All streams, but at the start of an epoch."""
        return self.batch_size if index and self._carries_state else 0


class Windows:
    """Every window of T characters predicts the character after it; shuffled anew each epoch."""

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
        """None: every window begins from the zero state."""
        return 0


class Records:
    """One record a row, padded to the longest in the batch; longer ones are cut into pieces of T. Shuffled each epoch.

    Every piece starts from a zero state. A text without records is cut into pieces of T; one with records begins and
    ends at a separator, so there is nothing to wrap.
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
        marks = np.array([0, predicted(ids, wrap)]) if separator_id is None else separators(ids, separator_id)
        self._starts, widths = pieces(marks[:-1], np.diff(marks), seq_length)
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
        """None: every piece begins from the zero state."""
        return 0


def predicted(ids: Ids, wrap: bool) -> int:
    """How many characters have one that follows."""
    return len(ids) if wrap else len(ids) - 1


def _rows(ids: Ids, starts: Array, widths: Array, width: int, last: bool) -> Batch:
    """Reads one row of `widths[b]` inputs from each start; the targets are the same ids one further on."""
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
    """The layout that the settings ask for, made smaller where the text is too short for it, with a notice.

    independent: whether the text is of records that have nothing to do with each other.

    Raises:
        TextError: if there is nothing to predict.
    """
    if len(ids) < 2:
        raise TextError(f"training needs at least 2 characters; the training split has {len(ids)}")
    asked_B, asked_T = settings.batch_size, settings.seq_length
    targets = predicted(ids, settings.wrap)
    seq_length = min(asked_T, targets)
    last, wrap = settings.loss == "last", settings.wrap
    layout: Streams | Windows | Records
    if independent:
        return _groups(ids, separator_id, settings, asked_B, seq_length, notice)
    if settings.batches == "windows":
        layout = Windows(ids, asked_B, seq_length, settings.seed, wrap)
    elif settings.batches == "records":
        layout = Records(ids, separator_id, asked_B, seq_length, settings.seed, last, wrap)
    else:
        streams = max(1, min(asked_B, targets // seq_length))
        layout = Streams(ids, streams, seq_length, settings.state == "carry", last, wrap)
    if (layout.batch_size, seq_length) != (asked_B, asked_T):
        notice(
            f"the training text ({len(ids):,} tokens) is too short for {asked_B} x {asked_T} characters a step; "
            f"using {layout.batch_size} x {seq_length}"
        )
    return layout


def validation_batches(
    ids: Ids, separator_id: int | None, settings: TrainingSettings, independent: bool, streams: int
) -> Batches | None:
    """The same layout for measuring, with long steps where the state is carried; None for an empty split.

    Every target comes once in epoch 0, in an order that makes any beginning of it a fair sample.
    """
    if len(ids) < 2:
        return None
    last, seq_length = settings.loss == "last", min(settings.seq_length, len(ids) - 1)
    length = seq_length if last or settings.state == "reset" else MEASURED_LENGTH
    if independent:
        return _groups(ids, separator_id, settings, MEASURED_ROWS, length)
    if settings.batches == "windows" and len(ids) > settings.seq_length:
        return Windows(ids, settings.batch_size, seq_length, settings.seed)
    if settings.batches == "records":
        return Records(ids, separator_id, settings.batch_size, seq_length, settings.seed, last)
    return Streams(ids, max(1, min(streams, (len(ids) - 1) // length)), length, settings.state == "carry", last)


def _groups(
    ids: Ids,
    separator_id: int | None,
    settings: TrainingSettings,
    rows: int,
    seq_length: int,
    notice: Callable[[str], None] = lambda _: None,
) -> Groups:
    assert separator_id is not None
    groups = Groups(
        ids, separator_id, rows, seq_length, settings.seed, settings.state == "carry", settings.loss == "last"
    )
    if groups.cut:
        notice(
            f"records of more than {groups.longest:,} characters are cut into pieces, each read from the zero state: "
            f"{groups.cut:,} more than there are records"
        )
    return groups
