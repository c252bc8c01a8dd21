"""`charloom generate`."""

from __future__ import annotations

import itertools
import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from charloom.cli.options import field_options, file_options
from charloom.cli.screen import tell_line, write
from charloom.errors import CharloomError, ModelError, SettingsError, TextError
from charloom.inference.options import Count, GenerationOptions
from charloom.inference.sampling import Sampling
from charloom.model import Model
from charloom.validation import validated

SEED_BITS = 32  # of a seed that is drawn: short enough to be typed again, and exact in any program's JSON
TURN = 200  # characters of an answer with --interactive

FIELDS = {name: field for name, field in GenerationOptions.model_fields.items() if name != "index"}
FIELDS = dict(sorted(FIELDS.items(), key=lambda item: item[0] in Sampling.model_fields))  # common flags come first


@click.command(
    epilog="""\b
    Examples:
      charloom generate runs/my-1 --prompt "Once upon"
      charloom generate runs/my-1 --prompt @start.txt --length 5000 > story.txt
      charloom generate runs/my-1 --prompt "Dear" --prompt "Hello" --count 3 --json
      charloom generate runs/names-1 --records 20 --json
      charloom generate runs/my-1 --adapt letter.txt --prompt "Dear"
      charloom generate runs/my-1 --interactive
    """
)
@click.argument("model")
@click.option(
    "--prompt",
    "prompt",
    multiple=True,
    metavar="TEXT|@FILE|-",
    help="the text to continue, or a file or stdin that contains it; may be given several times",
)
@field_options(Count.model_fields | FIELDS)
@click.option(
    "--adapt", metavar="FILE", multiple=True, help="first train on this text, once; the model on disk stays the same"
)
@file_options("the text of --adapt")
@click.option(
    "--interactive",
    is_flag=True,
    help=f"continue each line of stdin, by {TURN} characters; an empty line continues the last text; in a pipe, a "
    "blank line ends each text",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="print one JSON object for each text: index, seed, prompt, text; with --records for each record",
)
def command(
    model: str,
    prompt: tuple[str, ...],
    count: str | None,
    adapt: tuple[str, ...],
    interactive: bool,
    as_json: bool,
    encoding: str | None,
    errors: str | None,
    field: str | None,
    **options: Any,
) -> None:
    """Generate text with MODEL, a model folder or a run folder, and print it while it is made.

    The text follows its prompt. A token is a character, or a byte of a byte-level model. A model trained with --binary
    reads a prompt from a file or stdin as raw bytes and prints raw bytes, without a newline at the end. In --json,
    bytes that are not UTF-8 are surrogate escapes (PEP 383).
    """
    given = {name: value for name, value in options.items() if not (value is None or value is False or value == ())}
    given.setdefault("seed", secrets.randbits(SEED_BITS))
    given["seed"] = validated(GenerationOptions, given).seed  # before the model learns from a text; as a number
    texts_each = validated(Count, {} if count is None else {"count": count}).count
    if [*prompt, *adapt].count("-") > 1:
        raise SettingsError("stdin can be read only once; give - to one --prompt or --adapt only")
    if interactive:
        _check_interactive(
            {"--prompt": prompt, "--count": texts_each != 1, "--json": as_json, "'--adapt -'": "-" in adapt}
        )
    reading = {"encoding": encoding, "errors": errors, "field": field}
    loaded = _loaded(model, adapt, given.get("unknown", "error"), {k: v for k, v in reading.items() if v is not None})
    texts = [_prompt(each, loaded.vocabulary.binary) for each in prompt or ("",)]
    if interactive:
        _interact(loaded, given)
    elif as_json and "records" in given:
        _print_records(loaded, texts, texts_each, given)
    elif as_json or texts_each * len(texts) != 1:
        _print_texts(loaded, texts, texts_each, given, as_json)
    else:
        _print_stream(loaded, texts[0], given)


def _check_interactive(asked: dict[str, object]) -> None:
    """Refuses flags that need stdin, or that change what is printed."""
    if given := [flag for flag, value in asked.items() if value]:
        raise SettingsError(f"--interactive prints one text for each line of stdin; leave out {' and '.join(given)}")


def _print_stream(model: Model, prompt: str, given: dict[str, Any], interactive: bool = False) -> list[str]:
    """Prints the prompt and the generated text as it is made; returns both. interactive: Ctrl-C ends only this text."""
    stream, chunks, binary = model.stream(prompt, **given), [prompt], model.vocabulary.binary
    try:
        write(prompt, binary)
        for chunk in stream:
            write(chunk, binary)
            chunks.append(chunk)
    except KeyboardInterrupt:
        if not interactive:
            raise
    except ModelError:  # the error must not stand in the line of the text
        _end_text(binary)
        raise
    _end_text(binary)
    return chunks


