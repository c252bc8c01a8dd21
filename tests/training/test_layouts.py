"""The batches of a run: its splits, and the number of streams of each."""

from __future__ import annotations

import pytest

from charloom.config import Settings
from charloom.data.corpus import open_corpus
from charloom.data.dataset import prepare
from charloom.data.texts import Texts
from charloom.training import layouts
from charloom.training.layouts import Layouts

STREAM = 1000  # tokens, in place of 200,000


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The layouts of 40,000 characters."""
    monkeypatch.setattr(layouts, "STREAM", STREAM)

    def made(**values):
        settings = Settings.from_flat({"steps": 1, "batch_size": 2, "seq_length": 8, "dropout": 0.0, **values})
        dataset = prepare(
            open_corpus(Texts.of(["abc abd\n" * 5000]), settings.text), settings.text, tmp_path, lambda _: None
        )
        return Layouts.of(dataset, settings, lambda _: None)

    return made


def rows(batches):
    return batches.batch(0, 0)[0].shape[0]


def test_a_large_split_is_measured_in_several_streams(made):
    """Catches one stream over all of a large split, and a split that is exchanged with another."""
    found = made(split="80/15/5")
    assert (rows(found.whole), rows(found.test)) == (6, 2)  # 6000 and 2000 tokens


def test_a_small_split_is_one_stream(made):
    """Catches a zero state in the middle of a split that is shorter than a stream."""
    assert rows(made(split="98/2").whole) == 1


def test_splits_that_are_empty_have_no_layout(made):
    """Catches an error, or a loss over no tokens, without a validation or test split."""
    found = made(split="1/0")
    assert (found.quick, found.whole, found.test) == (None, None, None)
    assert found.seen


def test_independent_records_are_measured_in_one_layout(made):
    """Catches a second copy of the groups, which takes time."""
    found = made(records="line", split="80/20")
    assert found.whole is found.quick
