"""Clean text → ids on disk, with their vocabulary and split.

The text is read twice and is never whole in memory: once to see which characters there are, once to write an id for
each. The split is then a matter of positions; where counting on the training part alone changes the vocabulary (rare
characters folded, characters that only validation has), the ids are rewritten in place through a table.

A run keeps its ids (`data/` in the run folder, one or two bytes a character), so that resuming needs neither the
original files nor luck.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt

from charloom.config import Section, TextSettings, validated
from charloom.data.corpus import Corpus
from charloom.data.shuffle import shuffled
from charloom.data.vocabulary import RECORD_SEPARATOR, Vocabulary, code_points
from charloom.errors import ModelError, TextError
from charloom.files import opened, read, replace_file, sync

Notice = Callable[[str], None]
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

MAPPED_ABOVE = 64 << 20  # bytes; below, a copy in memory is simpler for the system and as fast
AUTO_BYTES_ABOVE = 4000  # distinct characters; see LOG.md, "characters or bytes"
BLOCK = 1 << 22  # ids handled at once
PILE, MOST_PILES = 1 << 25, 128  # ids of a pile of records, when they are shuffled; each pile has three files open
SPLITTING = 2**62  # in place of an epoch's number, where records are shuffled before the split


class Ids:
    """A contiguous run of ids, as an array that is there or one that is mapped from a file for a moment.

    A map that lived on would count every page it ever touched as resident memory.
    """

    def __init__(self, length: int, view: Callable[[], NDArray[Any]], folder: Path | None = None) -> None:
        self._length, self.folder = length, folder
        self.view = view
        """The ids as a read-only array; hold it no longer than for one batch."""

    @classmethod
    def of(cls, array: NDArray[Any]) -> Ids:
        """Ids that are in memory."""
        return cls(len(array), lambda: array)

    @classmethod
    def in_file(cls, path: Path, dtype: np.dtype[Any], start: int = 0, stop: int | None = None) -> Ids:
        """Ids start … stop-1 of a file; a part that is not large is read at once."""
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


@dataclass(frozen=True)
class Dataset:
    """The ids of a corpus, in `folder`.

    bounds: for each split its first id and the one after its last (with records, neighbours share a separator id);
    characters: code points in the whole text; sha256: of the clean text in UTF-8, U+001E for every separator.
    """

    folder: Path
    vocabulary: Vocabulary
    bounds: dict[SplitName, tuple[int, int]]
    characters: int
    sha256: str

    def ids(self, split: SplitName) -> Ids:
        """The ids of one split; empty if it has none."""
        return Ids.in_file(self.folder / "ids.bin", self.vocabulary.dtype, *self.bounds[split])

    def save(self) -> None:
        """Writes what `open_dataset` reads, beside the ids, and makes both last through a power cut."""
        with (self.folder / "ids.bin").open("rb") as ids:
            digest = hashlib.file_digest(ids, "sha256").hexdigest()
        data = {
            "vocabulary": self.vocabulary.to_json(),
            "bounds": self.bounds,
            "characters": self.characters,
            "sha256": self.sha256,
            "ids_sha256": digest,
        }
        sync(self.folder / "ids.bin")
        replace_file(self.folder / "dataset.json", json.dumps(data).encode())


class _Bounds(Section):
    train: tuple[NonNegativeInt, NonNegativeInt]
    validation: tuple[NonNegativeInt, NonNegativeInt]
    test: tuple[NonNegativeInt, NonNegativeInt]


class _Stored(Section):
    """What `dataset.json` holds; ids_sha256: of `ids.bin`; older runs lack it."""

    vocabulary: dict[str, Any]
    bounds: _Bounds
    characters: NonNegativeInt
    sha256: str
    ids_sha256: str | None = None


def open_dataset(folder: Path) -> Dataset:
    """The dataset that `prepare` wrote.

    Raises:
        ModelError: if it is not there or its parts do not match.
    """
    try:
        with opened(folder / "ids.bin") as ids:
            size = os.fstat(ids.fileno()).st_size
        stored = validated(_Stored, json.loads(read(folder / "dataset.json").decode("utf-8")))
        vocabulary = Vocabulary.from_json(stored.vocabulary)
    except OSError as error:
        reason = f"{Path(error.filename).name}: {error.strerror}"
        raise ModelError(f"{folder} must hold a run's data; {reason}; was the folder copied whole?") from None
    except (ValueError, TypeError, RecursionError, ModelError) as error:
        raise ModelError(f"{folder / 'dataset.json'} must be as a run left it; it is damaged: {error}") from None
    bounds: dict[SplitName, tuple[int, int]] = {name: getattr(stored.bounds, name) for name in SPLITS}
    ordered = all(start <= stop for start, stop in bounds.values())
    if not ordered or size != max(stop for _, stop in bounds.values()) * vocabulary.dtype.itemsize:
        raise ModelError(f"{folder / 'ids.bin'} has {size} bytes, which does not fit dataset.json; one is damaged")
    _check_ids(folder / "ids.bin", vocabulary, stored.ids_sha256)
    dataset = Dataset(folder, vocabulary, bounds, stored.characters, stored.sha256)
    _check_separators(dataset)
    return dataset


def _check_separators(dataset: Dataset) -> None:
    """Makes sure that the records of a split begin and end with a separator, as every layout takes for granted.

    Raises:
        ModelError: if they do not.
    """
    separator_id = dataset.vocabulary.separator_id
    for name in SPLITS if separator_id is not None else ():
        ids = dataset.ids(name)
        if len(ids) and (len(ids) < 2 or not {*ids.view()[[0, -1]].tolist()} == {separator_id}):
            raise ModelError(
                f"{dataset.folder / 'ids.bin'}: the records of the {name} split must begin and end with a separator; "
                "they do not; ids.bin or dataset.json is damaged"
            )


def _check_ids(path: Path, vocabulary: Vocabulary, sha256: str | None) -> None:
    """Makes sure that the ids are those that were written, and all the vocabulary's, in blocks of bounded memory.

    Raises:
        ModelError: if not. With an id beyond the vocabulary a kernel would read and write beside its arrays; and what
            a power cut leaves of a file, zeros, are valid ids.
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


