"""Token ids in memory or in a file, their check, and the positions of the record separators."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.data.vocabulary import Vocabulary
from charloom.errors import ModelError

MAPPED_ABOVE = 64 << 20  # bytes; a smaller range is copied to memory, which is as fast
BLOCK = 1 << 22  # ids processed in one block


class Ids:
    """A contiguous range of ids: an array in memory, or a file that is mapped for a moment.

    A map that stays open counts every page that was read as resident memory.
    """

    def __init__(self, length: int, view: Callable[[], NDArray[Any]], folder: Path | None = None) -> None:
        self._length, self.folder = length, folder
        self.view = view
        """The ids as a read-only array; the caller must not keep it after one batch."""

    @classmethod
    def of(cls, array: NDArray[Any]) -> Ids:
        """Ids in memory."""
        return cls(len(array), lambda: array)

    @classmethod
    def in_file(cls, path: Path, dtype: np.dtype[Any], start: int = 0, stop: int | None = None) -> Ids:
        """Ids start … stop-1 of a file; a small range is read into memory."""
        length = (path.stat().st_size // dtype.itemsize if stop is None else stop) - start
        if length * dtype.itemsize <= MAPPED_ABOVE:
            return cls.of(np.fromfile(path, dtype, length, offset=start * dtype.itemsize))
        return cls(length, lambda: np.memmap(path, dtype, "r", start * dtype.itemsize, (length,)), path.parent)

    def __len__(self) -> int:
        return self._length

    def blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """(position, ids) in blocks of bounded size."""
        for start in range(0, self._length, BLOCK):
            yield start, self.view()[start : start + BLOCK]


def separator_blocks(ids: Ids, separator_id: int) -> Iterator[NDArray[np.int64]]:
    """Positions of all separator ids, a block at a time."""
    return (position + np.flatnonzero(block == separator_id) for position, block in ids.blocks())


def separator_positions(ids: Ids, separator_id: int) -> NDArray[np.int64]:
    """Positions of all separator ids, 8 bytes each."""
    return np.concatenate([np.arange(0), *separator_blocks(ids, separator_id)])


def count_separators(ids: Ids, separator_id: int) -> int:
    """The number of separator ids."""
    return sum(map(len, separator_blocks(ids, separator_id)))


def separators_at(ids: Ids, separator_id: int, numbers: list[int]) -> dict[int, int]:
    """The positions of the separators with these numbers, counted from 0."""
    found, before = dict[int, int](), 0
    for marks in separator_blocks(ids, separator_id):
        found |= {n: int(marks[n - before]) for n in numbers if before <= n < before + len(marks)}
        before += len(marks)
    return found


def check_ids(path: Path, vocabulary: Vocabulary, sha256: str | None) -> None:
    """Checks the ids against the vocabulary and the checksum, in blocks of bounded size.

    With an id outside the vocabulary, a kernel would access memory outside its arrays. The checksum is needed too: a
    power cut may leave zeros in a file, and zeros are valid ids.

    Raises:
        ModelError: if an id or the checksum is wrong.
    """
    digest = hashlib.sha256()
    for position, block in Ids.in_file(path, vocabulary.dtype).blocks():
        if int(block.max()) >= vocabulary.size:
            first = int(np.argmax(block >= vocabulary.size))
            raise ModelError(
                f"{path}: every id must be below {vocabulary.size}, the vocabulary size in dataset.json; "
                f"found {block[first]} at position {position + first}; one of the two files is damaged"
            )
        digest.update(block.data)
    if sha256 not in (None, digest.hexdigest()):
        raise ModelError(
            f"{path} must have the SHA-256 that dataset.json gives; found another; one of the two files is damaged; "
            "take both from a copy of the run, or start again"
        )
