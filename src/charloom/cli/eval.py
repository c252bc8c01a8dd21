"""`charloom eval`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from charloom.cli.options import Choice, file_options
from charloom.cli.screen import tell_line, write
from charloom.errors import SettingsError

if TYPE_CHECKING:
    from charloom.evaluation.characters import CharacterNats, LineNats
    from charloom.evaluation.report import Report

DECIMALS = 6  # of nats and bits: finer than what fp32 computes


class WindowsParameter(click.ParamType[int]):
    """`windows:256`, as 256."""

    name = "windows"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The length of a window, N."""
        kind, _, length = str(value).partition(":")
        if kind != "windows" or not re.fullmatch(r"0*[1-9][0-9]{0,8}", length, re.ASCII):
            raise SettingsError(f"--protocol must be windows:N, such as windows:256; got {value!r}")
        return int(length)


@click.command(
    epilog="""\b
    Examples:
      charloom eval runs/my-1
      charloom eval runs/my-1 chapter-12.txt chapter-13.txt --dynamic
      charloom eval runs/my-1 chapter-12.txt --heat
      charloom eval runs/log-1 server.log --per line | sort -t: -k2 -gr | head
    """
)
@click.argument("model")
@click.argument("paths", metavar="[FILE...]", nargs=-1)
@click.option(
    "--unknown",
    metavar="error|skip|replace",
    type=Choice(["error", "skip", "replace"]),
    help="what to do with characters of FILE outside the vocabulary  [error]",
)
@file_options("FILE")
@click.option(
    "--dynamic",
    is_flag=True,
    help="also dynamic evaluation: the model learns from each part of FILE after it was scored",
)
@click.option(
    "--protocol",
    "windows",
    metavar="windows:N",
    type=WindowsParameter(),
    help="also in windows of N tokens (at most the whole text), each from the zero state, like nanoGPT",
)
@click.option(
    "--per",
    metavar="line|char",
    type=Choice(["line", "char"]),
    help="print a JSON object for each line (bits_per_char, nats, characters, number, text) or for each character "
    "(bits, nats, index, character) in place of the report",
)
@click.option(
    "--heat",
    is_flag=True,
    help="show the text, coloured by the bits of each character; without colours, a digit below it",
)
@click.option("--json", "as_json", is_flag=True, help="print the report as one JSON object")
def command(
    model: str,
    paths: tuple[str, ...],
    dynamic: bool,
    windows: int | None,
    per: str | None,
    heat: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure how well MODEL, a model folder or a run folder, predicts FILE... (whatever `charloom train` reads).

    Several files are scored as one text; without FILE, the validation split of a run is scored. Every character after
    the first is predicted once. The state is carried on from the start, or from the start of each record if records are
    independent. The baselines are xz -9e and PPMd on the same text, primed with the training text if MODEL is a run.
    The text is cleaned like the model's corpus.

    --per and --heat show the text as the model reads it: cleaned, and without empty records. Lines are numbered from 1,
    characters from 0. A line includes the newline or record separator that ends it. A character of a byte-level model
    has the sum of its bytes. A model without records reads nothing before the first character, so that one has
    no figure.
    """
    from charloom.checkpoint import load_model
    from charloom.evaluation.characters import per_character
    from charloom.evaluation.report import evaluate
    from charloom.evaluation.text import evaluation_text

    _check_alone(per=per, heat=heat, json=as_json, dynamic=dynamic, protocol=windows)
    given = {name: value for name, value in options.items() if value is not None}
    folder = load_model(model)
    text = evaluation_text(folder, None, paths or None, tell_line, **given)
    if per:
        _print_objects(per_character(folder, text), per)
    elif heat:
        _show_heat(per_character(folder, text))
    else:
        report = evaluate(folder, text, dynamic, windows)
        write(json.dumps(report.to_json()) + "\n" if as_json else _table(report))


def _check_alone(**flags: object) -> None:
    """Refuses --per and --heat together with another of these flags, because they replace the report."""
    shown = [f"--{name}" for name, value in flags.items() if value]
    if shown[1:] and shown[0] in ("--per", "--heat"):
        raise SettingsError(f"{shown[0]} must be given alone; leave out {' and '.join(shown[1:])}")


def _print_objects(chunks: Iterator[CharacterNats], per: str) -> None:
    """Prints an object for each line or character; the figure to sort by comes first."""
    from charloom.evaluation.characters import per_line

    if per == "line":
        for line in per_line(chunks):
            write(json.dumps(_of_line(line)) + "\n")
    else:
        for chunk in chunks:
            write("".join(json.dumps(each) + "\n" for each in _of_characters(chunk)))


def _show_heat(chunks: Iterator[CharacterNats]) -> None:
    from charloom.cli.heat import show  # rich takes a tenth of a second to load

    show(chunks)


def _of_line(line: LineNats) -> dict[str, Any]:
    bits = None if line.bits_per_char is None else round(line.bits_per_char, DECIMALS)
    figures = {"bits_per_char": bits, "nats": round(line.nats, DECIMALS), "characters": line.characters}
    return figures | {"number": line.number, "text": line.text}


def _of_characters(chunk: CharacterNats) -> Iterator[dict[str, Any]]:
    """Without a character that is not predicted. A record separator is shown as a newline."""
    from charloom.data.vocabulary import RECORD_SEPARATOR

    text = chunk.text.replace(RECORD_SEPARATOR, "\n")
    figures = zip(text, chunk.bits_C.tolist(), chunk.nats_C.tolist(), strict=True)
    for index, (character, bits, nats) in enumerate(figures, chunk.start):
        if not math.isnan(nats):
            yield {
                "bits": round(bits, DECIMALS),
                "nats": round(nats, DECIMALS),
                "index": index,
                "character": character,
            }


def _table(report: Report) -> str:
    """Labels and values; accuracy is per token, so per byte for a byte-level model."""
    rows = {
        "characters": f"{report.characters:,}",
        "nats per char": f"{report.nats_per_char:.4f}",
        "bits per char": f"{report.bits_per_char:.4f}",
        "perplexity": f"{report.perplexity:,.3f}",
        "top-1 accuracy": f"{report.accuracy:.1%}",
    }
    if report.bytes is not None:
        rows |= {"bytes": f"{report.bytes:,}", "bits per byte": f"{report.bits_per_byte:.4f}"}
    if report.windows_nats_per_char is not None:
        rows[f"windows of {report.windows_length}"] = _nats(report.windows_nats_per_char)
    if report.dynamic_nats_per_char is not None:
        rows["dynamic"] = _nats(report.dynamic_nats_per_char)
    rows |= _compressors(report)
    return "".join(f"{name:<16}{value}\n" for name, value in rows.items())


def _nats(nats: float) -> str:
    return f"{nats:.4f} nats per char ({nats / math.log(2):.4f} bits)"


def _compressors(report: Report) -> dict[str, str]:
    seen, of = report.compressors_read_bytes_before, report.compressors_characters
    after = f" after {seen:,} bytes of the training text" if seen else ""
    if of is not None and of < report.characters:
        after += f", for the first {of:,} characters"
    found = {"xz -9e": report.xz_bits_per_char, "PPMd": report.ppmd_bits_per_char}
    return {name: f"{bits:.4f} bits per char{after}" for name, bits in found.items()}
