"""A text for a model that exists: read and cleaned like the model's corpus."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from charloom.cli.screen import tell_line
from charloom.errors import TextError

if TYPE_CHECKING:
    from charloom.model import Model


def read_text(
    model: Model, paths: tuple[str, ...], encoding: str | None = None, errors: str = "strict", field: str | None = None
) -> str:
    """The text at these paths, which may be any that `charloom train` reads; notices go to stderr.

    Raises:
        TextError: if the cleaned text is empty.
    """
    from charloom.config import TextSettings, validated
    from charloom.data.corpus import open_corpus

    records = "file" if model.folder.records == "field" and field is None else model.folder.records
    values = {
        **model.folder.cleaning.model_dump(),
        "records": records,
        "encoding": encoding,
        "errors": errors,
        "field": field,
    }
    values |= {"vocabulary": model.vocabulary.kind, "binary": model.vocabulary.binary}
    settings = validated(TextSettings, values)
    # Opened without records: the notice that one file makes one record is for training only.
    corpus = open_corpus(paths, settings.model_copy(update={"records": "none"}), tell_line)
    text = replace(corpus, settings=settings).text()
    if not text:
        raise TextError(f"a text to read must hold at least 2 characters; {', '.join(paths)} is empty after cleaning")
    return text
