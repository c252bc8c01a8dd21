"""`charloom generate`."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charloom.cli.screen import write
from charloom.errors import SettingsError, TextError

if TYPE_CHECKING:
    from charloom.model import Model

SEED_BITS = 32  # of a seed that is drawn: short enough to be typed again, and exact in any program's JSON


@click.command(
    epilog="""\b
    Examples:
      charloom generate runs/my-1 --prompt "Once upon"
      charloom generate runs/my-1 --prompt @start.txt --length 5000 > story.txt
      charloom generate runs/my-1 --count 3 --seed 7 --stop "." --json
      charloom generate runs/my-1 --adapt letter.txt --prompt "Dear"
    """
)
@click.argument("model")
@click.option("--prompt", default="", metavar="TEXT|@FILE|-", help="what to continue: a text, a file's, or stdin's")
@click.option("--length", metavar="N", help="characters to write  [1000, or no limit with --records]")
@click.option("--records", metavar="N", help="write N whole records, with a model that was trained with --records")
@click.option("--temperature", metavar="X", help="below 1 safer, above 1 bolder, 0 like --greedy  [0.8]")
@click.option("--top-k", metavar="N", help="draw from the N likeliest characters only")
@click.option("--top-p", metavar="X", help="draw from the fewest characters that together have probability X")
@click.option("--min-p", metavar="X", help="draw from characters at least X times as likely as the likeliest")
@click.option("--greedy", is_flag=True, help="always take the likeliest character")
@click.option("--seed", metavar="N", type=int, help="the same seed writes the same text  [drawn; --json shows it]")
@click.option("--stop", multiple=True, metavar="TEXT", help="end before this text; may be given several times")
@click.option("--count", default=1, metavar="N", type=int, help="write N texts, as one batch  [1]")
@click.option("--adapt", metavar="FILE", multiple=True, help="learn from this text first, by reading it once")
@click.option("--unknown", metavar="error|skip|replace", help="prompt characters that the model does not know  [error]")
@click.option(
    "--precision",
    metavar="auto|fp32|bf16|int8",
    help="of the arithmetic; bf16 and int8 write faster, and another text  [auto: fp32]",
)
@click.option("--threads", metavar="N", help="CPU threads at most; the text is the same  [all cores]")
@click.option("--json", "as_json", is_flag=True, help="print a JSON object a text: index, seed, prompt, text")
def command(model: str, prompt: str, count: int, adapt: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Write text with MODEL, a model folder or a run folder, as it is made.

    The prompt comes first and the text follows it. A model trained with --binary takes a prompt from a file or stdin
    as it is, and writes bytes, without a newline at the end. In --json its bytes that are no UTF-8 are surrogate
    escapes (PEP 383).
    """
    from charloom.config import validated
    from charloom.model import Model, Writing

    given = {name: value for name, value in options.items() if not (value is None or value is False or value == ())}
    given.setdefault("seed", secrets.randbits(SEED_BITS))
    validated(Writing, given)  # before a text is learnt for it
    if prompt == "-" and "-" in adapt:
        raise SettingsError("stdin can be read only once; one of --prompt - and --adapt - must name a file")
    loaded = _adapted(model, adapt, given.get("unknown", "error")) if adapt else Model.load(model)
    binary = loaded.vocabulary.binary
    prompt = _prompt(prompt, binary)
    if count != 1 or as_json:
        _write_texts(prompt, given["seed"], loaded.generate_many(count, prompt, **given), as_json, binary)
        return
    stream = loaded.stream(prompt, **given)
    write(prompt, binary)
    for piece in stream:
        write(piece, binary)
    if not binary or sys.stdout.isatty():
        write("\n")


def _adapted(path: str, texts: tuple[str, ...], unknown: Any) -> Model:
    """The model after it has learnt from these texts; what is on disk stays as it is."""
    from charloom.checkpoint import load_model
    from charloom.cli.texts import text_like
    from charloom.model import Model
    from charloom.training.measuring import adapted

    folder = load_model(path)
    loaded = Model.of(folder)
    return Model.of(adapted(folder, loaded.read(text_like(loaded, texts), unknown)[0]))


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
        raise SettingsError(
            f"--prompt @FILE must name a file that can be read; {prompt[1:]}: {reason}; "
            "a prompt that begins with @ can come from stdin: --prompt -"
        ) from None
    return text.replace("\r\n", "\n").removesuffix("\n")


def _write_texts(prompt: str, seed: int, texts: list[str], as_json: bool, binary: bool) -> None:
    for index, text in enumerate(texts):
        if as_json:
            write(json.dumps({"index": index, "seed": seed, "prompt": prompt, "text": text}) + "\n")
        else:
            write(f"--- {index + 1}\n{prompt}{text}\n", binary)
