"""Arguments of Python that a message names, shown as flags of the command line.

The library writes an argument in backquotes, with a value of Python: `lr`, `keep_order=True`, `unknown='skip'`. The
command line shows --lr, --keep-order, --unknown skip. A parameter of a command has the name of the argument of Python
that it stands for, so no table is needed.
"""

from __future__ import annotations

import ast
import re
import shlex
from typing import Any

import click

TOKEN = re.compile(
    r"(?P<quoted>(?<!\w)'(?:[^'\\]|\\.)*'|(?<!\w)\"(?:[^\"\\]|\\.)*\")"  # what a user typed, as repr shows it
    r"|(?<![^\s(])`(?P<name>[a-z]\w*)(?:=(?P<value>[^`]+))?`(?=[),;:?]|\.?(?:\s|$))"
)


def as_flags(message: str, command: click.Command | None = None) -> str:
    """A message of the library with every argument shown as a flag. All other text stays.

    Args:
        message: text of an error, a notice, a verdict or a help.
        command: the command whose parameters count beside the settings; by default the one that runs.
    """
    if command is None and (context := click.get_current_context(silent=True)):
        command = context.command
    known = {parameter.name: parameter for parameter in command.params} if command else {}

    def replaced(token: re.Match[str]) -> str:
        name, value = token["name"], token["value"]
        return (name and _flag(name, value, known.get(name))) or token[0]

    return TOKEN.sub(replaced, message)


def _flag(name: str, value: str | None, parameter: click.Parameter | None) -> str | None:
    """`--records line`, or the metavar of an argument; None for a name that is neither a parameter nor a setting."""
    if isinstance(parameter, click.Argument):
        return (parameter.metavar or name.upper()).strip("[].")
    flag = parameter.opts[0] if parameter else _setting(name)
    return flag and (flag if value is None else _with_value(flag, value))


def _setting(name: str) -> str | None:
    from charloom.config import SECTIONS  # pydantic: not for `charloom --help`

    known = any(name in section.model_fields for section in SECTIONS.values())
    return "--" + name.replace("_", "-") if known else None


def _with_value(flag: str, value: str) -> str:
    """A flag with a value of Python; a switch has none."""
    try:
        read: Any = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return f"{flag} {value}"
    if isinstance(read, bool):
        return flag if read else flag.replace("--", "--no-", 1)
    return f"{flag} {shlex.quote(str(read))}"
