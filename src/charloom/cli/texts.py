"""Texts beside a model that is there already: read and cleaned as its own was, and what compressors make of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from charloom.cli.screen import tell_line
from charloom.errors import TextError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from charloom.data.dataset import Dataset
    from charloom.data.vocabulary import Vocabulary
    from charloom.model import Model

MOST = 2**23
"""Tokens that a compressor is given of a text, and before it of the training text's end: PPMd takes 20 seconds."""


def text_like(
    model: Model, paths: tuple[str, ...], encoding: str | None = None, errors: str = "strict", field: str | None = None
) -> str:
    """The text at these paths, whatever `charloom train` reads; notices go to stderr.

    Raises:
        TextError: if nothing is left of it.
    """
    from charloom.config import TextSettings, validated
    from charloom.data.corpus import open_corpus

    records = "file" if model.records == "field" and field is None else model.records
    values = {**model.cleaning.model_dump(), "records": records, "encoding": encoding, "errors": errors, "field": field}
    values |= {"vocabulary": model.vocabulary.kind, "binary": model.vocabulary.binary}
    settings = validated(TextSettings, values)
    # Opened without records: that one file is one record of a model of files is news for training alone.
    corpus = open_corpus(paths, settings.model_copy(update={"records": "none"}), tell_line)
    text = replace(corpus, settings=settings).text()
    if not text:
        raise TextError(f"a text to read must hold at least 2 characters; {', '.join(paths)} is empty after cleaning")
    return text


def bytes_of(vocabulary: Vocabulary, ids: NDArray[Any]) -> bytes:
    """A text in UTF-8; of a vocabulary of bytes, as they are."""
    if vocabulary.kind == "bytes":
        import numpy as np

        return np.where(ids < 256, ids, ord("\n")).astype(np.uint8).tobytes()  # a separator as a newline
    return vocabulary.decode(ids).encode("utf-8", "surrogateescape")


def characters_of(vocabulary: Vocabulary, ids: NDArray[Any]) -> int:
    """How many characters a text has: of bytes, those that do not go on with one; of binary, see `Decoder`."""
    if vocabulary.kind != "bytes":
        return len(ids)
    if vocabulary.binary:
        return len(bytes_of(vocabulary, ids).decode("utf-8", "surrogateescape"))
    pieces = (ids[start : start + MOST] for start in range(0, len(ids), MOST))
    return len(ids) - sum(int(((piece >= 0x80) & (piece < 0xC0)).sum()) for piece in pieces)


def compressed(plain: bytes, characters: int, data: Dataset | None) -> dict[str, float]:
    """Bits per character of ordinary compressors, once they have read the training text, if that is there."""
    from charloom.evaluation.compressors import bits_after, ppmd_bits, xz_bits

    before = b"" if data is None else bytes_of(data.vocabulary, data.ids("train").view()[-MOST:])
    return {
        f"{name}_bits_per_char": bits_after(coder, before, plain) / characters
        for name, coder in (("xz", xz_bits), ("ppmd", ppmd_bits))
    } | {"compressors_read_bytes_before": len(before), "compressors_characters": characters}
