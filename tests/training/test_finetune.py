"""Fine-tuning: tokens are matched by their character or byte."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from charloom.architecture import Architecture
from charloom.checkpoint import ModelFolder, load_model, save_model
from charloom.config import Cleaning
from charloom.data.vocabulary import Vocabulary
from charloom.engines.initial import initial_parameters
from charloom.errors import SettingsError
from charloom.training import start
from charloom.training.events import Notice
from charloom.training.finetune import adapt, settings_like

pytestmark = pytest.mark.processor

CHEAP = {"hidden": 8, "embedding": 4, "batch_size": 4, "seq_length": 8, "device": "cpu", "precision": "fp32"}


def folder(vocabulary, input_kind="embedding", seed=0, cell="lstm"):
    shape = Architecture(
        cell=cell,
        nonlinearity="tanh",
        layers=2,
        hidden=8,
        input=input_kind,
        embedding=4,
        vocabulary_size=vocabulary.size,
    )
    generator = np.random.default_rng(seed)
    weights = {name: generator.normal(0, 1, size).astype(np.float32) for name, size in shape.shapes.items()}
    return ModelFolder(shape, vocabulary, weights)


def characters(text, **special):
    return Vocabulary("characters", tuple(sorted(text)), **special)


def adapted(old, new, input_kind="embedding"):
    base, fresh, said = folder(old, input_kind, seed=1), folder(new, input_kind, seed=2), []
    return base, fresh, adapt(base, fresh, said.append), said


def tokens(vocabulary):
    return [*vocabulary.characters, *["unknown"] * vocabulary.unknown, *["separator"] * vocabulary.separator]


@pytest.mark.parametrize("input_kind", ["embedding", "onehot"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (characters("bcd"), characters("abcdz")),
        (characters("bcd", unknown=True), characters("abcd", unknown=True, separator=True)),
        (characters("bcd", separator=True), characters("abcd", unknown=True, separator=True)),
        (characters("bd"), characters("ac")),
    ],
)
def test_rows_follow_their_character_and_new_ones_start_fresh(old, new, input_kind):
    """Catches rows matched by id: with another alphabet, all weights and special tokens would be exchanged."""
    base, fresh, made, said = adapted(old, new, input_kind)
    known = [token for token in tokens(new) if token in tokens(old)]
    kept = f"fine-tuning: {len(known)} known tokens keep their weights"
    assert said == [f"{kept}, {new.size - len(known)} new ones start from initial weights"]
    by_row = ["head.weight", "head.bias"] + ["embedding.weight"] * (input_kind == "embedding")
    by_column = ["rnn.weight_ih_l0"] if input_kind == "onehot" else []
    for index, token in enumerate(tokens(new)):
        source, place = (base, tokens(old).index(token)) if token in known else (fresh, index)
        for name in by_row:
            assert made.parameters[name][index].tobytes() == source.parameters[name][place].tobytes(), (name, token)
        for name in by_column:
            column = made.parameters[name][:, index]
            assert column.tobytes() == source.parameters[name][:, place].tobytes(), (name, token)
    for name in made.architecture.shapes.keys() - {*by_row, *by_column}:
        assert made.parameters[name].tobytes() == base.parameters[name].tobytes(), name
    assert made.vocabulary == new


def test_bytes_are_known_one_and_all():
    """Catches a separator after the bytes that is not one new row."""
    base, fresh, made, said = adapted(Vocabulary("bytes"), Vocabulary("bytes", separator=True))
    assert said == ["fine-tuning: 256 known tokens keep their weights, 1 new ones start from initial weights"]
    assert made.parameters["head.bias"][:256].tobytes() == base.parameters["head.bias"].tobytes()
    assert made.parameters["head.bias"][256] == fresh.parameters["head.bias"][256]


def test_the_model_that_was_read_is_not_changed():
    base, fresh, _, _ = adapted(characters("bcd"), characters("abcd"))
    assert base.parameters["head.bias"].tobytes() == folder(characters("bcd"), seed=1).parameters["head.bias"].tobytes()
    assert (
        fresh.parameters["head.bias"].tobytes() == folder(characters("abcd"), seed=2).parameters["head.bias"].tobytes()
    )


def test_scalar_input_cannot_learn_new_characters():
    """Catches new tokens for the input index/V, which would change every input number; the same alphabet is valid."""
    with pytest.raises(SettingsError, match="scalar input cannot learn new characters; the text has 1"):
        adapted(characters("bcd"), characters("abcd"), "scalar")
    base, _, made, _ = adapted(characters("bcd"), characters("bcd"), "scalar")
    assert all(made.parameters[name].tobytes() == value.tobytes() for name, value in base.parameters.items())


# Settings -------------------------------------------------------------------------------------------------------------


def base_model(**values):
    return replace(folder(characters("abc")), **values)


def test_the_model_fixes_network_cleaning_and_vocabulary():
    """Catches different cleaning of prompts and text; dropout and all of training can be set."""
    base = base_model(cleaning=Cleaning(lowercase=True))
    made = settings_like(base, {"lr": 0.5, "dropout": 0.2}).flat
    assert (made["lowercase"], made["hidden"], made["layers"], made["cell"]) == (True, 8, 2, "lstm")
    assert (made["lr"], made["dropout"], made["vocabulary"]) == (0.5, 0.2, "characters")


@pytest.mark.parametrize(
    "given", [{"hidden": "16"}, {"cell": "gru"}, {"lowercase": True}, {"vocabulary": "bytes"}, {"input": "onehot"}]
)
def test_a_setting_that_contradicts_the_model_is_refused(given):
    (name,) = given
    with pytest.raises(SettingsError, match=f"`{name}` must be .*, as in the model that `base_model` names; got "):
        settings_like(base_model(), given)


def test_a_setting_that_agrees_is_accepted_as_typed():
    """Catches '8' from the command line that is refused beside a model of 8 units."""
    made = settings_like(base_model(), {"hidden": "8", "layers": "2", "cell": "lstm", "vocabulary": "auto"}).flat
    assert (made["hidden"], made["vocabulary"]) == (8, "characters")


def test_the_models_characters_stay_as_they_are():
    """Catches a model of three characters (a, - and z) that is fine-tuned on 26. Older models store the
    list as typed.
    """
    for typed in ("z-a", "-az"):
        base = base_model(cleaning=Cleaning(allow=typed))
        assert settings_like(base, {}).text.allow == "-az"
        assert settings_like(base, {"allow": r"a\-z"}).text.allow == "-az"
        with pytest.raises(SettingsError, match=r"`allow` must be .*, as in the model that `base_model` names"):
            settings_like(base, {"allow": "a-z"})


def test_binary_is_as_in_the_model():
    """Catches a model of binary data that is fine-tuned on text, and an older byte model that cannot be fine-tuned."""
    binary = replace(base_model(), vocabulary=Vocabulary("bytes", binary=True))
    assert settings_like(binary, {}).flat["binary"] is True
    with pytest.raises(SettingsError, match=r"`binary` must be .*, as in the model that `base_model` names"):
        settings_like(binary, {"binary": False})
    with pytest.raises(SettingsError, match=r"`binary` must be .*, as in the model that `base_model` names"):
        settings_like(base_model(), {"binary": True})
    assert settings_like(replace(binary, vocabulary=Vocabulary("bytes")), {"binary": True}).flat["binary"] is True


@pytest.mark.parametrize("keep_order", [True, False])
def test_records_are_read_as_the_model_learnt_them(keep_order):
    """Catches a model with carried state whose fine-tuning starts each record from the zero state, without a notice."""
    base = replace(folder(characters("ab", separator=True)), records="line", keep_order=keep_order)
    assert settings_like(base, {}).flat["keep_order"] == keep_order
    assert settings_like(base, {"keep_order": not keep_order}).flat["keep_order"] != keep_order


def test_records_are_fixed_only_where_the_model_has_a_separator():
    with_separator = replace(folder(characters("abc", separator=True)), records="line")
    assert settings_like(with_separator, {}).flat["records"] == "line"
    with pytest.raises(SettingsError, match=r"`records` must be .*, as in the model that `base_model` names"):
        settings_like(with_separator, {"records": "paragraph"})
    assert settings_like(base_model(), {"records": "paragraph"}).flat["records"] == "paragraph"


# Through a run --------------------------------------------------------------------------------------------------------


def fine_tune(tmp_path, base, text, **values):
    save_model(tmp_path / "base", base)
    (tmp_path / "new.txt").write_text(text, encoding="utf-8")
    events = []
    values = {
        "steps": 1,
        "lr": 1e-12,
        "weight_decay": 0,
        **{k: v for k, v in CHEAP.items() if k[:3] in "bat seq dev pre"},
        **values,
    }
    start.start(
        [str(tmp_path / "new.txt")], values, tmp_path / "run", str(tmp_path / "base"), events.append, lambda: False
    )
    return load_model(tmp_path / "run"), [event.text for event in events if isinstance(event, Notice)]


def test_a_new_text_with_a_shifted_alphabet_keeps_every_known_row(tmp_path):
    """Catches lost rows of characters that the new text lacks, new characters at wrong ids, and wrong
    counts of both.
    """
    base = folder(characters("cdxyz"), seed=3)
    made, notices = fine_tune(tmp_path, base, "abcd " * 60)
    assert made.vocabulary.characters == tuple(" abcdxyz")
    assert "fine-tuning: 5 known tokens keep their weights, 3 new ones start from initial weights" in notices
    fresh = initial_parameters(made.architecture, seed=0)
    for index, token in enumerate(made.vocabulary.characters):
        if token in "cdxyz":
            expected = base.parameters["embedding.weight"]["cdxyz".index(token)]
        else:
            expected = fresh["embedding.weight"][index]
        np.testing.assert_allclose(made.parameters["embedding.weight"][index], expected, atol=1e-9)
    np.testing.assert_allclose(made.parameters["rnn.weight_hh_l1"], base.parameters["rnn.weight_hh_l1"], atol=1e-9)


def test_a_base_with_an_unknown_token_keeps_it(tmp_path):
    base = folder(characters("abc", unknown=True), seed=3)
    made, _ = fine_tune(tmp_path, base, "abc" * 100)
    assert made.vocabulary == base.vocabulary


def test_a_run_that_cannot_be_is_not_left_behind(tmp_path):
    """Catches a folder of ids that stays and blocks --out: the refusal comes after the text is read."""
    with pytest.raises(SettingsError, match="scalar"):
        fine_tune(tmp_path, folder(characters("abc"), "scalar"), "abcd" * 100)
    assert not (tmp_path / "run").exists()