def prepare(
    corpus: Corpus,
    settings: TextSettings,
    folder: Path,
    notice: Notice,
    base: Vocabulary | None = None,
    seed: int = 0,
) -> Dataset:
    """Reads, cleans, encodes and splits a corpus into `folder`; independent records are shuffled before they are split.

    Args:
        corpus: opened with the same settings.
        folder: an existing, empty folder.
        notice: called with one line for everything that a person should know.
        base: a vocabulary whose tokens are kept, seen or not (that of a model to fine-tune).
        seed: of the order of independent records.

    Raises:
        TextError: if the text cannot be read, or has fewer than 2 characters.
    """
    vocabulary, characters, sha256 = _survey(corpus, settings)
    if characters < 2:
        raise TextError(f"a text must have at least 2 characters; {corpus.name} has {characters} after cleaning")
    if vocabulary.kind == "bytes" and settings.vocabulary == "auto":
        notice(
            f"more than {AUTO_BYTES_ABOVE:,} distinct characters: training on bytes (or pass --vocabulary characters)"
        )
    if vocabulary.kind == "bytes" and settings.min_count > 1:
        notice("--min-count changes nothing: a byte-level vocabulary is always all 256 bytes")
    path = folder / "ids.bin"
    with path.open("wb") as file:
        for piece in corpus.pieces():
            file.write(vocabulary.encode(piece).tobytes())
    if settings.independent and vocabulary.separator_id is not None:
        _shuffle(path, vocabulary, seed)
    ids = Ids.in_file(path, vocabulary.dtype)
    bounds = _split(ids, vocabulary, settings, notice)
    final = _final_vocabulary(ids, bounds, vocabulary, settings, notice, base)
    if final != vocabulary:
        _rewrite(ids, path, vocabulary, final)
    dataset = Dataset(folder, final, bounds, characters, sha256)
    dataset.save()
    return dataset


def _survey(corpus: Corpus, settings: TextSettings) -> tuple[Vocabulary, int, str]:
    """First reading: the whole text's vocabulary, its characters and its hash."""
    seen = np.zeros(0x110000, np.bool_)
    digest = hashlib.sha256()
    characters = 0
    for piece in corpus.pieces():
        seen[_new_code_points(piece, seen)] = True
        characters += len(piece) - piece.count(RECORD_SEPARATOR)
        digest.update(piece.replace(RECORD_SEPARATOR, "\x1e").encode("utf-8", "surrogateescape"))
    separator = bool(seen[ord(RECORD_SEPARATOR)])
    seen[ord(RECORD_SEPARATOR)] = False
    codes = np.flatnonzero(seen)
    wasteful = settings.vocabulary == "auto" and len(codes) > AUTO_BYTES_ABOVE
    if settings.vocabulary == "bytes" or wasteful:
        return Vocabulary("bytes", separator=separator, binary=settings.binary), characters, digest.hexdigest()
    return Vocabulary("characters", tuple(map(chr, codes)), separator=separator), characters, digest.hexdigest()


