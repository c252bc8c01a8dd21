"""`charloom lesson`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from charloom.cli.display import open_display
from charloom.cli.interrupt import graceful_interrupt
from charloom.cli.options import Choice, SettingsCommand, given_settings, settings_options
from charloom.cli.screen import write
from charloom.lessons import QUICK_TEXT, TEXTS, teach


@click.command(
    cls=SettingsCommand,
    short_help="Run one of the five classic programs and get a verdict.",
    epilog="""\b
    Examples:
      charloom lesson alphabet
      charloom lesson windows --quick
      charloom lesson anna my.txt --cell gru
    """,
)
@click.argument("name", metavar="NAME", type=Choice(list(TEXTS)))
@click.argument("paths", metavar="[PATH...]", nargs=-1)
@click.option("--quick", is_flag=True, help="minutes instead of hours: a smaller text and network")
@click.option("--out", metavar="DIR", type=Path, help="the lesson's folder; new or empty  [runs/lesson-<name>-<n>]")
@settings_options
def command(name: str, paths: tuple[str, ...], quick: bool, out: Path | None, **values: Any) -> None:
    """Run one of the five classic programs: train with the preset of its name, show the results, end with a verdict.
    NAME is alphabet, alice, windows, numpy or anna.

    The text is the one that the classic program used (fetched once; see `charloom corpora`), or PATH. With --quick it
    is a text that is part of every Python installation. Flags override the settings of the preset. The defaults in
    brackets are for settings that the preset leaves out. docs/lessons/ has a page for each lesson.
    """
    from charloom.lessons.lesson import Lesson
    from charloom.training.new_folder import new_folder

    texts = paths or (QUICK_TEXT if quick and TEXTS[name] else TEXTS[name])
    with open_display() as display, graceful_interrupt(display) as (report, stop):
        folder = new_folder(out, f"lesson-{name}")
        lesson = Lesson(name, texts, quick, folder, given_settings(values), _say, report, stop)
        proven = teach(lesson)
    click.get_current_context().exit(0 if proven else 1)


def _say(line: str) -> None:
    write(line + "\n")
