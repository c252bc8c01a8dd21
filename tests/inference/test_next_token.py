"""The distribution of the next token, against generated text and log-probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest

from charloom.architecture import Architecture
from charloom.checkpoint import ModelFolder
from charloom.data.vocabulary import RECORD_SEPARATOR, Vocabulary
from charloom.errors import ModelError, SettingsError, UnknownCharacterError
from charloom.model import Model

pytestmark = pytest.mark.processor

LETTERS = Vocabulary("characters", tuple("\n abcdefgh"))


def model_of(vocabulary=LETTERS, cell="lstm", scale=1.0, **options):
    sizes = Architecture(
        cell=cell,
        nonlinearity="tanh",
        layers=2,
        hidden=16,
        input="embedding",
        embedding=4,
        vocabulary_size=vocabulary.size,
    )
    random = np.random.default_rng(0)
    parameters = {name: random.normal(0, scale, shape).astype(np.float32) for name, shape in sizes.shapes.items()}
    return Model(ModelFolder(sizes, vocabulary, parameters, **options))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("prefix", ["", "a", "abc defgh\nab"])
def test_it_is_the_distribution_that_generation_draws_from(cell, prefix):
    """Catches: a temperature, a last token that is read twice, a state that does not begin at zero, another order."""
    model = model_of(cell=cell)
    found = model.next_token(prefix)
    assert {*found} == {*LETTERS.characters}
    assert sum(found.values()) == pytest.approx(1)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    request = model.request(prefix, 1, logprobs=len(found), greedy=True)
    (output,) = [output for _, output in model.run([request]) if output.text]
    assert next(iter(found)) == output.text
    top = {LETTERS.characters[token]: math.exp(logprob) for token, logprob in output.logprobs[0].top}
    assert found == pytest.approx(top, rel=1e-5)


def test_it_is_the_distribution_that_a_score_measures():
    """Catches: a prefix that is read differently from a scored text."""
    model = model_of()
    whole, part = model.score("abcd"), model.score("abc")
    assert -math.log(model.next_token("abc")["d"]) == pytest.approx(whole.nats - part.nats, rel=1e-4)


def test_bytes_have_names_that_continue_the_prefix():
    """Catches: a key for which no prompt exists, and two bytes under one key."""
    model = model_of(Vocabulary("bytes"))
    found = model.next_token("é")
    assert {key.encode("utf-8", "surrogateescape") for key in found} == {bytes([value]) for value in range(256)}
    first, second = (bytes([value]).decode("ascii", "surrogateescape") for value in "é".encode())
    assert model.next_token("a" + first + second) == model.next_token("aé")


def test_a_record_separator_and_the_unknown_token_are_counted():
    """Catches: probabilities that do not sum to 1, and a token without a name."""
    model = model_of(Vocabulary("characters", ("a", "b"), unknown=True, separator=True))
    found = model.next_token("ab")
    assert {*found} == {"a", "b", "\ufffd", RECORD_SEPARATOR}
    assert sum(found.values()) == pytest.approx(1)
    both = model_of(Vocabulary("characters", ("a", "\ufffd"), unknown=True)).next_token("a")
    assert ({*both}, sum(both.values())) == ({"a", "\ufffd"}, pytest.approx(1))


def test_where_a_first_character_is_drawn_all_are_equally_probable():
    """Catches: an index error for a model without a newline, and a probability above 0 for the unknown token."""
    assert model_of(Vocabulary("characters", tuple("abcd"), unknown=True)).next_token() == {
        **dict.fromkeys("abcd", 0.25),
        "\ufffd": 0.0,
    }


def test_a_long_prefix_is_read_whole():
    """Catches: a prefix that is cut where one call of the kernels ends."""
    model = model_of(scale=0.3)
    long = "abcdefgh" * 10_000
    assert model.next_token(long + "a") == pytest.approx(model.next_token(long[-4000:] + "a"), rel=1e-3)


def test_mistakes():
    """Catches: a traceback, and NaN as a probability."""
    with pytest.raises(SettingsError, match="the prompt must be a string; got 123"):
        model_of().next_token(123)
    with pytest.raises(UnknownCharacterError, match="'é'"):
        model_of().next_token("é")
    assert model_of().next_token("aéb", unknown="skip") == model_of().next_token("ab")
    diverged = model_of()
    diverged.folder.parameters["head.bias"][...] = np.nan
    with pytest.raises(ModelError, match="no character is left"):
        diverged.next_token("ab")
