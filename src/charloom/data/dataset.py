"""Clean text → ids on disk, with their vocabulary and split.

The corpus is read twice, in chunks: first for its characters, then to store an id for each of them. A split is a range
of positions. The final vocabulary is that of the training split: rare characters, and those that only validation has,
become the unknown token. If that changes the vocabulary, the ids are rewritten through a table.

A run stores its ids (`data/` in the run folder, one or two bytes a token), so it resumes without the original files.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt

from charloom.config import Section, TextSettings
from charloom.data.corpus import Corpus
from charloom.data.ids import Ids, check_ids, count_separators, separators_at
from charloom.data.reading import Notify
from charloom.data.record_shuffle import shuffle_records
from charloom.data.vocabulary import RECORD_SEPARATOR, Vocabulary, code_points
from charloom.errors import ModelError, TextError, in_a_file
from charloom.files import opened, read, replace_file, sync
from charloom.validation import validated

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

MOST_VALIDATION = 5_000_000
"""Tokens of the validation split, if its size is not given. The end of a run measures all of it. A tenth of 10 GB would
take hours after a run of minutes. The mean of so many has a standard error of about 0.001 nats.
"""
AUTO_BYTES_ABOVE = 4000  # distinct characters; see LOG.md, "characters or bytes"


@dataclass(frozen=True)
class Dataset:
    """The ids of a corpus, in `folder`.

    bounds: for each split the position of its first id, and the position after its last id (with records, two
    neighbouring splits share a separator id); characters: code points in the whole corpus; sha256: of the clean text in
    UTF-8, with U+001E for every separator.
    """

    folder: Path
    vocabulary: Vocabulary
    bounds: dict[SplitName, tuple[int, int]]
    characters: int
    sha256: str

    def ids(self, split: SplitName) -> Ids:
        """The ids of one split, which may be empty."""
        return Ids.in_file(self.folder / "ids.bin", self.vocabulary.dtype, *self.bounds[split])

    def save(self) -> None:
        """Writes `dataset.json` beside the ids, for `open_dataset`, and syncs both files to the disk."""
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


class _DatasetFile(Section):
    """The content of `dataset.json`. ids_sha256: of `ids.bin`; runs of older versions have none."""

    vocabulary: dict[str, Any]
    bounds: _Bounds
    characters: NonNegativeInt
    sha256: str
    ids_sha256: str | None = None


def open_dataset(folder: Path) -> Dataset:
    """The dataset that `prepare` wrote.

    Raises:
        ModelError: if it does not exist, or its parts do not match.
    """
    try:
        with opened(folder / "ids.bin") as ids:
            size = os.fstat(ids.fileno()).st_size
        stored = validated(_DatasetFile, json.loads(read(folder / "dataset.json").decode("utf-8")))
        vocabulary = Vocabulary.from_json(stored.vocabulary)
    except OSError as error:
        reason = f"{Path(error.filename).name}: {error.strerror}"
        raise ModelError(f"{folder} must hold a run's data; {reason}; was the folder copied whole?") from None
    except (ValueError, TypeError, RecursionError, ModelError) as error:
        found = in_a_file(error)
        raise ModelError(f"{folder / 'dataset.json'} must be as a run left it; it is damaged: {found}") from None
    bounds: dict[SplitName, tuple[int, int]] = {name: getattr(stored.bounds, name) for name in SPLITS}
    ordered = all(start <= stop for start, stop in bounds.values())
    if not ordered or size != max(stop for _, stop in bounds.values()) * vocabulary.dtype.itemsize:
        raise ModelError(f"{folder / 'ids.bin'} has {size} bytes, which does not fit dataset.json; one is damaged")
    check_ids(folder / "ids.bin", vocabulary, stored.ids_sha256)
    dataset = Dataset(folder, vocabulary, bounds, stored.characters, stored.sha256)
    _check_separators(dataset)
    return dataset


def _check_separators(dataset: Dataset) -> None:
    """Checks that a split with records begins and ends with a separator; every layout relies on that.

    Raises:
        ModelError: if it does not.
    """
    separator_id = dataset.vocabulary.separator_id
    for name in SPLITS if separator_id is not None else ():
        ids = dataset.ids(name)
        if len(ids) and (len(ids) < 2 or not {*ids.view()[[0, -1]].tolist()} == {separator_id}):
            raise ModelError(
                f"{dataset.folder / 'ids.bin'}: the records of the {name} split must begin and end with a separator; "
                "they do not; ids.bin or dataset.json is damaged"
            )


def prepare(
    corpus: Corpus,
    settings: TextSettings,
    folder: Path,
    notice: Notify,
    base: Vocabulary | None = None,
    seed: int = 0,
) -> Dataset:
    """Reads, cleans, encodes and splits a corpus into `folder`; independent records are shuffled before the split.

    Args:
        corpus: opened with the same settings.
        folder: an existing, empty folder.
        notice: called with one line for each fact that the user should know.
        base: the vocabulary of the base model, in fine-tuning; all its tokens stay, seen or not.
        seed: of the random order of independent records.

    Raises:
        TextError: if the text cannot be read, or has fewer than 2 characters.
    """
    vocabulary, characters, sha256 = _survey(corpus, settings)
    if characters < 2:
        raise TextError(f"a text must have at least 2 characters; {corpus.shown} has {characters} after cleaning")
    if vocabulary.kind == "bytes":
        _explain_bytes(settings, notice)
    path = folder / "ids.bin"
    with path.open("wb") as file:
        for chunk in corpus.chunks():
            file.write(vocabulary.encode(chunk).tobytes())
    if settings.independent and vocabulary.separator_id is not None:
        shuffle_records(path, vocabulary, seed)
    ids = Ids.in_file(path, vocabulary.dtype)
    bounds = _split(ids, vocabulary, settings, notice)
    final = _final_vocabulary(ids, bounds, vocabulary, settings, notice, base)
    if final != vocabulary:
        _rewrite(ids, path, vocabulary, final)
    dataset = Dataset(folder, final, bounds, characters, sha256)
    dataset.save()
    return dataset


def _explain_bytes(settings: TextSettings, notice: Notify) -> None:
    """Gives a notice about a byte-level vocabulary if the settings name another kind."""
    if settings.vocabulary == "auto":
        notice(
            f"more than {AUTO_BYTES_ABOVE:,} distinct characters: the model is trained on bytes; "
            "`vocabulary='characters'` trains it on characters"
        )
    if settings.min_count > 1:
        notice("`min_count` has no effect: a byte-level vocabulary always has all 256 bytes")


def _survey(corpus: Corpus, settings: TextSettings) -> tuple[Vocabulary, int, str]:
    """First reading: (vocabulary, number of characters, SHA-256) of the whole corpus."""
    seen = np.zeros(0x110000, np.bool_)
    digest = hashlib.sha256()
    characters = 0
    for chunk in corpus.chunks():
        seen[_new_code_points(chunk, seen)] = True
        characters += len(chunk)
        text = chunk
        if seen[ord(RECORD_SEPARATOR)]:
            characters -= chunk.count(RECORD_SEPARATOR)
            text = chunk.replace(RECORD_SEPARATOR, "\x1e")
        digest.update(text.encode("utf-8", "surrogateescape"))
    separator = bool(seen[ord(RECORD_SEPARATOR)])
    seen[ord(RECORD_SEPARATOR)] = False
    codes = np.flatnonzero(seen)
    wasteful = settings.vocabulary == "auto" and len(codes) > AUTO_BYTES_ABOVE
    if settings.vocabulary == "bytes" or wasteful:
        return Vocabulary("bytes", separator=separator, binary=settings.binary), characters, digest.hexdigest()
    return Vocabulary("characters", tuple(map(chr, codes)), separator=separator), characters, digest.hexdigest()


def _new_code_points(chunk: str, seen: NDArray[np.bool_]) -> NDArray[Any]:
    """The code points of a chunk that were not seen before: this check takes less time than to mark all of them."""
    if not chunk.isascii():
        codes = code_points(chunk)
        return codes[~seen.take(codes)]
    known = bytes(np.flatnonzero(seen[:128]).tolist())
    return np.frombuffer(chunk.encode("ascii").translate(None, known), np.uint8)


def _split(
    ids: Ids, vocabulary: Vocabulary, settings: TextSettings, notice: Notify
) -> dict[SplitName, tuple[int, int]]:
    """The bounds of each split; with records, a split begins and ends with a separator id."""
    if vocabulary.separator_id is None:
        cuts = np.cumsum([0, *_sizes(len(ids), 2, MOST_VALIDATION, settings, notice)]).tolist()
        return {name: (cuts[i], cuts[i + 1]) for i, name in enumerate(SPLITS)}
    records = count_separators(ids, vocabulary.separator_id) - 1
    most = max(1, MOST_VALIDATION * records // len(ids))  # records with so many tokens, about
    cuts = np.cumsum([0, *_sizes(records, 1, most, settings, notice)]).tolist()
    marks = separators_at(ids, vocabulary.separator_id, cuts)
    return {
        name: (marks[cuts[i]], marks[cuts[i + 1]] + 1) if cuts[i] < cuts[i + 1] else (0, 0)
        for i, name in enumerate(SPLITS)
    }


def _sizes(units: int, smallest: int, most: int, settings: TextSettings, notice: Notify) -> list[int]:
    """Tokens or records in each split; a split smaller than `smallest` is added to training, with a notice.

    most: of the validation split, if the size of the splits is not given.
    """
    fractions = settings.fractions
    first, second = int(units * fractions[0]), int(units * (fractions[0] + fractions[1]))
    if settings.split == "auto":
        first = max(first, second - most)
    sizes = [first, second - first, units - second]
    for i in (1, 2):
        if fractions[i] and (sizes[i] < smallest or sizes[0] < smallest):
            notice(f"the text is too short for a {SPLITS[i]} split; the training split gets this part")
            sizes[0], sizes[i] = sizes[0] + sizes[i], 0
    return sizes


def _counts(ids: Ids, stop: int, size: int, enough: int) -> NDArray[np.int64]:
    """How often each id occurs before `stop`; counting ends when every id has occurred `enough` times."""
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
    notice: Notify,
    base: Vocabulary | None,
) -> Vocabulary:
    """The tokens of `base`, and the characters that occur at least `min_count` times in the training split."""
    if whole.kind == "bytes":
        return whole
    train = _counts(ids, bounds["train"][1], whole.size, settings.min_count)[: whole.plain]
    known = set(base.characters) if base else set()
    kept = {c for c, count in zip(whole.characters, train, strict=True) if count >= settings.min_count} | known
    unseen = [c for c, count in zip(whole.characters, train, strict=True) if count == 0 and c not in known]
    if unseen:
        named = " ".join(map(repr, unseen[:5])) + (" …" if len(unseen) > 5 else "")
        count = "1 character" if len(unseen) == 1 else f"{len(unseen):,} characters"
        notice(f"the training split lacks {count} of the other splits ({named}); each becomes the unknown token")
    if not kept:
        raise TextError(
            f"a character must occur {settings.min_count} times in the training split; none does; use a smaller "
            "`min_count`"
        )
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
