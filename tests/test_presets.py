"""Presets: only values, each with a reason. Settings accept them, and flags may change them."""

from __future__ import annotations

import re

import pytest

from charloom.character_class import listed_characters
from charloom.config import BUDGETS, Settings
from charloom.data.cleaning import clean
from charloom.errors import SettingsError
from charloom.presets import FOLDER, NAMES, over, preset, with_preset


def test_every_file_is_a_preset():
    """Catches a file that is not a preset name, and a name without a file."""
    assert sorted(path.stem for path in FOLDER.glob("*.toml")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_valid_settings_with_a_budget(name):
    """Catches an unknown setting, a value out of range, and a preset without a budget."""
    settings = Settings.from_flat(preset(name))
    assert [budget for budget in BUDGETS if getattr(settings.training, budget) is not None]
    for setting, value in preset(name).items():
        meant = listed_characters(value) if setting == "allow" else value
        assert next(getattr(section, setting) for _, section in settings if hasattr(section, setting)) == meant


@pytest.mark.parametrize("name", NAMES)
def test_every_value_has_its_reason_beside_it(name):
    """Catches a value without a reason beside it."""
    lines = (FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    values = [line for line in lines if re.match(r"\w+ = ", line)]
    assert len(values) > 10
    assert [line for line in values if not re.search(r"  # \S", line)] == []
    assert lines[0].startswith("# ")


def test_an_unknown_name():
    with pytest.raises(SettingsError, match=r"^`preset` must be one of alphabet, .*; got 'shakespeare'$"):
        preset("shakespeare")


def test_what_is_given_beside_a_preset_wins():
    """Catches a preset that overrides a flag, and a preset whose epochs count beside a budget in minutes."""
    mixed = with_preset("anna", {"cell": "gru", "minutes": 3, "epochs": None})
    assert (mixed["cell"], mixed["hidden"], mixed["minutes"], mixed.get("epochs")) == ("gru", 512, 3, None)
    assert over({"epochs": 3}, {"hidden": 5}) == {"epochs": 3, "hidden": 5}
    assert with_preset("alice", {"collapse_spaces": False})["collapse_spaces"] is False


def test_alice_has_the_lessons_68_characters():
    settings = Settings.from_flat(preset("alice")).text
    assert settings.allow is not None
    assert len(set(settings.allow)) == len(settings.allow) == 68
    assert clean("Éa\n\n  b—c;'d'\t", settings.cleaning) == "a bc'd'"
