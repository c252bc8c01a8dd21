"""Flags made from fields of pydantic: the settings in `config.py`, the options in `inference/options.py`.

A flag's value is passed on as typed (a switch as true). Only the field checks it, so there is only one message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from charloom import earlier
from charloom.cli.flags import as_flags
from charloom.cli.screen import tell_line
from charloom.config import PLANNED, SECTIONS, with_current_names
from charloom.errors import SettingsError
from charloom.validation import shown_number

SETTING_NAMES = [name for section in SECTIONS.values() for name in section.model_fields]
METAVARS = {int: "N", float: "X", str: "TEXT"}

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Choice(click.Choice[str]):
    """A word from a list; another one gives an error like those of the settings."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word, if the list has it."""
        if value not in self.choices:
            *most, last = map(repr, self.choices)
            name = param.make_metavar(ctx) if isinstance(param, click.Argument) and ctx else param and param.opts[0]
            raise SettingsError(f"{name} must be {', '.join(most)} or {last}; got {value!r}")
        return str(value)


class FieldOption(click.Option):
    """An option whose help names other arguments as flags of the command."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The flag with its metavar, and its help."""
        record = super().get_help_record(ctx)
        return record and (record[0], as_flags(record[1], ctx.command))


class SettingsCommand(click.Command):
    """A command whose help lists its own options first, then those of each section of the settings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Sections of options."""
        titles = {
            "": "Options",
            "text": "Text (what is read, and how it is prepared)",
            "model": "Model (fixed by --from)",
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
    """Gives a command a flag for every setting. A flag that was not given arrives as None.

    The former name of a setting is a flag too, without help.
    """
    fields = {name: field for section in SECTIONS.values() for name, field in section.model_fields.items()}
    for old, new in earlier.SETTINGS.items():
        command = click.option(_flag(old, fields[new], negatable=True), old, default=None, hidden=True)(command)
    return field_options(fields, negatable=True)(command)


def file_options(of: str) -> Decorator:
    """A decorator that gives a command the flags for reading a file with a model that exists.

    Args:
        of: the file, as the help names it.
    """
    flags = {
        "encoding": ("NAME", f"insist on this encoding of {of}; otherwise UTF-8, else detected"),
        "errors": ("strict|replace|ignore", "invalid bytes in the encoding: an error, U+FFFD, or left out  [strict]"),
        "field": ("NAME", "the field (.jsonl, .json; user.name is nested) or column (.csv, .tsv) that holds the text"),
    }

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, (metavar, text) in reversed(flags.items()):
            command = click.option(f"--{name}", metavar=metavar, help=text)(command)
        return command

    return decorate


def field_options(fields: Mapping[str, FieldInfo], negatable: bool = False) -> Decorator:
    """A decorator that gives a command a flag for each of these fields.

    Args:
        fields: by their Python names.
        negatable: whether a switch also has a flag that turns it off, because a preset may turn it on.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, field in reversed(list(fields.items())):
            command = click.option(_flag(name, field, negatable), name, cls=FieldOption, **_shown(name, field))(command)
        return command

    return decorate


def _flag(name: str, field: FieldInfo, negatable: bool) -> str:
    flag = name.replace("_", "-")
    return f"--{flag}/--no-{flag}" if field.annotation is bool and negatable else f"--{flag}"


def _shown(name: str, field: FieldInfo) -> dict[str, Any]:
    """The help of a flag. `[range; default]` comes last; without it, the description may contain a default in words."""
    if field.annotation is bool:
        return {"is_flag": True, "default": None, "help": field.description}
    described, _, in_words = str(field.description).partition("  [")
    multiple = get_origin(field.annotation) is tuple
    default = in_words.rstrip("]") if multiple or field.default is None else shown_number(field.default)
    brackets = "; ".join(filter(None, [range_of(field), f"planned, else {default}" if name in PLANNED else default]))
    return {
        "metavar": "TEXT" if multiple else _metavar(field.annotation),
        "multiple": multiple,
        "help": f"{described}  [{brackets}]" if brackets else described,
    }


def range_of(field: FieldInfo) -> str:
    """The range of a number in words, from the constraints of its field; empty if the field is not a number."""
    inner = [extra for part in get_args(field.annotation) for extra in getattr(part, "__metadata__", ())]
    constraints = [*field.metadata, *(each for extra in inner for each in extra.metadata)]
    bound = {
        sign: shown_number(value)
        for sign in ("ge", "gt", "le", "lt")
        for constraint in constraints
        if (value := getattr(constraint, sign, None)) is not None
    }
    high = f" to {bound['le']}" if "le" in bound else f" to below {bound['lt']}" if "lt" in bound else ""
    if "gt" in bound:
        return f"above {bound['gt']}{high}"
    return f"{'' if high else 'at least '}{bound['ge']}{high}" if "ge" in bound else ""


def _metavar(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return _metavar(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    inner = [_metavar(a) for a in get_args(annotation) if a is not type(None)]
    return "|".join(inner) or METAVARS.get(annotation, "TEXT")


def given_settings(values: dict[str, Any]) -> dict[str, Any]:
    """The settings among a command's values that were given. A former name gives a notice."""
    known = [*SETTING_NAMES, *earlier.SETTINGS]
    given = {name: values[name] for name in known if values.get(name) is not None}
    return with_current_names(given, lambda notice: tell_line(f"charloom: {notice}"))
