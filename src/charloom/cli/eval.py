"""`charloom eval`."""

from __future__ import annotations

import json
import math
from typing import Any

import click

from charloom.errors import TextError


@click.command(
    epilog="""\b
    Example:
      charloom eval runs/my-1 chapter-12.txt chapter-13.txt
    """
)
@click.argument("model")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--unknown",
    metavar="error|skip|replace",
    type=click.Choice(["error", "skip", "replace"]),
    default="error",
    help="characters that the model does not know  [error]",
)
@click.option("--encoding", metavar="NAME", help="insist on this encoding; otherwise UTF-8, else detected")
@click.option("--field", metavar="NAME", help="the field (.jsonl) or column (.csv) that holds the text")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def command(
    model: str, paths: tuple[str, ...], unknown: Any, encoding: str | None, field: str | None, as_json: bool
) -> None:
    """Measure how well MODEL, a model folder or a run folder, predicts FILE... (whatever `charloom train` reads).

    Several files are measured as one text. Every character after the first is predicted once, the state carried from
    the start. Beside it stands what xz -9e needs for the same text. The text is cleaned as the model's own was.
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
        "nats_per_char": score.nats_per_char,
        "bits_per_char": score.bits_per_char,
        "perplexity": score.perplexity,
        "accuracy": score.accuracy,
        "xz_bits_per_char": xz_bits(plain.encode("utf-8", "surrogateescape")) / len(plain),
    }
    if loaded.vocabulary.kind == "bytes":
        report |= {"bytes": score.symbols, "bits_per_byte": score.nats / score.symbols / math.log(2)}
    click.echo(json.dumps(report) if as_json else "\n".join(_lines(report)))


def _read(model: Any, paths: tuple[str, ...], encoding: str | None, field: str | None) -> str:
    """The text, prepared as the model's was."""
    from charloom.config import TextSettings, validated
    from charloom.text.corpus import open_corpus

    values = {**model.cleaning.model_dump(), "records": model.records, "encoding": encoding, "field": field}
    settings = validated(TextSettings, values)
    corpus = open_corpus(paths, settings, model.vocabulary.kind == "bytes", lambda line: click.echo(line, err=True))
    text = corpus.text()
    if not text:
        raise TextError(f"a text to score must hold at least 2 characters; {', '.join(paths)} is empty after cleaning")
    return text


def _lines(report: dict[str, Any]) -> list[str]:
    """A table of label and figure; accuracy is of symbols, so of bytes where the model reads bytes."""
    rows = {
        "characters": f"{report['characters']:,}",
        "nats per char": f"{report['nats_per_char']:.4f}",
        "bits per char": f"{report['bits_per_char']:.4f}   (xz -9e: {report['xz_bits_per_char']:.4f})",
        "perplexity": f"{report['perplexity']:,.3f}",
        "top-1 accuracy": f"{report['accuracy']:.1%}",
    }
    if "bytes" in report:
        rows |= {"bytes": f"{report['bytes']:,}", "bits per byte": f"{report['bits_per_byte']:.4f}"}
    return [f"{name:<16}{value}" for name, value in rows.items()]
