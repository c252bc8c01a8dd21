"""Presets: values only, each with its reason, that settings take as they are and flags may change."""

from __future__ import annotations

import re

import pytest

from charloom.character_class import listed_characters
from charloom.config import BUDGETS, Settings
from charloom.data.cleaning import clean
from charloom.errors import SettingsError
from charloom.presets import FOLDER, NAMES, over, preset, with_preset


def test_every_file_is_a_preset():
    """A file that nobody can name, or a name without its file."""
    assert sorted(path.stem for path in FOLDER.glob("*.toml")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_valid_settings_with_a_budget(name):
    """A setting that does not exist, a value out of range, or a preset that trains for the default five minutes."""
    settings = Settings.from_flat(preset(name))
    assert [budget for budget in BUDGETS if getattr(settings.training, budget) is not None]
    for setting, value in preset(name).items():
        meant = listed_characters(value) if setting == "allow" else value
        assert next(getattr(section, setting) for _, section in settings if hasattr(section, setting)) == meant


@pytest.mark.parametrize("name", NAMES)
def test_every_value_has_its_reason_beside_it(name):
    """A number that nobody can argue with, because nobody says where it comes from."""
    lines = (FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    values = [line for line in lines if re.match(r"\w+ = ", line)]
    assert len(values) > 10
    assert [line for line in values if not re.search(r"  # \S", line)] == []
    assert lines[0].startswith("# ")


def test_an_unknown_name():
    with pytest.raises(SettingsError, match=r"^`preset` must be one of alphabet, .*; got 'shakespeare'$"):
        preset("shakespeare")


def test_what_is_given_beside_a_preset_wins():
    """A preset that hides a flag, and one whose epochs go on where minutes were asked for."""
    mixed = with_preset("anna", {"cell": "gru", "minutes": 3, "epochs": None})
    assert (mixed["cell"], mixed["hidden"], mixed["minutes"], mixed.get("epochs")) == ("gru", 512, 3, None)
    assert over({"epochs": 3}, {"hidden": 5}) == {"epochs": 3, "hidden": 5}
    assert with_preset("alice", {"collapse_spaces": False})["collapse_spaces"] is False


def test_alice_has_the_lessons_68_characters():
    settings = Settings.from_flat(preset("alice")).text
    assert settings.allow is not None
    assert len(set(settings.allow)) == len(settings.allow) == 68
    assert clean("Éa\n\n  b—c;'d'\t", settings.cleaning) == "a bc'd'"
