"""Settings: values that are refused and their messages, defaults, and conversions."""

from __future__ import annotations

import re
import tomllib
from fractions import Fraction
from typing import Any, get_args

import pydantic
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from charloom import earlier
from charloom.character_class import listed_characters
from charloom.config import (
    SECTIONS,
    Cleaning,
    ModelSettings,
    Settings,
    TextSettings,
    TrainingSettings,
    with_current_names,
)
from charloom.errors import SettingsError
from charloom.validation import validated

BUDGETS = ("minutes", "epochs", "steps")


def as_listed(characters: str) -> str:
    """The characters that `listed_characters` reads from a list of these characters."""
    return re.sub(r"[-\\^]", r"\\\g<0>", characters)


def refused(**values: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.from_flat(values)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def through_toml(settings: Settings) -> Settings:
    return validated(Settings, tomllib.loads(tomli_w.dumps(settings.model_dump(exclude_none=True))))


@pytest.mark.parametrize(
    ("name", "value", "must"),
    [
        ("min_count", 0, "at least 1"),
        ("layers", 0, "at least 1"),
        ("layers", 65, "at most 64"),
        ("hidden", 0, "at least 1"),
        ("hidden", 65537, "at most 65,536"),
        ("embedding", 0, "at least 1"),
        ("embedding", 65537, "at most 65,536"),
        ("dropout", -0.1, "at least 0"),
        ("dropout", 1.0, "below 1"),
        ("minutes", 0, "above 0"),
        ("epochs", 0, "at least 1"),
        ("steps", 0, "at least 1"),
        ("batch_size", 0, "at least 1"),
        ("seq_length", 0, "at least 1"),
        ("lr", 0.0, "above 0"),
        ("momentum", -0.5, "at least 0"),
        ("momentum", 1, "below 1"),
        ("warmup", -1, "at least 0"),
        ("warmup", 1, "below 1"),
        ("weight_decay", -1, "at least 0"),
        ("clip", -1, "at least 0"),
        ("seed", -1, "at least 0"),
        ("seed", 2**63, "below 2^63"),
        ("validate_every", 0, "a whole number of at least 1, or 'epoch'"),
        ("validate_every", "2.5", "a whole number of at least 1, or 'epoch'"),
        ("keep", "all", "a whole number of at least 1, or 'best'"),
        ("beta1", 1, "below 1"),
        ("beta2", 1, "below 1"),
        ("clip_value", -1, "at least 0"),
        ("sample_length", -1, "at least 0"),
        ("sample_temperature", -1, "at least 0"),
        ("checkpoint_every", 0, "at least 1"),
        ("patience", 0, "at least 1"),
        ("threads", 0, "at least 1"),
        ("threads", 2**31, "at most 65,536"),
        ("steps", 10**400, "at most 1e100"),
        ("keep", 10**18, "a whole number of at least 1, or 'best'"),
    ],
)
def test_numbers_outside_their_range(name: str, value: float, must: str):
    """Catches a lost or shifted bound, and a message without the name, the rule or what was found."""
    assert refused(**{name: value}) == f"`{name}` must be {must}; got {value!r}"


def test_every_number_has_a_range():
    """Catches a new number that is missing in the table above: -1 is invalid for all of them."""
    for kind in SECTIONS.values():
        for name, field in kind.model_fields.items():
            if {int, float} & {field.annotation, *get_args(field.annotation)}:
                assert re.match(f"`{name}` must be (at least|above|a whole number)", refused(**{name: -1}))


def test_counts_that_may_be_a_word():
    """Catches a number in a string that is not converted, and a word that is refused."""
    training = Settings.from_flat({"validate_every": "epoch", "keep": "10"}).training
    assert (training.validate_every, training.keep) == ("epoch", 10)
    assert Settings.from_flat({"validate_every": "7", "keep": "best"}).training.validate_every == 7


def test_nesterov_needs_momentum():
    """Catches a setting without an effect: Adam has no Nesterov form here."""
    needs = "`nesterov=True` needs `optimizer='sgd'` and a `momentum` above 0"
    assert refused(nesterov=True) == f"{needs}; got `optimizer='adamw'`"
    assert refused(nesterov=True, optimizer="sgd", momentum=0) == f"{needs}; got `momentum=0`"
    assert Settings.from_flat({"nesterov": True, "optimizer": "sgd"}).training.nesterov


def test_nothing_reads_across_independent_records():
    """Catches windows across independent records, which are generated from the zero state."""
    assert refused(records="line", batches="windows").startswith("`batches='windows'` would read across independent")
    assert refused(records="line", wrap=True).startswith("`wrap=True` would read across independent records")
    for values in ({"batches": "windows"}, {"wrap": True}):
        assert Settings.from_flat({"records": "line", "keep_order": True, **values}).text.keep_order
        Settings.from_flat(values)


@pytest.mark.parametrize("value", ["inf", "nan", "-inf"])
@pytest.mark.parametrize("name", ["minutes", "lr", "dropout", "weight_decay", "clip"])
def test_infinities(name: str, value: str):
    """Catches a budget without an end, and a learning rate that is not a number."""
    assert refused(**{name: value}) == f"`{name}` must be a finite number; got {value!r}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cell": "elman"}, "`cell` must be 'rnn', 'lstm' or 'gru'; got 'elman'"),
        ({"normalize": "nfd"}, "`normalize` must be 'nfc' or 'nfkc'; got 'nfd'"),
        ({"device": "tpu"}, "`device` must be 'auto', 'cpu', 'cuda' or 'mps'; got 'tpu'"),
        (
            {"hidden": "many\n"},
            "`hidden` must be a whole number; got 'many\\n'",
        ),
        ({"layers": 1.5}, "`layers` must be a whole number; got 1.5"),
        ({"lowercase": "perhaps"}, "`lowercase` must be True or False; got 'perhaps'"),
        ({"hidden": None}, "`hidden` must be a whole number; got None"),
        ({"records": "field"}, "`records='field'` needs the name of a field; pass `field`"),
        ({"keep_order": True}, "`keep_order=True` needs records; pass `records`, for example `records='line'`"),
    ],
)
def test_values_of_another_kind(values: dict[str, Any], message: str):
    """Catches pydantic's message of several lines, a missing choice, and a value that makes the message longer."""
    assert refused(**values) == message


