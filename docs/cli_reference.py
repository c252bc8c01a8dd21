"""The `--help` of every command, which `make docs` puts into docs/cli.md; so no text exists twice."""

from __future__ import annotations

from collections.abc import Iterator

import click

from charloom.cli.main import cli

WIDTH = 100  # columns; fixed, so that the page does not depend on the terminal


def commands(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """A command and all commands below it, depth first, in the order of its help.

    Args:
        command: the first command.
        name: the word that the user types for it, after its parent's.
        parent: the context of the group it belongs to; None at the top.

    Yields:
        The words that the user types, and the help text.
    """
    layout = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH, "color": False}
    with click.Context(command, info_name=name, parent=parent, **layout) as context:
        yield context.command_path, command.get_help(context)
        if isinstance(command, click.Group):
            for below in command.list_commands(context):
                found = command.get_command(context, below)
                if found is not None and not found.hidden:
                    yield from commands(found, below, context)


def render() -> str:
    """A heading and the help of each command, as Markdown."""
    parts = []
    for path, text in commands(cli, "charloom"):
        lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
        parts.append(f"\n## `{path}`\n\n```text\n{lines}\n```\n")
    return "".join(parts)
