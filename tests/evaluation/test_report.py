"""The report of a model in memory."""

from __future__ import annotations

import pytest

from charloom.data.vocabulary import RECORD_SEPARATOR, Vocabulary
from charloom.errors import SettingsError
from charloom.evaluation.compressors import ppmd_bits, xz_bits
from charloom.model import Model

LETTERS = Vocabulary("characters", tuple("\n abcd"))
RECORDS = Vocabulary("characters", tuple("abcd"), separator=True)


def test_only_what_is_asked_for(random_folder):
    """Catches a figure that the user did not request, which takes time, and a figure under a wrong name."""
    model, text = Model(random_folder(LETTERS)), "abcd dcba\n" * 30
    plain, full = model.evaluate(text, baselines=False), model.evaluate(text, dynamic=True, windows=16)
    score = model.score(text)
    assert plain.to_json() == {
        "characters": 299,
        "nats_per_char": score.nats_per_char,
        "bits_per_char": score.bits_per_char,
        "perplexity": score.perplexity,
        "accuracy": score.accuracy,
    }
    assert full.to_json() | plain.to_json() == full.to_json()
    assert full.windows_length == 16
    assert full.dynamic_nats_per_char < full.nats_per_char
    assert full.xz_bits_per_char == xz_bits(text.encode()) / 300
    assert full.ppmd_bits_per_char == ppmd_bits(text.encode()) / 300


def test_dynamic_evaluation_changes_no_other_figure(random_folder):
    """Catches weights that a report changes, for its own windows or for the next call."""
    model, text = Model(random_folder(LETTERS)), "abcd dcba\n" * 30
    before = model.evaluate(text, windows=8, baselines=False).to_json()
    after = model.evaluate(text, dynamic=True, windows=8, baselines=False).to_json()
    assert after | before == after
    assert model.evaluate(text, windows=8, baselines=False).to_json() == before


def test_windows_out_of_range(random_folder):
    """Catches a division by zero, and windows that would cut independent records."""
    with pytest.raises(SettingsError, match="`windows` must be a number from 1; got 0"):
        Model(random_folder(LETTERS)).evaluate("abc", windows=0)
    with pytest.raises(SettingsError, match="`windows` needs a model without independent records"):
        Model(random_folder(RECORDS, records="line", keep_order=False)).evaluate("ab" + RECORD_SEPARATOR, windows=2)


def test_an_adapted_model_has_learnt_and_the_other_has_not(random_folder):
    """Catches an original model that changes, and an adapted model that does not."""
    model, text = Model(random_folder(LETTERS)), "abcd dcba\n" * 30
    before = model.score(text)
    assert model.adapt(text).score(text).nats < 0.95 * before.nats
    assert model.score(text) == before
