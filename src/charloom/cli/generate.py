"""`charloom generate`."""

from __future__ import annotations

import itertools
import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charloom.cli.screen import tell_line, write
from charloom.errors import CharloomError, SettingsError, TextError

if TYPE_CHECKING:
    from charloom.model import Model

SEED_BITS = 32  # of a seed that is drawn: short enough to be typed again, and exact in any program's JSON
TURN = 200  # characters of an answer with --interactive


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
    "prompts",
    multiple=True,
    metavar="TEXT|@FILE|-",
    help="what to continue: a text, a file's, or stdin's; several give several texts",
)
@click.option("--length", metavar="N", help="characters to generate  [1000; 200 with --interactive]")
@click.option("--records", metavar="N", help="generate N whole records, with a model trained with --records")
@click.option("--temperature", metavar="X", help="below 1 safer, above 1 bolder, 0 like --greedy  [0.8]")
@click.option("--top-k", metavar="N", help="choose from the N most probable characters only")
@click.option("--top-p", metavar="X", help="choose from the fewest characters that together have probability X")
@click.option("--min-p", metavar="X", help="choose from characters at least X times as probable as the most probable")
@click.option("--greedy", is_flag=True, help="always take the most probable character")
@click.option(
    "--repetition-penalty", metavar="X", help="above 1 makes the last characters less probable, below 1 more  [1]"
)
@click.option("--repetition-window", metavar="N", help="the last characters that the penalty sees  [64]")
@click.option("--no-repeat-ngram-size", metavar="N", help="never repeat N characters in the same order")
@click.option("--seed", metavar="N", type=int, help="the same seed gives the same text  [drawn; --json shows it]")
@click.option("--stop", multiple=True, metavar="TEXT", help="end before this text; may be given several times")
@click.option("--count", default=1, metavar="N", type=int, help="generate N texts after each prompt  [1]")
@click.option("--adapt", metavar="FILE", multiple=True, help="learn from this text first, by reading it once")
@click.option("--unknown", metavar="error|skip|replace", help="prompt characters that the model does not know  [error]")
@click.option(
    "--precision",
    metavar="auto|fp32|bf16|int8",
    help="of the arithmetic; bf16 and int8 are faster, and give another text  [auto: fp32]",
)
@click.option("--threads", metavar="N", help="CPU threads at most; the text is the same  [all cores]")
@click.option(
    "--interactive", is_flag=True, help="continue each line that is typed; an empty line goes on with the last"
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="a JSON object a text: index, seed, prompt, text; with --records one a record, also with its number",
)
def command(
    model: str,
    prompts: tuple[str, ...],
    count: int,
    adapt: tuple[str, ...],
    interactive: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Generate text with MODEL, a model folder or a run folder, and print it as it is made.

    The prompt comes first and the text follows it. A model trained with --binary takes a prompt from a file or stdin
    as it is, and gives bytes, without a newline at the end. In --json its bytes that are no UTF-8 are surrogate
    escapes (PEP 383).
    """
    from charloom.config import validated
    from charloom.inference.options import GenerationOptions
    from charloom.model import Model

    given = {name: value for name, value in options.items() if not (value is None or value is False or value == ())}
    given.setdefault("seed", secrets.randbits(SEED_BITS))
    validated(GenerationOptions, given)  # before a text is learnt for it
    if [*prompts, *adapt].count("-") > 1:
        raise SettingsError("stdin can be read only once; all but one of --prompt - and --adapt - must name a file")
    if interactive and (prompts or as_json or count != 1 or "-" in adapt):
        raise SettingsError("--interactive takes its prompts from the keyboard; leave out --prompt, --count and --json")
    loaded = _adapted(model, adapt, given.get("unknown", "error")) if adapt else Model.load(model)
    texts = [_prompt(prompt, loaded.vocabulary.binary) for prompt in prompts or ("",)]
    if interactive:
        _interact(loaded, given)
    elif as_json and "records" in given:
        _print_records(loaded, texts, count, given)
    elif as_json or count * len(texts) != 1:
        _print_texts(loaded, texts, count, given, as_json)
    else:
        _print_stream(loaded, texts[0], given)


def _print_stream(model: Model, prompt: str, given: dict[str, Any], interactive: bool = False) -> list[str]:
    """Prints the prompt and what follows it, as it is made; returns both. interactive: Ctrl-C ends only this text."""
    stream, chunks, binary = model.stream(prompt, **given), [prompt], model.vocabulary.binary
    try:
        write(prompt, binary)
        for chunk in stream:
            write(chunk, binary)
            chunks.append(chunk)
    except KeyboardInterrupt:
        if not interactive:
            raise
    if not binary or sys.stdout.isatty():
        write("\n")
    return chunks


def _print_texts(model: Model, prompts: Sequence[str], count: int, given: dict[str, Any], as_json: bool) -> None:
    """Prints so many texts after each prompt, one after the other."""
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
            records.append(begun[index])  # where the length ends just behind a separator, no record is begun
        for text in records:
            about = {"index": index, "record": ended[index], "seed": given["seed"], "prompt": prompts[index // count]}
            write(json.dumps(about | {"text": text}) + "\n")
            ended[index] += 1


def _interact(model: Model, given: dict[str, Any]) -> None:
    """Continues line after line from stdin; a mistake in one, and Ctrl-C in an answer, only end that answer."""
    if not given.keys() & {"length", "records"}:
        given |= {"records": 1} if model.vocabulary.separator else {"length": TURN}
    typing = sys.stdin.isatty() and sys.stdout.isatty()
    chunks: list[str] = []  # the last text, prompt and answer
    for index in itertools.count():
        if typing:
            write("> ")
        if not (line := sys.stdin.readline()):
            break
        prompt = line.rstrip("\r\n") or "".join(chunks)
        try:
            chunks = _print_stream(model, prompt, given | {"index": index}, interactive=True)
        except CharloomError as error:
            tell_line(f"charloom: {error}")
    if typing:
        write("\n")


def _adapted(path: str, texts: tuple[str, ...], unknown: Any) -> Model:
    """The model after it has learnt from these texts; what is on disk stays as it is."""
    from charloom.evaluation.text import read
    from charloom.model import Model

    loaded = Model.load(path)
    return loaded.adapt(read(loaded.folder, texts, tell_line), unknown)


def _prompt(prompt: str, binary: bool) -> str:
    """The prompt itself, or what the file (@FILE) or stdin (-) that it names holds, less one last newline.

    For a binary model nothing is left out, and bytes that are no UTF-8 come as surrogate escapes.
    """
    if prompt != "-" and not prompt.startswith("@"):
        return prompt
    if prompt == "@":
        raise SettingsError(
            "--prompt @FILE must name a file; got @ alone; a prompt that is @ can come from stdin: --prompt -"
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
            raise TextError(f"--prompt - needs a stdin that can be read: {reason}") from None
        raise SettingsError(
            f"--prompt @FILE must name a file that can be read; {prompt[1:]}: {reason}; "
            "a prompt that begins with @ can come from stdin: --prompt -"
        ) from None
    return text.replace("\r\n", "\n").removesuffix("\n")
