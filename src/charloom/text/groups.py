"""Independent records → batches: whole records of similar lengths side by side, each from the zero state.

A group holds the records of some rows. Short ones are read in one step. Longer ones take several, and the state is
carried between those: gradients reach back one step, the state to the record's beginning. Classes of widths keep the
padding small: the records of a group are of one class, in a random order of their own each epoch.

The index of the records holds the position of each, class after class. It is in memory where it is small, else in a
temporary file that is mapped for a moment, as the ids are: 30 million records take 240 MB.

Shapes: R rows of a group, T characters a step. The width of a record is its targets: its characters and a boundary.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from charloom.text.dataset import MAPPED_ABOVE, Ids, boundary_blocks
from charloom.text.shuffle import Array, shuffled

NOTHING = -1
LONGEST = 16
"""Steps that a record may take; a longer one is cut into pieces of so many. Otherwise a few long records (the chapters
of a book) would leave a batch with few rows. A piece begins from the zero state: of 16 x 64 characters it is the first
dozens that are predicted worse for that.
"""

RATIO = 1.25
"""Of the widths in a class: then at most a fifth of a row is padding, and a tenth on average."""


@dataclass(frozen=True)
class Class:
    """Records of similar widths, which lie together in the index.

    first, count: their places in the index; widest: the width of the widest; rows: of a group, at most.
    """

    first: int
    count: int
    widest: int
    rows: int

    @property
    def groups(self) -> int:
        """In an epoch."""
        return -(-self.count // self.rows)


class Groups:
    """The layout of independent records; see `charloom.text.batches.Batches`.

    Args:
        ids: a split, with a boundary before the first record and after the last.
        boundary_id: of the boundary.
        batch_size, seq_length: B and T. A group has B rows of T characters a step; where its records are shorter than
            T, so many more rows as give B x T characters.
        seed: of the orders.
        carries_state: whether a record longer than T is read from its beginning; otherwise each T characters of it
            begin from the zero state.
        last: whether each row of a step has one target, its last.
    """

    def __init__(
        self,
        ids: Ids,
        boundary_id: int,
        batch_size: int,
        seq_length: int,
        seed: int,
        carries_state: bool = True,
        last: bool = False,
    ) -> None:
        self._ids, self._boundary, self._seed, self._last, self._seq_length = ids, boundary_id, seed, last, seq_length
        longest = seq_length * (LONGEST if carries_state else 1)
        self._starts, counts, widest = _index(ids, boundary_id, longest)
        self._classes = _classes(counts, widest, batch_size, batch_size * seq_length)
        self._groups = np.array([c.groups for c in self._classes])
        self._steps = np.array([-(-c.widest // seq_length) for c in self._classes])
        self._epoch, self._order, self._ends = -1, np.arange(0), np.arange(0)
        self._group, self._cached = (-1, -1), (np.zeros((0, 0), np.int64), np.zeros((0, 0), np.int64))

    def __len__(self) -> int:
        return int(self._groups @ self._steps)

    def carried(self, epoch: int, index: int) -> int:
        """The rows of the group, but for its first step."""
        group, step = self._place(epoch, index)
        return len(self._rows(epoch, group)[0]) if step else 0

    def batch(self, epoch: int, index: int) -> tuple[Array, Array]:
        """(inputs_RT, targets_RT) of one step of a group; padded where a record ends before the widest."""
        group, step = self._place(epoch, index)
        part = slice(step * self._seq_length, (step + 1) * self._seq_length)
        inputs, targets = (array[:, part] for array in self._rows(epoch, group))
        return inputs, _only_last(targets) if self._last else targets

    def _place(self, epoch: int, index: int) -> tuple[int, int]:
        """(group, step of it): groups follow one another in a random order, and take as many steps as they need."""
        if epoch != self._epoch:
            total = int(self._groups.sum())
            self._order = shuffled(np.arange(total), total, self._seed, epoch)
            steps = np.repeat(self._steps, self._groups)[self._order]
            self._epoch, self._ends = epoch, np.cumsum(steps)
        turn = int(np.searchsorted(self._ends, index, side="right"))
        begin = int(self._ends[turn - 1]) if turn else 0
        return int(self._order[turn]), index - begin

    def _rows(self, epoch: int, group: int) -> tuple[Array, Array]:
        """inputs and targets of a whole group; the last one stays at hand, since its steps follow one another."""
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
        ends = block[:, 1:] == self._boundary
        widths = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, widest)  # a piece of a long record has no end
        inside = np.arange(widest) < widths[:, None]
        return np.where(inside, block[:, :-1], 0), np.where(inside, block[:, 1:], NOTHING)


def _only_last(targets: Array) -> Array:
    """The last target of each row alone."""
    there = targets != NOTHING
    after = np.cumsum(there[:, ::-1], axis=1)[:, ::-1]
    return np.where(there & (after == 1), targets, NOTHING)


def _classes(counts: Array, widest: Array, batch_size: int, characters: int) -> list[Class]:
    """Classes of widths, from the narrowest; neighbours are joined until each has enough records for a group."""
    found: list[Class] = []
    end, count, most = int(counts.sum()), 0, 0
    for here, width in zip(counts[::-1].tolist(), widest[::-1].tolist(), strict=True):
        count, most = count + here, max(most, width)
        rows = max(batch_size, characters // max(1, most))
        if count >= rows:
            end -= count
            found.append(Class(end, count, most, rows))
            count, most = 0, 0
    if count and found:
        last = found.pop()
        found.append(Class(0, last.count + count, last.widest, last.rows))
    elif count:
        found.append(Class(0, count, most, max(batch_size, characters // most)))
    return found[::-1]


def _index(ids: Ids, boundary_id: int, longest: int) -> tuple[Ids, Array, Array]:
    """The positions of all records, class after class, and of each class how many there are and the widest's width."""
    bounds = _bounds(longest)
    counts, widest = np.zeros(len(bounds), np.int64), np.zeros(len(bounds), np.int64)
    for _, widths in _records(ids, boundary_id, longest):
        kinds = np.searchsorted(bounds, widths)
        counts += np.bincount(kinds, minlength=len(bounds))
        np.maximum.at(widest, kinds, widths)
    store = _Store(int(counts.sum()))
    free = np.cumsum(counts) - counts
    for starts, widths in _records(ids, boundary_id, longest):
        kinds = np.searchsorted(bounds, widths)
        order = np.argsort(kinds, kind="stable")
        here = np.bincount(kinds, minlength=len(bounds))
        for kind, part in zip(
            np.flatnonzero(here), np.split(starts[order], np.cumsum(here[here > 0])[:-1]), strict=True
        ):
            store.write(int(free[kind]), part)
        free += here
    return store.ids(), counts, widest


