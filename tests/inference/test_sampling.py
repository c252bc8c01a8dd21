"""Choosing a token: every filter against its definition, and random numbers that depend only on their position."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.errors import SettingsError
from charloom.inference.sampling import (
    BLOCK,
    Sampling,
    choose,
    draw,
    forbid_ngrams,
    log_probabilities,
    min_p,
    penalise,
    probabilities,
    random_stream,
    temperature,
    top_k,
    top_p,
    uniforms,
)
from charloom.validation import validated

LOGITS = st.lists(st.integers(-6, 6) | st.floats(-1e4, 1e4), min_size=1, max_size=9).map(
    lambda row: np.array([row], np.float64)
)
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.floats(0, 100),
    top_k=st.none() | st.integers(1, 12),
    top_p=st.none() | st.floats(0.001, 1),
    min_p=st.none() | st.floats(0, 1),
    greedy=st.booleans(),
)


def kept(scores_BV):
    return np.flatnonzero(np.isfinite(scores_BV[0])).tolist()


def softmax(logits_V):
    weights_V = np.exp(logits_V - logits_V.max())
    return weights_V / weights_V.sum()


@given(LOGITS, st.integers(1, 12))
def test_top_k_keeps_the_first_k_of_a_stable_sort(logits_BV, k):
    """Catches ties that keep more than k, or that depend on the partition algorithm."""
    assert kept(top_k(logits_BV, k)) == sorted(np.argsort(-logits_BV[0], kind="stable")[:k].tolist())


@given(LOGITS, st.floats(0.001, 0.999))
def test_top_p_is_the_smallest_set_that_reaches_p(logits_BV, p):
    """Catches a nucleus without the token that crosses p, an empty one, and one token too many."""
    chosen = kept(top_p(logits_BV, p))
    share = softmax(logits_BV[0])
    assert np.argmax(logits_BV[0]) in chosen
    assert share[chosen].sum() >= p - 1e-9
    least = min(chosen, key=lambda i: (logits_BV[0, i], -i))
    assert len(chosen) == 1 or share[chosen].sum() - share[least] < p + 1e-9


def test_top_p_by_hand():
    """Catches a wrong comparison: 0.5 + 0.3 reaches 0.8 exactly, so 0.79 needs two tokens and 0.81 three."""
    logits_BV = np.log([[0.15, 0.5, 0.05, 0.3]])
    assert kept(top_p(logits_BV, 0.49)) == [1]
    assert kept(top_p(logits_BV, 0.79)) == [1, 3]
    assert kept(top_p(logits_BV, 0.81)) == [0, 1, 3]
    assert kept(top_p(logits_BV, 1.0)) == [0, 1, 2, 3]
    assert kept(top_p(np.zeros((1, 4)), 0.5)) == [0, 1]  # exactly p is enough; among equals, the lowest ids


def test_min_p_by_hand():
    """Catches a minimum for the probability itself instead of its ratio to the highest."""
    logits_BV = np.log([[0.15, 0.5, 0.05, 0.3]]) + 3
    assert kept(min_p(logits_BV, 0.29)) == [0, 1, 3]
    assert kept(min_p(logits_BV, 0.31)) == [1, 3]
    assert kept(min_p(logits_BV, 0.0)) == [0, 1, 2, 3]
    assert kept(min_p(logits_BV, 1.0)) == [1]


def test_filters_apply_in_their_order():
    """Catches top-p before temperature or top-k: at temperature 0.5, 0.5/0.3/0.2 become 0.66/0.24/0.11."""
    logits_BV = np.log([[0.5, 0.3, 0.2]])
    assert np.flatnonzero(probabilities(logits_BV, Sampling(temperature=0.5, top_p=0.6))[0]).tolist() == [0]
    two = probabilities(logits_BV, Sampling(temperature=1, top_k=2, top_p=0.62))  # 0.625 of what top-k left
    assert np.flatnonzero(two[0]).tolist() == [0]
    np.testing.assert_allclose(temperature(logits_BV, 0.5), 2 * logits_BV)


@given(LOGITS, SAMPLINGS, st.floats(0, 1, exclude_max=True))
def test_what_is_drawn_has_a_probability(logits_BV, sampling, uniform):
    """Catches any combination of settings that keeps nothing, warns, or draws what a filter removed."""
    share_BV = probabilities(logits_BV, sampling)
    np.testing.assert_allclose(share_BV.sum(), 1)
    token = choose(logits_BV, np.array([uniform]), sampling)[0]
    assert share_BV[0, token] > 0


@given(
    st.lists(st.just(0.0) | st.floats(1e-12, 1e3), min_size=1, max_size=9).filter(any),
    st.floats(0, 1, exclude_max=True) | st.just(1 - 2**-53),
)
def test_draw_inverts_the_cumulative_distribution(weights, uniform):
    """Catches an index after the last token, a token of probability 0, and a batch path that differs from the single
    one.
    """
    weights_BV, uniform_B = np.array([weights]), np.array([uniform])
    token = draw(weights_BV, uniform_B)[0]
    assert weights[token] > 0
    cdf = list(itertools.accumulate(weights))
    assert cdf[token] >= uniform * cdf[-1]
    assert token == 0 or cdf[token - 1] <= uniform * cdf[-1]
    assert draw(np.repeat(weights_BV, 3, axis=0), np.repeat(uniform_B, 3)).tolist() == [token] * 3


def test_frequencies_follow_the_probabilities():
    """Catches a skewed draw: chi-square over 40,000 draws, far below the 0.999 quantile of 5 degrees (20.5)."""
    logits_BV = np.log(np.array([[0.4, 0.3, 0.15, 0.1, 0.04, 0.01]], np.float32))
    numbers = uniforms(seed=3, index=0, position=0, count=40_000)
    drawn = choose(np.repeat(logits_BV, len(numbers), axis=0), numbers, Sampling(temperature=1))
    expected = len(numbers) * np.exp(logits_BV[0])
    counts = np.bincount(drawn, minlength=6)
    assert (((counts - expected) ** 2) / expected).sum() < 20.5


@pytest.mark.parametrize("sampling", [Sampling(greedy=True), Sampling(temperature=0), Sampling(temperature=1e-9)])
def test_greedy_takes_the_first_of_the_most_probable(sampling):
    """Catches a division by zero, and ties that are broken at random."""
    assert choose(np.array([[1.0, 5.0, 5.0, 2.0]]), np.array([0.99]), sampling).tolist() == [1]


def test_extreme_logits():
    """Catches overflow in exp, NaN from -inf, and a vocabulary of one token; warnings are errors here."""
    settings = Sampling(temperature=0.7, top_k=3, top_p=0.9, min_p=0.1)
    for row, expected in [([1e4, -1e4, 0.0], 0), ([-np.inf, -1e4, -np.inf], 1), ([3e38, -3e38, 0.0], 0), ([-7.0], 0)]:
        for sampling in (Sampling(), settings, Sampling(temperature=1.1e-6), Sampling(greedy=True)):
            assert choose(np.array([row], np.float32), np.array([0.5]), sampling).tolist() == [expected]


@pytest.mark.parametrize("row", [[np.nan, 0.0], [-np.inf, -np.inf], [np.inf, 0.0]])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(greedy=True)])
def test_a_row_without_a_choice_does_not_disturb_the_others(row, sampling):
    """Catches an index error, token 0 for ever from a diverged network, and other rows that end with it."""
    assert choose(np.array([[0.0, 9e3], row, [9e3, 0.0]]), np.array([0.5, 0.5, 0.5]), sampling).tolist() == [1, -1, 0]


ROWS = st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=6).map(lambda row: np.array([row], np.float32))


@given(ROWS, st.data())
def test_the_repetition_penalty_is_transformers(logits_BV, data):
    """Catches a penalty per occurrence, one on the wrong side of zero, and one that spreads to other tokens.

    The reference is the loop of `RepetitionPenaltyLogitsProcessor`, written out.
    """
    tokens = data.draw(st.lists(st.integers(0, logits_BV.shape[1] - 1), max_size=8))
    penalty = data.draw(st.sampled_from([0.5, 1.5, 3.0]))
    expected = logits_BV[0].copy()
    for token in {*tokens}:
        expected[token] = (
            expected[token] * np.float32(penalty) if expected[token] < 0 else expected[token] / np.float32(penalty)
        )
    penalise(logits_BV[0], tokens, penalty)
    np.testing.assert_array_equal(logits_BV[0], expected)


@given(st.lists(st.integers(0, 2), max_size=12), st.integers(1, 4))
def test_no_ngram_comes_twice(tokens, size):
    """Catches a window that is one too short, an n-gram at the very end, and size 1."""
    logits_V = np.zeros(3, np.float32)
    forbid_ngrams(logits_V, tokens, size)
    seen = {tuple(tokens[k : k + size]) for k in range(len(tokens) - size + 1)}
    for token in range(3):
        completed = tuple([*tokens, token][len(tokens) + 1 - size :])
        assert np.isinf(logits_V[token]) == (len(completed) == size and completed in seen)


def test_log_probabilities_are_those_of_the_softmax():
    """Catches logs of another base, a temperature that has an effect, and equal values in any order."""
    logprobs, ids = log_probabilities(np.log(np.array([0.2, 0.5, 0.1, 0.2], np.float32)) + 7, 2, 3)
    np.testing.assert_allclose(np.exp(logprobs), [0.1, 0.5, 0.2, 0.2], rtol=1e-5)
    assert ids.tolist() == [1, 0, 3]


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(0, 5000), st.integers(0, 70))
def test_a_number_depends_on_its_place_alone(seed, sequence, position, count):
    """Catches random numbers that depend on where the stream began or on how many were drawn at once."""
    expected = uniforms(seed, sequence, 0, position + count)[position:]
    np.testing.assert_array_equal(uniforms(seed, sequence, position, count), expected)
    assert ((expected >= 0) & (expected < 1)).all()


def test_the_stream_is_the_published_one():
    """Catches a change of key, counter or conversion, which would change every text that users generated
    with a seed.
    """
    stream = np.random.Generator(np.random.Philox(key=np.array([7, 2], np.uint64))).random(6)
    np.testing.assert_array_equal(uniforms(7, 2, 0, 6), stream)
    assert [f"{number:.6f}" for number in uniforms(0, 0, 0, 3)] == ["0.011547", "0.241549", "0.111426"]


def test_a_stream_goes_on_over_blocks():
    """Catches a block border that repeats or skips a number."""
    numbers = [*itertools.islice(random_stream(5, 9, position=2), BLOCK + 10)]
    assert numbers == uniforms(5, 9, 2, BLOCK + 10).tolist()


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1},
        {"temperature": "nan"},
        {"top_k": 0},
        {"top_p": 0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"repetition_penalty": 0},
        {"repetition_window": 0},
        {"no_repeat_ngram_size": 0},
    ],
)
def test_settings_out_of_range_are_named(values):
    """Catches a value that would fail, or be ignored, in the middle of a text."""
    with pytest.raises(SettingsError, match=next(iter(values))):
        validated(Sampling, values)
