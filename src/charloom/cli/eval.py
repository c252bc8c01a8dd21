"""`charloom eval`."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charloom.cli.reading import read_text
from charloom.cli.screen import write
from charloom.errors import ModelError, SettingsError, TextError
from charloom.evaluation.compressors import MOST, bytes_of, characters_of, compressed

if TYPE_CHECKING:
    from charloom.data.dataset import Dataset
    from charloom.score import Score


class WindowsParameter(click.ParamType[int]):
    """`windows:256`, as 256."""

    name = "windows"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The length of a window, N."""
        kind, _, length = str(value).partition(":")
        if kind != "windows" or not re.fullmatch(r"0*[1-9][0-9]{0,8}", length, re.ASCII):
            self.fail(f"must be windows:N, such as windows:256; got {value!r}", param, ctx)
        return int(length)


@click.command(
    epilog="""\b
    Examples:
      charloom eval runs/my-1
      charloom eval runs/my-1 chapter-12.txt chapter-13.txt --dynamic
    """
)
@click.argument("model")
@click.argument("paths", metavar="[FILE...]", nargs=-1)
@click.option(
    "--unknown",
    metavar="error|skip|replace",
    type=click.Choice(["error", "skip", "replace"]),
    default="error",
    help="what to do with characters outside the vocabulary  [error]",
)
@click.option("--encoding", metavar="NAME", help="insist on this encoding; otherwise UTF-8, else detected")
@click.option(
    "--errors",
    metavar="strict|replace|ignore",
    default="strict",
    help="invalid bytes in the encoding: an error, U+FFFD, or left out  [strict]",
)
@click.option(
    "--field",
    metavar="NAME",
    help="the field (.jsonl, .json; user.name is nested) or column (.csv, .tsv) that holds the text",
)
@click.option(
    "--dynamic",
    is_flag=True,
    help="also dynamic evaluation: the model learns from each part of FILE after it was scored",
)
@click.option(
    "--protocol",
    "window",
    metavar="windows:N",
    type=WindowsParameter(),
    help="also in windows of N tokens, each from the zero state, like nanoGPT",
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def command(
    model: str,
    paths: tuple[str, ...],
    unknown: Any,
    encoding: str | None,
    errors: str,
    field: str | None,
    dynamic: bool,
    window: int | None,
    as_json: bool,
) -> None:
    """Measure how well MODEL, a model folder or a run folder, predicts FILE... (whatever `charloom train` reads).

    Several files are scored as one text; without FILE, the validation split of a run is scored. Every character after
    the first is predicted once. The state is carried on from the start, or from the start of each record if records are
    independent. The baselines are xz -9e and PPMd on the same text, primed with the training text if MODEL is a run.
    The text is cleaned like the model's corpus.
    """
    from charloom.checkpoint import load_model
    from charloom.data.vocabulary import RECORD_SEPARATOR
    from charloom.model import Model

    folder = load_model(model)
    loaded, data = Model(folder), _data(Path(model), needed=not paths)
    if paths:
        text = read_text(loaded, paths, encoding, errors, field)
        ids, characters = loaded.tokenizer.text(text, unknown)
        read, of = text[:MOST].replace(RECORD_SEPARATOR, "\n").encode("utf-8", "surrogateescape"), len(text[:MOST])
    else:
        ids = _held_out(model, data)
        characters = max(1, characters_of(loaded.vocabulary, ids) - 1)
        read, of = bytes_of(loaded.vocabulary, ids[:MOST]), characters_of(loaded.vocabulary, ids[:MOST])
    score = loaded.score_ids(ids, characters)
    report = _figures(score, loaded.vocabulary.kind == "bytes")
    if window and folder.reset_id is not None:
        raise SettingsError(
            "--protocol windows needs a model without independent records; this one has them; leave it out"
        )
    window = window and min(window, len(ids) - 1)
    if dynamic or window:
        report |= _other_protocols(folder, ids, score, dynamic, window)
    report |= compressed(read, of, data)
    write((json.dumps(report) if as_json else "\n".join(_lines(report, window))) + "\n")


def _figures(score: Score, of_bytes: bool) -> dict[str, Any]:
    """The report of a score."""
    report = {
        "characters": score.characters,
        "nats_per_char": score.nats_per_char,
        "bits_per_char": score.bits_per_char,
        "perplexity": score.perplexity,
        "accuracy": score.accuracy,
    }
    if of_bytes:
        report |= {"bytes": score.tokens, "bits_per_byte": score.nats / score.tokens / math.log(2)}
    return report


def _data(model: Path, needed: bool) -> Dataset | None:
    """The dataset of the run that a folder is, or is in; None if there is none, or a damaged one is not `needed`."""
    from charloom.data.dataset import open_dataset

    place = model.resolve()
    runs = [run for run in (place, *place.parents[:2]) if (run / "data" / "dataset.json").exists()]
    try:
        return open_dataset(runs[0] / "data") if runs else None
    except ModelError:
        if needed:
            raise
        return None


def _held_out(model: str, data: Dataset | None) -> Any:
    """The ids of the validation split."""
    if data is None:
        raise SettingsError(
            f"eval needs a text unless MODEL is a run with its data; {model} is not: charloom eval {model} FILE"
        )
    ids = data.ids("validation").view()
    if len(ids) < 2:
        raise TextError(f"{model} has no validation split; name a file: charloom eval {model} FILE")
    return ids


def _other_protocols(folder: Any, ids: Any, score: Score, dynamic: bool, window: int | None) -> dict[str, float]:
    """Nats per character by other protocols."""
    from charloom.training import measuring

    engine = measuring.reader(folder)
    tokens_per_char = score.tokens / score.characters
    found = {}
    if window:
        found["windows_nats_per_char"] = measuring.in_windows(engine, ids, window).nats_per_char * tokens_per_char
    if dynamic:
        found["dynamic_nats_per_char"] = measuring.dynamic(engine, ids, folder.reset_id) / score.characters
    return found


def _lines(report: dict[str, Any], window: int | None) -> list[str]:
    """A table of labels and values; accuracy is per token, so per byte for a byte-level model."""
    rows = {
        "characters": f"{report['characters']:,}",
        "nats per char": f"{report['nats_per_char']:.4f}",
        "bits per char": f"{report['bits_per_char']:.4f}",
        "perplexity": f"{report['perplexity']:,.3f}",
        "top-1 accuracy": f"{report['accuracy']:.1%}",
    }
    if "bytes" in report:
        rows |= {"bytes": f"{report['bytes']:,}", "bits per byte": f"{report['bits_per_byte']:.4f}"}
    for name, label in (("windows", f"windows of {window}"), ("dynamic", "dynamic")):
        if nats := report.get(f"{name}_nats_per_char"):
            rows[label] = f"{nats:.4f} nats per char ({nats / math.log(2):.4f} bits)"
    seen = report["compressors_read_bytes_before"]
    after = f" after {seen:,} bytes of the training text" if seen else ""
    if (of := report["compressors_characters"]) < report["characters"]:
        after += f", for the first {of:,} characters"
    for name, label in (("xz", "xz -9e"), ("ppmd", "PPMd")):
        rows[label] = f"{report[f'{name}_bits_per_char']:.4f} bits per char{after}"
    return [f"{name:<16}{value}" for name, value in rows.items()]