def _new_code_points(piece: str, seen: NDArray[np.bool_]) -> NDArray[Any]:
    """The code points of a piece, without most that were seen before: from ASCII they go at a gigabyte a second."""
    if not piece.isascii():
        return code_points(piece)
    known = bytes(np.flatnonzero(seen[:128]).tolist())
    return np.frombuffer(piece.encode("ascii").translate(None, known), np.uint8)


def _split(
    ids: Ids, vocabulary: Vocabulary, settings: TextSettings, notice: Notice
) -> dict[SplitName, tuple[int, int]]:
    """Where the splits begin and end; with records, a split begins and ends with a separator id."""
    if vocabulary.separator_id is None:
        cuts = np.cumsum([0, *_sizes(len(ids), 2, settings, notice)]).tolist()
        return {name: (cuts[i], cuts[i + 1]) for i, name in enumerate(SPLITS)}
    records = count_separators(ids, vocabulary.separator_id) - 1
    cuts = np.cumsum([0, *_sizes(records, 1, settings, notice)]).tolist()
    marks = _separators_at(ids, vocabulary.separator_id, cuts)
    return {
        name: (marks[cuts[i]], marks[cuts[i + 1]] + 1) if cuts[i] < cuts[i + 1] else (0, 0)
        for i, name in enumerate(SPLITS)
    }


def _sizes(units: int, smallest: int, settings: TextSettings, notice: Notice) -> list[int]:
    """Characters or records in each split; one smaller than `smallest` goes to training, with a notice."""
    fractions = settings.fractions
    first, second = int(units * fractions[0]), int(units * (fractions[0] + fractions[1]))
    sizes = [first, second - first, units - second]
    for i in (1, 2):
        if fractions[i] and (sizes[i] < smallest or sizes[0] < smallest):
            notice(f"the text is too short for a {SPLITS[i]} split; training takes its part")
            sizes[0], sizes[i] = sizes[0] + sizes[i], 0
    return sizes


def separator_blocks(ids: Ids, separator_id: int) -> Iterator[NDArray[np.int64]]:
    """Positions of all separator ids, those of a block at a time."""
    return (position + np.flatnonzero(block == separator_id) for position, block in ids.blocks())


def separators(ids: Ids, separator_id: int) -> NDArray[np.int64]:
    """Positions of all separator ids, 8 bytes each."""
    return np.concatenate([np.arange(0), *separator_blocks(ids, separator_id)])


def count_separators(ids: Ids, separator_id: int) -> int:
    """How many separator ids there are."""
    return sum(map(len, separator_blocks(ids, separator_id)))


def _separators_at(ids: Ids, separator_id: int, numbers: list[int]) -> dict[int, int]:
    """The positions of the separators of these numbers."""
    found, before = dict[int, int](), 0
    for marks in separator_blocks(ids, separator_id):
        found |= {n: int(marks[n - before]) for n in numbers if before <= n < before + len(marks)}
        before += len(marks)
    return found


