"""Flags made from the settings in `config.py`.

A flag's value is handed on as typed (a switch as true): the settings check it, so there is one judge and one message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from charloom import earlier
from charloom.cli.screen import tell_line
from charloom.config import PLANNED, SECTIONS, with_current_names

SETTING_NAMES = [name for section in SECTIONS.values() for name in section.model_fields]
METAVARS = {int: "N", float: "X", str: "TEXT"}


class SettingsCommand(click.Command):
    """A command whose help lists its own options first, then those of each section of the settings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Sections of options."""
        titles = {
            "": "Options",
            "text": "Text (what is read, and how it is prepared)",
            "model": "Model (--from keeps its own)",
            "training": "Training (how long, and how)",
        }
        for section, title in titles.items():
            mine = [p for p in self.get_params(ctx) if isinstance(p, click.Option) and _section_of(p.name) == section]
            rows = [record for p in mine if (record := p.get_help_record(ctx))]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _section_of(name: str | None) -> str:
    return next((section for section, kind in SECTIONS.items() if name in kind.model_fields), "")


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command a flag for every setting; one that was not passed arrives as None.

    A former name of a setting is a flag too, which the help does not show.
    """
    fields = {name: field for section in SECTIONS.values() for name, field in section.model_fields.items()}
    for name, field in reversed(fields.items()):
        command = click.option(_flag(name, field), name, **_help(name, field))(command)
    for old, new in earlier.SETTINGS.items():
        command = click.option(_flag(old, fields[new]), old, default=None, hidden=True)(command)
    return command


def _flag(name: str, field: FieldInfo) -> str:
    flag = name.replace("_", "-")
    return f"--{flag}/--no-{flag}" if field.annotation is bool else f"--{flag}"


def _help(name: str, field: FieldInfo) -> dict[str, Any]:
    """What the help says of a flag."""
    if field.annotation is bool:
        return {"default": None, "help": field.description}  # a preset may have it on
    shown = f"{field.default:g}" if isinstance(field.default, float) else field.default
    planned = "planned, else " if name in PLANNED else ""
    default = "" if field.default is None else f"  [{planned}{shown}]"
    return {"metavar": _metavar(field.annotation), "help": f"{field.description}{default}"}


def _metavar(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    inner = [_metavar(a) for a in get_args(annotation) if a is not type(None)]
    return "|".join(inner) or METAVARS.get(annotation, "TEXT")


def given_settings(values: dict[str, Any]) -> dict[str, Any]:
    """The settings among a command's values that were passed; one under its former name gives a notice."""
    known = [*SETTING_NAMES, *earlier.SETTINGS]
    given = {name: values[name] for name in known if values.get(name) is not None}
    return with_current_names(given, lambda notice: tell_line(f"charloom: {notice}"))
