"""`charloom generate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from charloom.errors import SettingsError, TextError

MODEL_HELP = "a model folder, or a run folder"


@click.command(short_help="Write text with a model.")
@click.argument("model")
@click.option("--prompt", default="", metavar="TEXT|@FILE|-", help="what to continue; from a file; or from stdin")
@click.option("--length", metavar="N", help="characters to write  [1000, or no limit with --records]")
@click.option("--records", metavar="N", help="write so many whole records, of a model trained with --records")
@click.option("--temperature", metavar="X", help="0 is greedy, 1 is the model's own distribution  [0.8]")
@click.option("--top-k", metavar="N", help="draw from the N likeliest characters")
@click.option("--top-p", metavar="X", help="draw from the likeliest that together have probability X")
@click.option("--min-p", metavar="X", help="draw from those at least X times as likely as the likeliest")
@click.option("--greedy", is_flag=True, help="always the likeliest character")
@click.option("--seed", metavar="N", help="the same seed writes the same text")
@click.option("--stop", multiple=True, metavar="TEXT", help="end before this text; may be given again")
@click.option("--count", default=1, metavar="N", type=click.IntRange(1), help="so many texts, as one batch")
@click.option("--unknown", metavar="error|skip|replace", help="characters of the prompt that the model does not know")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a text")
def command(model: str, prompt: str, count: int, as_json: bool, **options: Any) -> None:
    """Write text with MODEL, a model folder or a run folder, as it is made.

    The prompt comes first and the text follows it.
    """
    from charloom.generate.model import Model

    given = {name: value for name, value in options.items() if value is not None and value != () and value is not False}
    loaded = Model.load(model)
    prompt = _prompt(prompt)
    if count > 1 or as_json:
        _write_texts(prompt, loaded.generate_many(count, prompt, **given), as_json)
        return
    stream = loaded.stream(prompt, **given)
    sys.stdout.write(prompt)
    for piece in stream:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def _prompt(prompt: str) -> str:
    """The prompt itself, or what the file (@FILE) or stdin (-) that it names holds, less one last newline."""
    try:
        if prompt == "-":
            prompt = sys.stdin.read().removesuffix("\n")
        elif prompt.startswith("@"):
            prompt = Path(prompt[1:]).read_text(encoding="utf-8").removesuffix("\n")
    except OSError as error:
        raise SettingsError(
            f"--prompt @FILE must name a file that can be read; {prompt[1:]}: {error.strerror}"
        ) from None
    except UnicodeDecodeError as error:
        raise TextError(
            f"the prompt must be UTF-8; byte {error.object[error.start]:#04x} at offset {error.start}"
        ) from None
    return prompt


def _write_texts(prompt: str, texts: list[str], as_json: bool) -> None:
    for number, text in enumerate(texts):
        if as_json:
            click.echo(json.dumps({"index": number, "prompt": prompt, "text": text}, ensure_ascii=False))
        else:
            click.echo(f"--- {number + 1}\n{prompt}{text}")
