"""`charloom eval`."""

from __future__ import annotations

import json
from typing import Any

import click

from charloom.errors import TextError


@click.command(short_help="Measure how well a model predicts a text.")
@click.argument("model")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--unknown", metavar="error|skip|replace", default="error", help="characters that the model does not know"
)
@click.option("--encoding", metavar="TEXT", help="insist on this encoding; otherwise UTF-8, else detected")
@click.option("--field", metavar="TEXT", help="the field (.jsonl) or column (.csv) that holds the text")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def command(
    model: str, paths: tuple[str, ...], unknown: Any, encoding: str | None, field: str | None, as_json: bool
) -> None:
    """Measure how well MODEL predicts FILE: every character after the first once, the state carried.

    Beside it stands what xz -9e needs for the same text. The text is cleaned as the model's own was.
    """
    from charloom.evaluate import xz_bits
    from charloom.generate.model import Model
    from charloom.text.vocabulary import BOUNDARY

    loaded = Model.load(model)
    text = _read(loaded, paths, encoding, field)
    score = loaded.score(text, unknown)
    plain = text.replace(BOUNDARY, "\n")
    report = {
        "characters": score.characters,
        "symbols": score.symbols,
        "nats_per_char": score.nats_per_char,
        "bits_per_char": score.bits_per_char,
        "perplexity": score.perplexity,
        "accuracy": score.accuracy,
        "xz_bits_per_char": xz_bits(plain.encode("utf-8", "surrogateescape")) / len(plain),
    }
    if as_json:
        click.echo(json.dumps(report))
    else:
        click.echo("\n".join(_lines(report)))


def _read(model: Any, paths: tuple[str, ...], encoding: str | None, field: str | None) -> str:
    """The text, prepared as the model's was."""
    from charloom.config import TextSettings, validated
    from charloom.text.corpus import open_corpus

    values = {**model.cleaning.model_dump(), "records": model.records, "encoding": encoding, "field": field}
    settings = validated(TextSettings, values)
    text = "".join(
        open_corpus(
            list(paths), settings, model.vocabulary.kind == "bytes", lambda line: click.echo(line, err=True)
        ).pieces()
    )
    if not text:
        raise TextError(f"a text to score must hold at least 2 characters; {', '.join(paths)} is empty")
    return text


def _lines(report: dict[str, Any]) -> list[str]:
    return [
        f"characters        {report['characters']:,}",
        f"nats per char     {report['nats_per_char']:.4f}",
        f"bits per char     {report['bits_per_char']:.4f}   (xz -9e: {report['xz_bits_per_char']:.4f})",
        f"perplexity        {report['perplexity']:.3f}",
        f"top-1 accuracy    {report['accuracy']:.1%}",
    ]