def _end_text(binary: bool) -> None:
    if not binary or sys.stdout.isatty():
        write("\n")


def _print_texts(model: Model, prompts: Sequence[str], count: int, given: dict[str, Any], as_json: bool) -> None:
    """Prints `count` texts after each prompt, one after the other."""
    for index, text in enumerate(model.generate_many(count, prompts, **given)):
        prompt = prompts[index // count]
        if as_json:
            write(json.dumps({"index": index, "seed": given["seed"], "prompt": prompt, "text": text}) + "\n")
        else:
            write(f"--- {index + 1}\n{prompt}{text}\n", model.vocabulary.binary)


def _print_records(model: Model, prompts: Sequence[str], count: int, given: dict[str, Any]) -> None:
    """Prints each record as a JSON object as soon as it ends; the text of a first record follows the prompt."""
    from charloom.data.vocabulary import RECORD_SEPARATOR

    options = {name: value for name, value in given.items() if name not in ("precision", "threads")}
    requests = model.requests(count, prompts, **options)
    apart = [replace(each, separator_text=RECORD_SEPARATOR) for each in requests]
    begun, ended = [""] * len(requests), [0] * len(requests)
    for index, output in model.run(apart, given.get("precision", "auto"), given.get("threads")):
        *records, begun[index] = (begun[index] + output.text).split(RECORD_SEPARATOR)
        if output.finish_reason == "records" or (output.finish_reason and begun[index]):
            records.append(begun[index])  # a length limit just after a separator begins no record
        for text in records:
            about = {"index": index, "record": ended[index], "seed": given["seed"], "prompt": prompts[index // count]}
            write(json.dumps(about | {"text": text}) + "\n")
            ended[index] += 1


def _interact(model: Model, given: dict[str, Any]) -> None:
    """Continues each line of stdin. A mistake in a line, or Ctrl-C in an answer, ends only that answer."""
    if not given.keys() & {"length", "records"}:
        given |= {"records": 1} if model.vocabulary.separator else {"length": TURN}
    typing = sys.stdin.isatty() and sys.stdout.isatty()
    apart = not typing and not model.vocabulary.binary  # on a terminal, the next `> ` shows where an answer ends
    chunks: list[str] = []  # the last text, prompt and answer
    for index in itertools.count():
        if typing:
            write("> ")
        if not (line := sys.stdin.readline()):
            break
        prompt = line.rstrip("\r\n") or "".join(chunks)
        try:
            chunks = _print_stream(model, prompt, given | {"index": index}, interactive=True)
            if apart:
                write("\n")
        except CharloomError as error:
            tell_line(f"charloom: {error}")
    if typing:
        write("\n")


def _loaded(path: str, texts: tuple[str, ...], unknown: Any, reading: dict[str, Any]) -> Model:
    """The model, after it has learned from the texts of --adapt if there are any; the model folder does not change."""
    from charloom.evaluation.text import read

    if reading and not texts:
        raise SettingsError(f"`{next(iter(reading))}` changes nothing without --adapt; leave it out")
    loaded = Model.load(path)
    return loaded.adapt(read(loaded.folder, texts, tell_line, **reading), unknown) if texts else loaded


def _prompt(prompt: str, binary: bool) -> str:
    """The prompt, or the content of the file (@FILE) or stdin (-) that it names, without the last newline.

    For a binary model nothing is removed, and bytes that are not UTF-8 become surrogate escapes.
    """
    if prompt != "-" and not prompt.startswith("@"):
        return prompt
    if prompt == "@":
        raise SettingsError(
            "--prompt @FILE must name a file; got @ alone; the prompt @ itself can be given on stdin, with --prompt -"
        )
    try:
        data = sys.stdin.buffer.read() if prompt == "-" else Path(prompt[1:]).read_bytes()
        if binary:
            return data.decode("utf-8", "surrogateescape")
        text = data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            found = f"byte 0x{error.object[error.start]:02X} at offset {error.start:,} is not"
            raise TextError(f"--prompt {prompt} must be UTF-8; {found}") from None
        reason = error.strerror if isinstance(error, OSError) else error
        if prompt == "-":
            raise TextError(f"--prompt - needs a stdin that can be read; {reason}") from None
        raise SettingsError(
            f"--prompt @FILE must name a file that can be read; {prompt[1:]}: {reason}; "
            "a prompt that begins with @ can be given on stdin, with --prompt -"
        ) from None
    return text.replace("\r\n", "\n").removesuffix("\n")
