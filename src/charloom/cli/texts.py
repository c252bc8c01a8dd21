"""Texts for a model that is there already: read and cleaned as its own was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from charloom.errors import TextError

if TYPE_CHECKING:
    from charloom.generate.model import Model


def text_like(model: Model, paths: tuple[str, ...], encoding: str | None = None, field: str | None = None) -> str:
    """The text at these paths, whatever `charloom train` reads; notices go to stderr.

    Raises:
        TextError: if nothing is left of it.
    """
    from charloom.config import TextSettings, validated
    from charloom.text.corpus import open_corpus

    values = {**model.cleaning.model_dump(), "records": model.records, "encoding": encoding, "field": field}
    settings = validated(TextSettings, values)
    corpus = open_corpus(paths, settings, model.vocabulary.kind == "bytes", lambda line: click.echo(line, err=True))
    text = corpus.text()
    if not text:
        raise TextError(f"a text to read must hold at least 2 characters; {', '.join(paths)} is empty after cleaning")
    return text
