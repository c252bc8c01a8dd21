"""Flags made from the settings."""

from __future__ import annotations

import re

import click
import pytest

from charloom.cli.options import SETTING_NAMES, SettingsCommand, given_settings, range_of, settings_options
from charloom.cli.train import command
from charloom.config import PLANNED, SECTIONS, Settings
from charloom.errors import SettingsError

OPTIONS = {parameter.name: parameter for parameter in command.params if isinstance(parameter, click.Option)}


def test_every_setting_is_a_flag_with_a_description():
    """Catches a setting without a flag, or without a description."""
    for name in SETTING_NAMES:
        assert OPTIONS[name].opts == ["--" + name.replace("_", "-")]
        assert len(OPTIONS[name].help) > 8


def test_names_are_settings_or_the_commands_own_but_not_both():
    """Catches two sections with the same setting name: the flag would set only the first."""
    assert len(SETTING_NAMES) == len({*SETTING_NAMES})
    assert not {"out", "resume", "base_model", "quiet", "as_json", "tensorboard"} & {*SETTING_NAMES}


def test_the_help_shows_every_default(charloom):
    """Catches a default in the help that is not the actual one."""
    text = " ".join(charloom("train", "--help").out.split())
    for section in SECTIONS.values():
        for name, field in section.model_fields.items():
            if field.default not in (None, False):
                shown = f"{field.default:g}" if isinstance(field.default, float) else field.default
                after = text[text.index(f" --{name.replace('_', '-')} ") :]
                planned = "planned, else " if name in PLANNED else ""
                assert re.search(rf"(\[|; ){planned}{shown}\]$", after[: after.index("]", 1) + 1]), name


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["train"], "--layers N number of recurrent layers [1 to 64; 1]"),
        (["train"], "--hidden N units in each layer [1 to 65,536; planned, else 256]"),
        (["train"], "--minutes X train for X minutes [above 0; 5 without another budget]"),
        (["train"], "--seed N seed of all random numbers [0 to below 2^63; 0]"),
        (["train"], "or each new best model, in kept/ [at least 1]"),
        (["generate"], "together have probability X [above 0 to 1]"),
        (["generate"], "--count N texts after each prompt [1 to 100,000; 1]"),
        (["demo"], "--minutes X how long to train [above 0; 1]"),
        (["train"], "activation function, with --cell rnn [tanh]"),
    ],
)
def test_the_help_shows_ranges_and_flags(charloom, arguments, shown):
    """Catches a lost bound, a range in the help that is not the actual one, and a Python argument in a help text."""
    assert shown in " ".join(charloom(*arguments, "--help").out.split())


def test_every_number_has_a_range_in_the_help():
    """Catches a number without a range in the help."""
    for section in SECTIONS.values():
        for name, field in section.model_fields.items():
            if {"N", "X"} & {*str(OPTIONS[name].metavar).split("|")}:
                assert range_of(field), name
                assert f"[{range_of(field)}" in OPTIONS[name].help


def test_what_was_not_passed_is_not_given():
    """Catches defaults that are passed on as the user's values: --from and --resume would refuse them."""
    parsed = command.make_context("train", ["x.txt", "--hidden", "9", "--lowercase"]).params
    assert given_settings(parsed) == {"hidden": "9", "lowercase": True}


def test_a_former_flag_works_with_a_notice(monkeypatch, capsys):
    """Catches a flag of the last version that is refused, ignored, shown in the help, or accepted in silence."""
    monkeypatch.setattr("charloom.earlier.SETTINGS", {"learning_speed": "lr", "small_letters": "lowercase"})
    made = settings_options(SettingsCommand("train"))
    parsed = made.make_context("train", ["--learning-speed", "0.5", "--small-letters"])
    with parsed:
        assert given_settings(parsed.params) == {"lr": "0.5", "lowercase": True}
    err = capsys.readouterr().err
    assert "charloom: --learning-speed is now called --lr; the next version will not accept the former name\n" in err
    assert "--small-letters is now called --lowercase" in err
    assert given_settings(made.make_context("train", ["--lr", "0.5"]).params) == {"lr": "0.5"}
    assert capsys.readouterr().err == ""
    assert "learning-speed" not in made.get_help(click.Context(made))
    with pytest.raises(SettingsError, match="`learning_speed` is an unknown name"):
        Settings.from_flat(given_settings(made.make_context("t", ["--lr", "1", "--learning-speed", "2"]).params))


def test_flags_arrive_as_the_settings_type():
    """Catches a number that stays a string."""
    settings = Settings.from_flat({"hidden": "9", "lr": "1e-3", "lowercase": True})
    assert (settings.model.hidden, settings.training.lr, settings.text.lowercase) == (9, 0.001, True)
