"""Independent records → batches: whole records side by side, each from the zero state.

A group has one record in each batch row. Short records take one step. Longer records take several steps, with the state
carried between them: gradients reach back one step, the state to the beginning of the record. The records of a group
have widths of one class; their order is random and new in each epoch. A class has as many widths as padding allows. If
all records of a step had the same width, the model would learn that all records end there (LOG.md, "how alike the
widths of records in a batch are").

The index holds the position of every record, class after class. A small index is in memory. A large one is in a
temporary file that is mapped for a moment, as the ids are: 30 million records take 240 MB.

Shapes: R rows of a group, T tokens a step. The width of a record is its number of targets: its tokens and a separator.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from charloom.data.ids import MAPPED_ABOVE, Ids, count_separators, separator_blocks
from charloom.data.shuffle import Array, shuffled

NOTHING = -1
LONGEST = 16
"""Steps that a record may take; a longer record is cut into chunks of this many steps. Without the limit, a few long
records (the chapters of a book) give batches with few rows. A chunk begins from the zero state. So
in a chunk of 16 x 64 characters, the model predicts the first dozens worse.
"""

RATIO = 1.25
"""Largest width over smallest width in a bin. Classes are made of bins."""

FILLED = 1 / 3
"""The part of a class's rows that must be targets; the rest is padding. A class of few wide records may have less."""


