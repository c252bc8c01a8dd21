"""`charloom`: the verbs, and how every error ends.

A verb's module is imported when the verb is run, so `charloom --help` needs click alone. click rather than typer,
because flags are made from `config.py` (one place for name, range, default and help), which typer's decorators cannot
take.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from charloom.errors import CharloomError, SettingsError

VERBS = {
    "train": "Train a model on any text, go on with a run, or fine-tune a model.",
    "generate": "Write text with a model.",
    "eval": "Measure how well a model predicts a text.",
    "info": "Show a model's card, or what this installation can do.",
    "demo": "Train for a minute on text that Python carries, and read what it writes.",
    "corpora": "List the texts that have a name.",
}


class Verbs(click.Group):
    """The group of verbs; knows their names and one line on each without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order in which a newcomer meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, from `charloom.cli.<verb>`."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"charloom.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="charloom", message="charloom %(version)s")
def cli() -> None:
    r"""Train a recurrent language model on any text, character by character, and write text with it.

    \b
      charloom demo
      charloom train my.txt --minutes 5
      charloom generate runs/my-1 --prompt "Once"
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 our error, 2 usage, 130 interrupted."""
    # NumPy's products here are one row each: a second BLAS thread gains nothing, and on a busy machine costs a lot.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        status = cli.main(arguments, prog_name="charloom", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us has enough (`| head`). Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except (KeyboardInterrupt, click.Abort):
        status = _complain("interrupted", 130)
    except click.ClickException as error:
        status = _complain(error.format_message(), error.exit_code)
    except CharloomError as error:
        status = _complain(_as_flags(error), error.exit_status)
    except MemoryError:
        status = _complain("out of memory; lower --batch-size, --seq-length or --hidden", 1)
    except OSError as error:
        status = _complain(f"{error.filename or 'the system'}: {error.strerror or error}", 1)
    sys.exit(status if isinstance(status, int) else 0)


def _complain(message: str, status: int) -> int:
    click.echo(f"charloom: {' '.join(message.split())}", err=True)
    return status


def _as_flags(error: CharloomError) -> str:
    """The message, with a setting's name as the flag that the person typed."""
    message = str(error)
    if isinstance(error, SettingsError) and error.setting:
        return message.replace(error.setting, "--" + error.setting.replace("_", "-"), 1)
    return message