def test_a_number_of_5000_digits():
    """Catches the wrong message 'must be unable to parse'."""
    assert refused(hidden="9" * 5000).startswith("`hidden` must be a whole number with fewer digits")


def test_unknown_names():
    """Catches a misspelt keyword or line that is ignored without an error."""
    assert refused(hiden=3) == "`hiden` is an unknown name; did you mean `hidden`?"
    for values in ({"model": {"hiden": 3}}, {"hiden": {}}):
        with pytest.raises(SettingsError, match=r"^`hiden` is an unknown name; "):
            validated(Settings, values)
    with pytest.raises(SettingsError, match=r"^`model` must be a valid dictionary or instance of ModelSettings"):
        validated(Settings, {"model": 3})


def test_a_missing_field():
    """Catches the wrong message 'must be field required'."""

    class Pair(pydantic.BaseModel):
        left: int

    with pytest.raises(SettingsError, match=r"^`left` must be given; it is missing$"):
        validated(Pair, {})


def test_other_values():
    """Catches a change that is not checked, that loses other settings, or that reads `allow` as ranges again."""
    settings = Settings.from_flat({"allow": r"+\-9 a-z", "hidden": 9, "minutes": 2})
    changed = settings.replaced({"lr": "0.5", "steps": 3})
    assert (changed.text, changed.model) == (settings.text, settings.model)
    assert (changed.training.lr, changed.training.steps, changed.training.minutes) == (0.5, 3, None)
    assert settings.replaced({"lr": 0.5}).training.minutes == 2
    with pytest.raises(SettingsError, match="`nesterov=True` needs"):
        settings.replaced({"nesterov": True})


def test_former_names_of_settings(monkeypatch: pytest.MonkeyPatch):
    """Catches a former name that replaces the current one, and one that is accepted without a notice."""
    monkeypatch.setattr(earlier, "SETTINGS", {"speed": "lr"})
    said: list[str] = []
    assert with_current_names({"speed": 0.5, "seed": 1}, said.append) == {"lr": 0.5, "seed": 1}
    assert said == ["`speed` is now called `lr`; the next version will not accept the former name"]
    assert with_current_names({"lr": 0.5}, said.append) == {"lr": 0.5}
    assert len(said) == 1
    with pytest.raises(SettingsError, match="`speed` is an unknown name"):
        Settings.from_flat(with_current_names({"lr": 1, "speed": 2}, said.append))


