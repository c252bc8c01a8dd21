"""`charloom`: the verbs, and how every error ends.

A verb's module is imported when the verb is run, so `charloom --help` needs click alone. click rather than typer,
because flags are made from `config.py` (one place for name, range, default and help), which typer's decorators cannot
take.
"""

from __future__ import annotations

import difflib
import importlib
import io
import keyword
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, TextIO

import click

from charloom.cli.screen import discard, open_closed_streams, tell, tell_line
from charloom.errors import CharloomError, SettingsError
from charloom.training.interrupt import prompt_interrupt

TRACEBACK = "CHARLOOM_TRACEBACK"
"""The environment variable with which an error that nobody foresaw also shows where it happened."""

VERBS = {
    "train": "Train a model on any text, go on with a run, or fine-tune a model.",
    "generate": "Write text with a model.",
    "eval": "Measure how well a model predicts a text.",
    "info": "Show a model's card, or what this installation can do.",
    "import": "Turn an old PyTorch or Keras checkpoint into a model folder.",
    "demo": "Train for a minute on text that Python carries, and read what it writes.",
    "lesson": "Run one of the five classic programs and see its proof.",
    "corpora": "List the texts that have a name.",
}


class Commands(click.Group):
    """The group of verbs; knows their names and one line on each without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order in which a newcomer meets them."""
        return list(VERBS)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without any argument, the help, as what was missing."""
        if not args and not ctx.resilient_parsing:
            tell(ctx.get_help())
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, from `charloom.cli.<verb>`, or `<verb>_` where Python keeps the word to itself."""
        if cmd_name not in VERBS:
            return None
        module = cmd_name + "_" * keyword.iskeyword(cmd_name)
        command: click.Command = importlib.import_module(f"charloom.cli.{module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that a person means; for a wrong one, the nearest is suggested."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], VERBS, 1)
            known = f"did you mean {near[0]}?" if near else f"the verbs are {', '.join(VERBS)}"
            raise click.UsageError(f"{args[0]!r} is not a verb of charloom; {known}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the verb; a setting that a message begins with is shown as the flag that sets it."""
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            verb = self.get_command(ctx, ctx.invoked_subcommand or "")
            raise SettingsError(_as_flag(str(error), verb.params if verb else [])) from None
        except BrokenPipeError:
            ctx.exit(0)  # whoever read us has enough (`| head`); click would make that a failure

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


def _as_flag(message: str, parameters: Sequence[click.Parameter]) -> str:
    name, _, rest = message.partition(" ")
    flag = next((p.opts[0] for p in parameters if isinstance(p, click.Option) and p.name == name), name)
    return f"{flag} {rest}"


@click.group(
    cls=Commands,
    subcommand_metavar="COMMAND ...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
    Begin with:
      charloom demo
      charloom train my.txt --minutes 5
      charloom generate runs/my-1 --prompt "Once"
    """,
)
@click.version_option(package_name="charloom", message="charloom %(version)s")
def cli() -> None:
    """Train a recurrent language model on any text, character by character, and write text with it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 our error, 2 usage, 130 interrupted."""
    # NumPy's products here are one row each: a second BLAS thread gains nothing, and on a busy machine costs a lot.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    open_closed_streams()
    _write_anything(sys.stdout)
    try:
        with prompt_interrupt():
            status = cli.main(arguments, prog_name="charloom", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        status = _complain("interrupted", 130)
    except click.ClickException as error:
        status = _complain(_with_hint(error), error.exit_code)
    except CharloomError as error:
        status = _complain(str(error), error.exit_status)
    except BrokenPipeError:  # what waited for whoever has enough; `Commands.invoke` has the usual case
        status = 0
    except MemoryError:
        status = _complain("out of memory; lower --batch-size, --seq-length or --hidden", 1)
    except ImportError as error:  # a part of the installation that is missing, damaged, or too large for `ulimit -v`
        status = _complain(f"every part must load; {_first(error)}; give it more memory, or install it again", 1)
    except OSError as error:
        status = _complain(f"{error.filename or 'reading or writing failed'}: {error.strerror or error}", 1)
    except Exception as error:
        status = _complain(_unforeseen(error), 1)
    _finish_stdout()
    sys.exit(status if isinstance(status, int) else 0)


def _write_anything(stdout: TextIO) -> None:
    """Lets stdout take every string: bytes of the command line that are not UTF-8 go out as they came in, and what a
    terminal's old encoding lacks becomes a question mark.
    """
    if isinstance(stdout, io.TextIOWrapper):
        stdout.reconfigure(errors="surrogateescape" if stdout.encoding.lower() == "utf-8" else "replace")


def _finish_stdout() -> None:
    """Where stdout cannot be written, an error was told; Python must not complain once more when it closes it."""
    try:
        sys.stdout.flush()
    except OSError:
        discard(sys.stdout)


def _first(error: BaseException) -> BaseException:
    """The error that began it; what packages say instead is a page of advice."""
    return _first(error.__cause__) if error.__cause__ else error


def _unforeseen(error: Exception) -> str:
    """What to say of an error that no other line foresees; the traceback only where somebody asks for it."""
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    return (
        f"a bug in charloom, {type(error).__name__}: {error}; please report it with the command that you typed and "
        f"what {TRACEBACK}=1 shows before it"
    )


def _with_hint(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message}; `{error.ctx.command_path} --help` says how"
    return message


def _complain(message: str, status: int) -> int:
    tell_line(f"charloom: {message}")
    return status