@dataclass(frozen=True)
class WidthClass:
    """Records of similar widths, which stand together in the index.

    first, count: their range in the index; widest: the largest width; rows: of a group, at most. Every group has a
    record that takes as many steps as the widest.
    """

    first: int
    count: int
    widest: int
    rows: int

    @property
    def groups(self) -> int:
        """Groups in an epoch."""
        return -(-self.count // self.rows)


class GroupBatches:
    """The layout of independent records; see `charloom.data.batches.Batches`.

    Args:
        ids: a split, with a separator before the first record and after the last.
        separator_id: the id of the separator.
        batch_size, seq_length: B and T. A group has B rows of T tokens a step. If its records are shorter than T, it
            has more rows, for B x T tokens.
        seed: of the random orders.
        carries_state: whether the state is carried through a record longer than T. If not, each T tokens of it begin
            from the zero state.
        last: whether only the last target of each row counts.
    """

    def __init__(
        self,
        ids: Ids,
        separator_id: int,
        batch_size: int,
        seq_length: int,
        seed: int,
        carries_state: bool = True,
        last: bool = False,
    ) -> None:
        self._ids, self._separator, self._seed, self._last, self._seq_length = ids, separator_id, seed, last, seq_length
        self.longest = seq_length * (LONGEST if carries_state else 1)
        """Tokens after which a record is cut."""
        bins, self._starts = _index(ids, separator_id, seq_length, self.longest)
        self.records = count_separators(ids, separator_id) - 1
        """The number of records."""
        self.cut = len(self._starts) - self.records
        """The number of chunks minus the number of records."""
        self._classes = _classes(bins, batch_size, seq_length)
        self._groups = np.array([c.groups for c in self._classes])
        self._steps = np.array([_steps(c.widest, seq_length) for c in self._classes])
        self._epoch, self._order, self._ends = -1, np.arange(0), np.arange(0)
        self._group, self._cached = (-1, -1), (np.zeros((0, 0), np.int64), np.zeros((0, 0), np.int64))

    def __len__(self) -> int:
        return int(self._groups @ self._steps)

    def carried(self, epoch: int, index: int) -> int:
        """The rows of the group; 0 in its first step."""
        group, step = self._place(epoch, index)
        return len(self._rows(epoch, group)[0]) if step else 0

    def batch(self, epoch: int, index: int) -> tuple[Array, Array]:
        """(inputs_RT, targets_RT) of one step of a group; a record that is shorter than the widest is padded."""
        group, step = self._place(epoch, index)
        part = slice(step * self._seq_length, (step + 1) * self._seq_length)
        inputs, targets = (array[:, part] for array in self._rows(epoch, group))
        return inputs, _only_last(targets) if self._last else targets

    def _place(self, epoch: int, index: int) -> tuple[int, int]:
        """(group, its step): groups follow one another in a random order; each takes as many steps as it needs."""
        if epoch != self._epoch:
            total = int(self._groups.sum())
            self._order = shuffled(np.arange(total), total, self._seed, epoch)
            steps = np.repeat(self._steps, self._groups)[self._order]
            self._epoch, self._ends = epoch, np.cumsum(steps)
        turn = int(np.searchsorted(self._ends, index, side="right"))
        begin = int(self._ends[turn - 1]) if turn else 0
        return int(self._order[turn]), index - begin

    def _rows(self, epoch: int, group: int) -> tuple[Array, Array]:
        """Inputs and targets of a whole group; the latest is cached, because its steps follow one another."""
        if self._group != (epoch, group):
            self._group, self._cached = (epoch, group), self._read(*self._records(epoch, group))
        return self._cached

    def _records(self, epoch: int, group: int) -> tuple[Array, int]:
        """The positions of a group's records in the ids, and the width of the widest of their class."""
        firsts = np.cumsum(self._groups)
        number = int(np.searchsorted(firsts, group, side="right"))
        within = group - int(firsts[number] - self._groups[number])
        c = self._classes[number]
        edges = [c.count * n // c.groups for n in (within, within + 1)]
        places = shuffled(np.arange(*edges), c.count, self._seed, epoch)
        return self._starts.view()[c.first + places].astype(np.int64), c.widest

    def _read(self, starts: Array, widest: int) -> tuple[Array, Array]:
        view = self._ids.view()
        places = np.minimum(starts[:, None] + np.arange(widest + 1), len(view) - 1)
        block = view[places].astype(np.int64)
        ends = block[:, 1:] == self._separator
        widths = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, widest)  # a chunk may have no separator
        inside = np.arange(widest) < widths[:, None]
        return np.where(inside, block[:, :-1], 0), np.where(inside, block[:, 1:], NOTHING)


def _only_last(targets: Array) -> Array:
    """Only the last target of each row."""
    there = targets != NOTHING
    after = np.cumsum(there[:, ::-1], axis=1)[:, ::-1]
    return np.where(there & (after == 1), targets, NOTHING)


class WidthBin(NamedTuple):
    """Records of nearly the same width. records: their number; widest: the largest width; targets: sum of widths."""

    records: int
    widest: int
    targets: int


def _classes(bins: Sequence[WidthBin], batch_size: int, seq_length: int) -> list[WidthClass]:
    """Joins bins to classes; both are in order of width, narrowest first.

    Bins are joined while they take the same number of steps and padding stays small. A class with too few records for
    one group also takes narrower records.
    """
    left, found, end = list(bins), list[WidthClass](), sum(b.records for b in bins)
    while left:
        count, widest, total = left.pop()
        while left and _joins(left[-1], count, widest, total, seq_length):
            more = left.pop()
            count, total = count + more.records, total + more.targets
        rows = max(batch_size, batch_size * seq_length // widest)
        while left and count < rows:
            more = left.pop()
            taken = min(more.records, rows - count)
            count += taken
            if rest := more.records - taken:
                left.append(WidthBin(rest, more.widest, more.targets * rest // more.records))
        end -= count
        found.append(WidthClass(end, count, widest, rows))
    return found[::-1]


def _joins(width_bin: WidthBin, count: int, widest: int, total: int, seq_length: int) -> bool:
    """Whether a narrower bin can join a class of `count` records with `total` targets."""
    filled = total + width_bin.targets >= FILLED * widest * (count + width_bin.records)
    return filled and _steps(width_bin.widest, seq_length) == _steps(widest, seq_length)


def _steps(width: int, seq_length: int) -> int:
    return -(-width // seq_length)


def _index(ids: Ids, separator_id: int, seq_length: int, longest: int) -> tuple[list[WidthBin], Ids]:
    """The bins that have records, narrowest first, and the positions of all records, bin after bin."""
    bounds = _bounds(seq_length, longest)
    counts, widest, sums = (np.zeros(len(bounds), np.int64) for _ in range(3))
    for _, widths in _records(ids, separator_id, longest):
        of = np.searchsorted(bounds, widths)
        counts += np.bincount(of, minlength=len(bounds))
        np.add.at(sums, of, widths)
        np.maximum.at(widest, of, widths)
    store = _PositionStore(int(counts.sum()), ids.folder)
    free = np.cumsum(counts) - counts
    for starts, widths in _records(ids, separator_id, longest):
        of = np.searchsorted(bounds, widths)
        here = np.bincount(of, minlength=len(bounds))
        parts = np.split(starts[np.argsort(of, kind="stable")], np.cumsum(here)[:-1])
        for index in np.flatnonzero(here).tolist():
            store.write(int(free[index]), parts[index])
        free += here
    there = zip(counts.tolist(), widest.tolist(), sums.tolist(), strict=True)
    return [WidthBin(*values) for values in there if values[0]], store.ids()


def _bounds(seq_length: int, longest: int) -> NDArray[np.int64]:
    """The largest width of each bin. Each is a quarter larger, at least by 1; multiples of `seq_length` are added."""
    bounds, width = {1, *range(seq_length, longest + 1, seq_length)}, 1
    while width < longest:
        width = min(longest, max(width + 1, int(width * RATIO)))
        bounds.add(width)
    return np.array(sorted(bounds))


def _records(ids: Ids, separator_id: int, longest: int) -> Iterator[tuple[Array, Array]]:
    """(starts, widths) of records, or of chunks of long records, in the order of the ids, a block at a time."""
    marks = np.arange(0)
    for found in separator_blocks(ids, separator_id):
        marks = np.concatenate([marks[-1:], found])
        if len(marks) > 1:
            yield chunks(marks[:-1], np.diff(marks), longest)


def chunks(starts: Array, lengths: Array, most: int) -> tuple[Array, Array]:
    """Cuts ranges of ids into chunks of at most `most`: their starts and lengths, in order."""
    counts = -(-lengths // most)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    offset = (np.arange(counts.sum()) - first) * most
    return np.repeat(starts, counts) + offset, np.minimum(np.repeat(lengths, counts) - offset, most)


class _PositionStore:
    """`count` positions, written in any order, in memory or in a temporary file without a name."""

    def __init__(self, count: int, folder: Path | None) -> None:
        self._count = count
        self._array = np.empty(count, np.int64) if count * 8 <= MAPPED_ABOVE else None
        if self._array is None:
            self._file = cast(IO[bytes], tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - as long as it is viewed
            weakref.finalize(self, self._file.close)

    def write(self, place: int, positions: Array) -> None:
        """Writes positions from `place` on.

        Raises:
            OSError: if the disk is full. (On a full disk, assigning to a map ends the process.)
        """
        if self._array is not None:
            self._array[place : place + len(positions)] = positions
            return
        self._file.seek(place * 8)
        self._file.write(positions.tobytes())
        self._file.flush()

    def _view(self) -> NDArray[np.int64]:
        return np.memmap(self._file, np.int64, "r", shape=(self._count,)) if self._array is None else self._array

    def ids(self) -> Ids:
        """All positions, for reading."""
        return Ids(self._count, self._view)