def _shuffle(path: Path, vocabulary: Vocabulary, seed: int) -> None:
    """Puts the records of a file of ids into a random order, in memory for some `PILE`s of them.

    Each record goes to the pile that its place in the new order lies in; then each pile is sorted. So a file of any
    size is read and written from start to end, twice.
    """
    ids, separator_id = Ids.in_file(path, vocabulary.dtype), vocabulary.separator_id
    assert separator_id is not None
    records = count_separators(ids, separator_id) - 1
    with ExitStack() as files:
        count = min(records, MOST_PILES, -(-len(ids) // PILE))
        piles = [_Pile(vocabulary.dtype, path.parent, files) for _ in range(count)]
        _deal(ids, separator_id, records, seed, piles)
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as file:
            for pile in piles:
                for part in pile.sorted():
                    file.write(part.tobytes())
            file.write(np.array(separator_id, vocabulary.dtype).tobytes())
    fresh.replace(path)


def _deal(ids: Ids, separator_id: int, records: int, seed: int, piles: Sequence[_Pile]) -> None:
    """Each record to the pile of its place; one that two blocks share in parts."""
    number = -1  # of the last record that has begun
    for _, block in ids.blocks():
        marks = np.flatnonzero(block == separator_id)
        starts = marks if len(marks) and marks[0] == 0 else np.concatenate([[0], marks])  # one goes on, or all begin
        numbers = number + np.arange(len(starts)) + (len(starts) == len(marks))
        number += len(marks)
        widths = np.diff(starts, append=len(block))
        inside = numbers < records  # the last separator begins none
        places = shuffled(numbers[inside], records, seed, SPLITTING)
        of_pile = places * len(piles) // records
        for index in np.unique(of_pile):
            mine = np.flatnonzero(of_pile == index)
            piles[index].add(places[mine], widths[mine], _gather(block, starts[mine], widths[mine]))


class _Pile:
    """Records on their way to a place, in temporary files: their ids one after the other, their places and widths."""

    def __init__(self, dtype: np.dtype[Any], folder: Path, files: ExitStack) -> None:
        self._dtype = dtype
        self._ids, self._places, self._widths = (_temporary(folder, files) for _ in range(3))

    def add(self, places: NDArray[Any], widths: NDArray[Any], ids: NDArray[Any]) -> None:
        """Some records, or parts of them, of which a later one goes on with an earlier one of the same place."""
        for file, array in ((self._ids, ids), (self._places, places), (self._widths, widths)):
            file.write(array.tobytes())

    def sorted(self) -> Iterator[NDArray[Any]]:
        """The ids of all, in the order of their places."""
        ids, places, widths = (
            _mapped(file, dtype)
            for file, dtype in ((self._ids, self._dtype), (self._places, np.int64), (self._widths, np.int64))
        )
        starts = np.cumsum(widths) - widths
        order = np.argsort(places, kind="stable")
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
    """So many ids from each of these starts, one after the other."""
    found: NDArray[Any] = ids[np.repeat(starts - np.cumsum(widths) + widths, widths) + np.arange(widths.sum())]
    return found


def _counts(ids: Ids, stop: int, size: int, enough: int) -> NDArray[np.int64]:
    """How often each id stands before `stop`; once all stand there often enough, counts no further."""
    total = np.zeros(size, np.int64)
    for position, block in ids.blocks():
        if position >= stop or total.min() >= enough:
            break
        total += np.bincount(block[: stop - position], minlength=size)
    return total


def _final_vocabulary(
    ids: Ids,
    bounds: dict[SplitName, tuple[int, int]],
    whole: Vocabulary,
    settings: TextSettings,
    notice: Notice,
    base: Vocabulary | None,
) -> Vocabulary:
    """The vocabulary of the training text alone, seen there at least `min_count` times, and of `base`."""
    if whole.kind == "bytes":
        return whole
    train = _counts(ids, bounds["train"][1], whole.size, settings.min_count)[: whole.plain]
    known = set(base.characters) if base else set()
    kept = {c for c, count in zip(whole.characters, train, strict=True) if count >= settings.min_count} | known
    unseen = [c for c, count in zip(whole.characters, train, strict=True) if count == 0 and c not in known]
    if unseen:
        named = " ".join(map(repr, unseen[:5])) + (" …" if len(unseen) > 5 else "")
        count = "1 character" if len(unseen) == 1 else f"{len(unseen):,} characters"
        notice(f"training never sees {count} of the other splits ({named}); counted as unknown")
    if not kept:
        raise TextError(f"no character is seen {settings.min_count} times in training; lower --min-count")
    unknown = not kept.issuperset(whole.characters) or (base is not None and base.unknown)
    return Vocabulary("characters", tuple(sorted(kept)), unknown, whole.separator)


def _rewrite(ids: Ids, path: Path, old: Vocabulary, new: Vocabulary) -> None:
    """Rewrites the file of ids from one vocabulary to another."""
    index = {character: i for i, character in enumerate(new.characters)}
    table = [index.get(character, new.unknown_id) for character in old.characters]
    table += [new.separator_id] if old.separator else []
    lookup = np.array(table, dtype=new.dtype)
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        for _, block in ids.blocks():
            file.write(lookup[block].tobytes())
    fresh.replace(path)