def test_run_settings_of_earlier_versions(monkeypatch: pytest.MonkeyPatch):
    """Catches a run.toml of version 0.1, with dropout in [model], that is refused or resumed with another dropout."""
    monkeypatch.setattr(earlier, "SETTINGS", {"speed": "lr"})
    old = {"text": {"records": "line"}, "model": {"dropout": 0.1}, "training": {"steps": 3, "speed": 0.5}}
    settings = validated(Settings, earlier.run_settings(old))
    assert (settings.training.dropout, settings.training.lr, settings.text.keep_order) == (0.1, 0.5, True)
    assert earlier.run_settings(settings.model_dump()) == settings.model_dump()
    for damaged in ({"model": 3}, {"model": {"dropout": 0.1}, "training": {"dropout": 0.2}}):
        with pytest.raises(SettingsError):
            validated(Settings, earlier.run_settings(damaged))


def test_names_are_unique():
    """Catches a flag that would set two settings."""
    names = [name for kind in SECTIONS.values() for name in kind.model_fields]
    assert len(names) == len(set(names))


def test_from_flat_finds_the_section():
    """Catches a value that lands in another section or is lost."""
    settings = Settings.from_flat({"lowercase": True, "cell": "gru", "steps": 3})
    assert settings.text == TextSettings(lowercase=True)
    assert settings.model == ModelSettings(cell="gru")
    assert settings.training == TrainingSettings(steps=3)


@pytest.mark.parametrize("kind", [Settings, *SECTIONS.values()])
def test_frozen(kind: type[pydantic.BaseModel]):
    """Catches a setting that changes after it was checked."""
    settings = kind()
    for name in kind.model_fields:
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            setattr(settings, name, None)


@pytest.mark.parametrize("given", [{}, dict.fromkeys(BUDGETS), {"seed": 3}])
def test_five_minutes_where_no_budget_is_given(given: dict[str, Any]):
    """Catches training without end."""
    settings = TrainingSettings(**given)
    assert (settings.minutes, settings.epochs, settings.steps) == (5.0, None, None)


@pytest.mark.parametrize("given", [{"minutes": 1.0}, {"epochs": 2}, {"steps": 3}, {"epochs": 2, "steps": 3}])
def test_a_given_budget_stands_alone(given: dict[str, Any]):
    """Catches five minutes that end a run with a budget in epochs or steps, also after a resume."""
    for settings in (Settings.from_flat(given), through_toml(Settings.from_flat(given))):
        assert {name: getattr(settings.training, name) for name in BUDGETS} == {**dict.fromkeys(BUDGETS), **given}
    again = TrainingSettings(**Settings.from_flat(given).training.model_dump())
    assert again == Settings.from_flat(given).training


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "allow": st.text(st.characters(exclude_categories=["Cs"])).map(as_listed),
            "field": st.text("a\"'\\\n\r\t\0\x7f\u2028é", min_size=1),
            "records": st.sampled_from(["none", "line"]),
            "split": st.sampled_from(["100/0", "80/10/10", "0.7/0.2/0.1"]),
            "lr": st.floats(1e-300, 1e300),
            "seed": st.integers(0, 2**63 - 1),
            "steps": st.integers(1, 10**30),
            "dropout": st.floats(0, 1, exclude_max=True),
            "patience": st.none() | st.integers(1, 10**100),
        },
    )
)
def test_settings_come_back_from_toml(values: dict[str, Any]):
    """Catches a run that resumes with other settings than it began with."""
    settings = Settings.from_flat(values)
    assert through_toml(settings) == settings


@pytest.mark.parametrize(
    ("split", "fractions"),
    [
        ("90/10/0", (90, 10, 0)),
        ("80/10/10", (80, 10, 10)),
        ("90/10", (90, 10, 0)),
        ("100/0", (1, 0, 0)),
        ("3/0/1", (3, 0, 1)),
        ("50/50/50", (1, 1, 1)),
        ("0.7/0.2/0.1", (7, 2, 1)),
    ],
)
def test_split_as_fractions(split: str, fractions: tuple[int, int, int]):
    """Catches parts that are taken for percent but do not sum to 100, a lost third part, and rounding (0.7 + 0.2 <
    0.9).
    """
    settings = TextSettings(split=split)
    assert settings.fractions == tuple(Fraction(part, sum(fractions)) for part in fractions)
    assert sum(settings.fractions) == 1


