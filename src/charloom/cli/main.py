"""`charloom`: the commands, and how every error ends.

The module of a command is imported when the command runs, so `charloom --help` needs only click. The library is click,
not typer, because flags are made from `config.py` (name, range, default and help of every setting).
"""

from __future__ import annotations

import difflib
import importlib
import io
import keyword
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Any, TextIO

import click

from charloom.cli.flags import as_flags
from charloom.cli.interrupt import ignore_interrupts, prompt_interrupt
from charloom.cli.screen import discard, open_closed_streams, tell, tell_line
from charloom.engines.torchrun import first_here, follows
from charloom.errors import CharloomError, ProcessLostError, full_memory_in_one_line

TRACEBACK = "CHARLOOM_TRACEBACK"
"""The environment variable that shows the traceback of an unexpected error."""

COMMANDS = {
    "train": "Train a model on any text, resume a run, or fine-tune a model.",
    "generate": "Generate text with a model.",
    "serve": "Serve models by HTTP, with the protocol of OpenAI's completions.",
    "app": "Open a web page to train models on your texts and to generate with them.",
    "eval": "Measure how well a model predicts a text.",
    "info": "Show a model, or what this installation can do.",
    "import": "Turn an old PyTorch or Keras checkpoint into a model folder.",
    "demo": "Train for a minute on text that is part of Python, and generate from it.",
    "lesson": "Run one of the five classic programs and get a verdict.",
    "corpora": "List the named corpora.",
}


class CommandGroup(click.Group):
    """The group of commands; has their names and one line on each without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order in which a new user needs them."""
        return list(COMMANDS)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without arguments, shows the help, as a usage error."""
        if not args and not ctx.resilient_parsing:
            tell(ctx.get_help())
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The click command in `charloom.cli.<name>`, or in `<name>_` if the name is a keyword of Python."""
        if cmd_name not in COMMANDS:
            return None
        module = cmd_name + "_" * keyword.iskeyword(cmd_name)
        command: click.Command = importlib.import_module(f"charloom.cli.{module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command for a name; for an unknown name, the error suggests the nearest one."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            known = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
            raise click.UsageError(f"{args[0]!r} is not a command of charloom; {known}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; arguments of Python in an error are shown as its flags."""
        try:
            return super().invoke(ctx)
        except CharloomError as error:
            error.args = (as_flags(str(error), self.get_command(ctx, ctx.invoked_subcommand or "")),)
            raise
        except BrokenPipeError:
            ctx.exit(0)  # the reader of the pipe closed it (`| head`); click would make that a failure

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=CommandGroup,
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
    """Train a recurrent language model on any text, character by character, and generate text with it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 our error, 2 usage, 130 interrupted."""
    # NumPy's products here have one row: a second BLAS thread gains nothing, and takes time on a busy machine.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    open_closed_streams()
    _accept_any_text(sys.stdout)
    with prompt_interrupt():
        try:
            status = _run(arguments)
        except (KeyboardInterrupt, click.Abort):
            status = _complain("interrupted", 130)
        _finish_stdout()
    sys.exit(status)


def _run(arguments: Sequence[str] | None) -> int:
    """Runs the command line; every error but an interrupt becomes one line and an exit status."""
    try:
        with full_memory_in_one_line():
            status = cli.main(arguments, prog_name="charloom", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.Abort:
        raise
    except click.ClickException as error:
        return _complain(_with_hint(error), error.exit_code)
    except ProcessLostError as error:  # on each machine, because a person may only see this one
        return _complain(_with_command(error), error.exit_status, first_here())
    except CharloomError as error:
        return _complain(_with_command(error), error.exit_status)
    except BrokenPipeError:  # from buffered output; `CommandGroup.invoke` handles the usual case
        return 0
    except ImportError as error:  # a package that is missing, damaged, or too large for `ulimit -v`
        return _complain(f"every package must load; {_first(error)}; free memory, or install charloom again", 1, True)
    except OSError as error:
        return _complain(f"{error.filename or 'reading or writing failed'}: {error.strerror or error}", 1, True)
    except Exception as error:
        return _complain(_unexpected(error), 1, True)


def _accept_any_text(stdout: TextIO) -> None:
    """Lets stdout take every string. Bytes of the command line that are not UTF-8 are written unchanged; a character
    that the encoding of stdout lacks becomes a question mark.
    """
    if isinstance(stdout, io.TextIOWrapper):
        stdout.reconfigure(errors="surrogateescape" if stdout.encoding.lower() == "utf-8" else "replace")


def _finish_stdout() -> None:
    """Flushes stdout. If that fails, an error was shown already; Python must not show another when it closes stdout."""
    try:
        sys.stdout.flush()
    except OSError:
        discard(sys.stdout)


def _first(error: BaseException) -> BaseException:
    """The first error of a chain; some packages wrap it in a page of advice."""
    return _first(error.__cause__) if error.__cause__ else error


def _unexpected(error: Exception) -> str:
    """The message for an unexpected error; the traceback is shown only on request."""
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    return (
        f"this is a bug in charloom, {type(error).__name__}: {error}; please report it with the command that you typed "
        f"and its output with {TRACEBACK}=1"
    )


def _with_command(error: CharloomError) -> str:
    """The message and, for a run that can be resumed, the command that does so."""
    return f"{error}: charloom train --resume {shlex.quote(str(error.run))}" if error.run else str(error)


def _with_hint(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message}; `{error.ctx.command_path} --help` says how"
    return message


def _complain(message: str, status: int, own: bool = False) -> int:
    """Prints the last line of a process, which no signal may cut.

    own: whether the message is about this process alone. If not, only the first process of a run prints it.
    """
    ignore_interrupts()
    if own or not follows():
        tell_line(f"charloom: {message}")
    return status
