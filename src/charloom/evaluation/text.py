"""The text of an evaluation: a text in memory, files, or the validation split of the model's run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from charloom.checkpoint import ModelFolder
from charloom.config import TextSettings
from charloom.data.corpus import open_corpus
from charloom.data.dataset import Dataset, open_dataset
from charloom.data.reading import Notify, ignore
from charloom.data.tokenizer import LONE, Tokenizer
from charloom.data.vocabulary import RECORD_SEPARATOR, IdArray, UnknownPolicy, Vocabulary
from charloom.errors import ModelError, SettingsError, TextError
from charloom.files import AnyPath
from charloom.validation import validated

BLOCK = 2**23  # tokens that are processed together


class FileOptions(TypedDict, total=False):
    """How files are read, as in `charloom.train`."""

    encoding: str
    errors: str
    field: str


@dataclass(frozen=True)
class EvaluationText:
    """A text as a model reads it.

    ids_T: its tokens. The first one is only read; all others are predicted. characters: the number of characters after
    the first token; text: the text before unknown characters were skipped or replaced; None for a validation split.
    """

    tokenizer: Tokenizer
    ids_T: IdArray
    characters: int
    text: str | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the ids."""
        return self.tokenizer.vocabulary

    def beginning(self, most: int) -> tuple[bytes, int]:
        """UTF-8 of at most `most` characters (tokens, for a validation split), and the number of characters."""
        if self.text is None:
            ids_T = self.ids_T[:most]
            return bytes_of(self.vocabulary, ids_T), characters_of(self.vocabulary, ids_T)
        text = self.tokenizer.clean(self.text[:most]).replace(RECORD_SEPARATOR, "\n")
        return LONE.sub("\ufffd", text).encode("utf-8", "surrogateescape"), len(text)


def evaluation_text(
    model: ModelFolder,
    text: str | None = None,
    paths: AnyPath | Sequence[AnyPath] | None = None,
    notice: Notify = ignore,
    unknown: UnknownPolicy | None = None,
    **options: Unpack[FileOptions],
) -> EvaluationText:
    """The given text, or the text of files. Without both, the validation split of the model's run.

    Raises:
        SettingsError: for two texts, for none, or for an option that has no effect.
        TextError: if the text cannot be read or is too short.
        UnknownCharacterError: if the text has a character that the model does not know.
    """
    if text is not None and paths is not None:
        raise SettingsError("`text` must be left out where `paths` is given")
    if paths is not None:
        return encoded(model, read(model, paths, notice, **options), unknown or "error")
    for name in [*options, *["unknown"] * (text is None and unknown is not None)]:
        raise SettingsError(f"`{name}` changes nothing without `paths`; leave it out, or name files")
    return _held_out(model) if text is None else encoded(model, text, unknown or "error")


def encoded(model: ModelFolder, text: str, unknown: UnknownPolicy) -> EvaluationText:
    """A text in memory.

    Raises:
        TextError: if the text is too short to predict anything.
        UnknownCharacterError: if the text has a character that the model does not know.
    """
    tokenizer = Tokenizer(model.vocabulary, model.cleaning)
    return EvaluationText(tokenizer, *tokenizer.text(text, unknown), text)


def read(
    model: ModelFolder, paths: AnyPath | Sequence[AnyPath], notice: Notify = ignore, **options: Unpack[FileOptions]
) -> str:
    """The text at these paths, cleaned like the model's corpus. Any path that `charloom.train` reads is valid.

    Raises:
        TextError: if the text cannot be read, or is empty after cleaning.
    """
    records = "file" if model.records == "field" and "field" not in options else model.records
    vocabulary = {"vocabulary": model.vocabulary.kind, "binary": model.vocabulary.binary}
    settings = validated(TextSettings, {**model.cleaning.model_dump(), "records": records, **vocabulary, **options})
    # Opened without records, because the notice that one file makes one record is for training only.
    corpus = open_corpus(paths, settings.model_copy(update={"records": "none"}), notice)
    text = replace(corpus, settings=settings).text()
    if not text:
        raise TextError(f"a text must hold at least 2 characters; {corpus.shown} is empty after cleaning")
    return text


def run_data(model: ModelFolder, needed: bool = False) -> Dataset | None:
    """The dataset of the model's run. None if it has none, or if it is damaged and not `needed`."""
    if model.place is None:
        return None
    runs = [run for run in (model.place, *model.place.parents[:2]) if (run / "data" / "dataset.json").exists()]
    try:
        return open_dataset(runs[0] / "data") if runs else None
    except ModelError:
        if needed:
            raise
        return None


def _held_out(model: ModelFolder) -> EvaluationText:
    where = model.place or "this model"
    data = run_data(model, needed=True)
    if data is None:
        raise SettingsError(
            f"a text is needed unless the model is in a run with its data; {where} is not; give `paths`"
        )
    ids_T = data.ids("validation").view()
    if len(ids_T) < 2:
        raise TextError(f"the run of {where} has no validation split; give `paths`")
    characters = max(1, characters_of(data.vocabulary, ids_T) - 1)
    return EvaluationText(Tokenizer(data.vocabulary, model.cleaning), ids_T, characters)


def bytes_of(vocabulary: Vocabulary, ids: NDArray[Any]) -> bytes:
    """The text of ids in UTF-8; with a byte-level vocabulary, the bytes themselves."""
    if vocabulary.kind == "bytes":
        return np.where(ids < 256, ids, ord("\n")).astype(np.uint8).tobytes()  # a separator becomes a newline
    return vocabulary.decode(ids).encode("utf-8", "surrogateescape")


def characters_of(vocabulary: Vocabulary, ids: NDArray[Any]) -> int:
    """The number of characters in ids: in UTF-8 bytes, of bytes that begin a character; binary bytes: see `Decoder`."""
    if vocabulary.kind != "bytes":
        return len(ids)
    if vocabulary.binary:
        return len(bytes_of(vocabulary, ids).decode("utf-8", "surrogateescape"))
    chunks = (ids[start : start + BLOCK] for start in range(0, len(ids), BLOCK))
    return len(ids) - sum(int(((chunk >= 0x80) & (chunk < 0xC0)).sum()) for chunk in chunks)
