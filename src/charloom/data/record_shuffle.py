"""The records of a file of ids in a random order, in bounded memory.

Each record goes to the bucket that holds its new position. Then the records of each bucket are sorted. So a file of any
size is read and written twice, from start to end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from charloom.data.ids import BLOCK, Ids, count_separators
from charloom.data.shuffle import shuffled
from charloom.data.vocabulary import Vocabulary

BUCKET, MOST_BUCKETS = 1 << 25, 128  # ids in a bucket, as a mean; each bucket keeps three files open
SPLITTING = 2**62  # in place of an epoch: records are shuffled before the split


def shuffle_records(path: Path, vocabulary: Vocabulary, seed: int) -> None:
    """Puts the records of a file of ids into a random order. Only some buckets are in memory at the same time."""
    ids, separator_id = Ids.in_file(path, vocabulary.dtype), vocabulary.separator_id
    assert separator_id is not None
    records = count_separators(ids, separator_id) - 1
    with ExitStack() as files:
        count = min(records, MOST_BUCKETS, -(-len(ids) // BUCKET))
        buckets = [_Bucket(vocabulary.dtype, path.parent, files) for _ in range(count)]
        _distribute(ids, separator_id, records, seed, buckets)
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as file:
            for bucket in buckets:
                for part in bucket.sorted():
                    file.write(part.tobytes())
            file.write(np.array(separator_id, vocabulary.dtype).tobytes())
    fresh.replace(path)


def _distribute(ids: Ids, separator_id: int, records: int, seed: int, buckets: Sequence[_Bucket]) -> None:
    """Adds each record to the bucket of its new position; a record that spans two blocks is added in two parts."""
    number = -1  # number of the last record that has begun
    for _, block in ids.blocks():
        marks = np.flatnonzero(block == separator_id)
        starts = marks if len(marks) and marks[0] == 0 else np.concatenate([[0], marks])  # 0: a record continues
        numbers = number + np.arange(len(starts)) + (len(starts) == len(marks))
        number += len(marks)
        widths = np.diff(starts, append=len(block))
        inside = numbers < records  # no record begins at the last separator
        positions = shuffled(numbers[inside], records, seed, SPLITTING)
        of_bucket = positions * len(buckets) // records
        for index in np.unique(of_bucket):
            mine = np.flatnonzero(of_bucket == index)
            buckets[index].add(positions[mine], widths[mine], _gather(block, starts[mine], widths[mine]))


class _Bucket:
    """Records with neighbouring new positions, in temporary files: all ids, and position and width of each record."""

    def __init__(self, dtype: np.dtype[Any], folder: Path, files: ExitStack) -> None:
        self._dtype = dtype
        self._ids, self._positions, self._widths = (_temporary(folder, files) for _ in range(3))

    def add(self, positions: NDArray[Any], widths: NDArray[Any], ids: NDArray[Any]) -> None:
        """Adds records, or parts of records; a later part follows an earlier one of the same position."""
        for file, array in ((self._ids, ids), (self._positions, positions), (self._widths, widths)):
            file.write(array.tobytes())

    def sorted(self) -> Iterator[NDArray[Any]]:
        """All ids, in the order of the positions of their records, in blocks."""
        ids, positions, widths = (
            _mapped(file, dtype)
            for file, dtype in ((self._ids, self._dtype), (self._positions, np.int64), (self._widths, np.int64))
        )
        starts = np.cumsum(widths) - widths
        order = np.argsort(positions, kind="stable")
        ends = np.cumsum(widths[order])
        cuts = np.searchsorted(ends, np.arange(BLOCK, ends[-1] if len(ends) else 0, BLOCK))
        for part in np.split(order, cuts):
            yield _gather(ids, starts[part], widths[part])


def _temporary(folder: Path, files: ExitStack) -> IO[bytes]:
    return files.enter_context(tempfile.TemporaryFile(dir=folder))


def _mapped(file: IO[bytes], dtype: Any) -> NDArray[Any]:
    file.flush()
    return np.memmap(file, dtype, "r")


def _gather(ids: NDArray[Any], starts: NDArray[Any], widths: NDArray[Any]) -> NDArray[Any]:
    """`widths` ids from each of the starts, one after the other."""
    found: NDArray[Any] = ids[np.repeat(starts - np.cumsum(widths) + widths, widths) + np.arange(widths.sum())]
    return found