def _bounds(longest: int) -> NDArray[np.int64]:
    """The widest record of each class: one more, then a quarter more each time."""
    bounds = [1]
    while bounds[-1] < longest:
        bounds.append(min(longest, max(bounds[-1] + 1, int(bounds[-1] * RATIO))))
    return np.array(bounds)


def _records(ids: Ids, boundary_id: int, longest: int) -> Iterator[tuple[Array, Array]]:
    """(starts, widths) of records, or of pieces of one, in the order of the ids; some blocks at a time."""
    marks = np.arange(0)
    for found in boundary_blocks(ids, boundary_id):
        marks = np.concatenate([marks[-1:], found])
        if len(marks) > 1:
            yield pieces(marks[:-1], np.diff(marks), longest)


def pieces(starts: Array, lengths: Array, most: int) -> tuple[Array, Array]:
    """Cuts runs of ids into pieces of at most `most`: their starts and lengths, in order."""
    counts = -(-lengths // most)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    offset = (np.arange(counts.sum()) - first) * most
    return np.repeat(starts, counts) + offset, np.minimum(np.repeat(lengths, counts) - offset, most)


class _Store:
    """So many positions, written in any order: in memory, or in a temporary file that nobody else sees."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._array = np.empty(count, np.int64) if count * 8 <= MAPPED_ABOVE else None
        if self._array is None:
            self._file = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115 - as long as a view may be asked for
            self._file.truncate(count * 8)
            weakref.finalize(self, self._file.close)

    def _view(self, mode: Literal["r", "r+"] = "r") -> NDArray[np.int64]:
        return np.memmap(self._file, np.int64, mode, shape=(self._count,)) if self._array is None else self._array

    def write(self, place: int, positions: Array) -> None:
        """Puts positions at a place and those after it."""
        self._view("r+")[place : place + len(positions)] = positions

    def ids(self) -> Ids:
        """All of them, to be read."""
        return Ids(self._count, self._view)
