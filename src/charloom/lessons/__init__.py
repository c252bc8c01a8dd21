"""The five classic programs as lessons: each trains by its preset, shows what it shows, and ends in a verdict."""

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
QUICK_TEXT = ("python-docs",)  # every Python carries it: a quick lesson downloads nothing


def teach(lesson: Lesson) -> bool:
    """Runs a lesson to its verdict; whether its proof held.

    Raises:
        CharloomError: for every mistake that a person can make.
        Interrupted: if asked to stop; the run that was under way is saved.
    """
    proven: bool = importlib.import_module(f"charloom.lessons.{lesson.name}").teach(lesson)
    return proven
