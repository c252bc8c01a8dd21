"""The five classic programs as lessons. Each trains with its preset, shows its results, and ends with a verdict."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from charloom.lessons.lesson import Lesson

# The text that each classic program used; the alphabet brings its own.
TEXTS: dict[str, tuple[str, ...]] = {
    "alphabet": (),
    "alice": ("alice",),
    "windows": ("alice",),
    "numpy": ("anna-karenina",),
    "anna": ("anna-karenina",),
}
QUICK_TEXT = ("python-docs",)  # part of every Python installation: a quick lesson downloads nothing


def teach(lesson: Lesson) -> bool:
    """Runs a lesson to its verdict. Returns whether the lesson proved its point.

    Raises:
        CharloomError: for every mistake that a person can make.
        Interrupted: if `stop` returned true; the current run is saved.
    """
    proven: bool = importlib.import_module(f"charloom.lessons.{lesson.name}").teach(lesson)
    return proven
