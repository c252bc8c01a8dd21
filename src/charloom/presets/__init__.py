"""Presets: settings that belong together under one name, as TOML with a reason beside each value.

A preset is only values: whatever it asks for, flags can ask for too, and what is given beside it wins.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from charloom.config import BUDGETS, PLANNED, SECTIONS
from charloom.errors import SettingsError

FOLDER = Path(__file__).parent
NAMES = ("alphabet", "alice", "windows", "numpy", "anna", "novel")


def preset(name: str) -> dict[str, Any]:
    """The settings of a preset by their flat names; of those that could be planned, all: it leaves nothing to a plan.

    Raises:
        SettingsError: for a name that no preset has.
    """
    if name not in NAMES:
        raise SettingsError(f"`preset` must be one of {', '.join(NAMES)}; got {name!r}")
    sections = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    assert sections.keys() <= SECTIONS.keys()
    fields = {name: field for kind in SECTIONS.values() for name, field in kind.model_fields.items()}
    unplanned = {name: fields[name].default for name in PLANNED}
    return unplanned | {setting: value for section in sections.values() for setting, value in section.items()}


def with_preset(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's settings, with these in place of its own."""
    return over(preset(name), values)


def over(settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with these values in place of their own; any budget among the values replaces all budgets."""
    kept = dict(settings)
    if any(values.get(budget) is not None for budget in BUDGETS):
        kept = {name: value for name, value in settings.items() if name not in BUDGETS}
    return kept | dict(values)
