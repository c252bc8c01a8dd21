"""Generates docs/cli.md, the `--help` of every command; with `--check`, only checks that it is current.

The page is the output of the program, so no text exists twice.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from charloom.cli.main import cli

PAGE = Path(__file__).with_name("cli.md")
WIDTH = 100  # columns; fixed, so that the page does not depend on the terminal
HEADER = """\
# Command line

The `--help` of every command. `make docs` writes this page; `make check` fails where it is out of date.
"""


def commands(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """A command and all commands below it, depth first, in the order of its help.

    Args:
        command: the first command.
        name: the word that the user types for it, after its parent's.
        parent: the context of the group it belongs to; None at the top.

    Yields:
        The words that the user types, and the help text.
    """
    with click.Context(
        command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH, color=False
    ) as context:
        yield context.command_path, command.get_help(context)
        if isinstance(command, click.Group):
            for below in command.list_commands(context):
                found = command.get_command(context, below)
                if found is not None and not found.hidden:
                    yield from commands(found, below, context)


def render() -> str:
    """The whole page as Markdown."""
    parts = [HEADER]
    for path, text in commands(cli, "charloom"):
        lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
        parts.append(f"## `{path}`\n\n```text\n{lines}\n```\n")
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Generates the page, or compares it with `--check`; returns the exit status."""
    page = render()
    if arguments == ["--check"]:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page:
            return 0
        print("docs/cli.md is not the current --help of the commands; run `make docs`", file=sys.stderr)
        return 1
    if arguments:
        print("usage: make_cli_reference.py [--check]", file=sys.stderr)
        return 2
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