@pytest.mark.parametrize(
    "split",
    [
        *["0/100", "0.0/1/1", "90", "a/b", "", "90/", "/90", "1/2/3/4", "-90/10", "90/-10", "90 / 10", "90:10"],
        *["nan/1", "inf/1", "1e2/1", "90/10\n", "9" * 400 + "/1", "9" * 5000 + "/1"],
    ],
    ids=lambda split: split[:8],
)
def test_splits_that_mean_nothing(split: str):
    """Catches an empty training split, and an overflow or traceback for odd numbers."""
    must = "`split` must be two or three numbers such as 80/10/10, the first above 0"
    assert refused(split=split) == f"{must}; got {split!r}"


def test_binary_is_bytes():
    """Catches `--binary` that decodes, and `--binary` that trains on characters without a message."""
    assert TextSettings(binary=True).vocabulary == "bytes"
    assert TextSettings(binary=False).vocabulary == "auto"
    assert TextSettings.model_validate({"vocabulary": "auto", "binary": "true"}).vocabulary == "bytes"
    assert "`vocabulary` must be 'bytes' with `binary=True`" in refused(binary=True, vocabulary="characters")
    assert "`encoding` must be left out with `binary=True`" in refused(binary=True, encoding="cp1252")
    assert "`errors` must be left out with `binary=True`" in refused(binary=True, errors="replace")


@pytest.mark.parametrize(
    ("listed", "characters"),
    [
        ("a-e", "abcde"),
        ("zya-c", "abcyz"),
        (r"\n\t", "\t\n"),
        ("\n ", "\n "),
        (r"\d\-", "-0123456789"),
        (r"\s", "\t\n\v\f\r "),
        (r"a\-c\\\]\^", "-\\]^ac"),
        ("[a-c]", "[]abc"),
        ("a]b[c", "[]abc"),
        ("-a", "-a"),
        ("a-", "-a"),
        ("a^b", "^ab"),
        ("+--&&||~~", "&+,-|~"),
        ("а-в", "абв"),
        (r"\u00e9\x41\U0001f642", "Aé🙂"),
        ("", ""),
    ],
)
def test_allow_is_a_character_class(listed: str, characters: str):
    """Catches `--allow a-z` that keeps three characters, and signs with another meaning in a regular expression."""
    assert Settings.from_flat({"allow": listed}).text.allow == characters


@pytest.mark.parametrize("listed", ["^a", r"\w", r"a\W", r"\D", r"\S", "z-a", "a\\", r"\q", r"\xg", r"a-\d"])
def test_lists_of_characters_that_cannot_be_meant(listed: str):
    """Catches a traceback of `re`, and a list of a hundred thousand characters in every model folder."""
    with pytest.raises(SettingsError, match=r"^`allow` must list characters as a regular .*; got "):
        Settings.from_flat({"allow": listed})


@given(st.text(st.sampled_from("ab-^\\][&~|d\n é")))
def test_listed_characters_come_back(characters: str):
    """Catches a model's characters that fine-tuning would read as ranges."""
    assert listed_characters(as_listed(characters)) == "".join(sorted({*characters}))


def test_what_is_stored_is_never_read_as_ranges():
    """Catches an older run whose three characters become 52 when it is resumed."""
    stored = Settings.model_validate({"text": {"allow": "a-z"}})
    assert stored.text.allow == stored.text.cleaning.allow == "a-z"


def test_cleaning_is_what_goes_with_the_model():
    """Catches a cleaning step that prompts do not get, and text settings that are stored with a model."""
    cleaning = Cleaning(lowercase=True, allow="ab", newlines_to_spaces=True, collapse_spaces=True, normalize="nfkc")
    settings = TextSettings(**cleaning.model_dump(), records="line", min_count=2)
    assert settings.cleaning == cleaning
    assert type(settings.cleaning) is Cleaning
