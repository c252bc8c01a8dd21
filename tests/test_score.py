"""Scores, and the cross-entropy that they sum."""

from __future__ import annotations

import math

import numpy as np
import pytest

from charloom.score import Score, cross_entropy

pytestmark = pytest.mark.processor


def test_figures_by_hand():
    """Catches bits taken for nats, and characters taken for tokens (bytes)."""
    score = Score(tokens=6, characters=4, nats=4 * math.log(8), correct=3)
    assert score.nats_per_char == pytest.approx(math.log(8))
    assert score.bits_per_char == pytest.approx(3)
    assert score.perplexity == pytest.approx(8)
    assert score.accuracy == 0.5
    assert score + score == Score(12, 8, 8 * math.log(8), 6)


def test_the_main_figures_in_one_line():
    """Catches sums in place of figures, and a score of nothing that cannot be shown."""
    assert repr(Score(tokens=6, characters=4, nats=4 * math.log(8), correct=3)) == (
        "<charloom.Score: 3.000 bits/char (2.0794 nats/char), accuracy 50.0%, 4 characters>"
    )
    assert repr(Score(0, 0, 0.0, 0)) == "<charloom.Score: 0 characters>"


def test_a_hopeless_model_has_infinite_perplexity():
    """Catches an OverflowError for a model with almost no probability for the text."""
    assert Score(1, 1, 1000.0, 0).perplexity == math.inf


def test_cross_entropy_by_hand():
    """Catches a softmax in float32, overflow at large logits, and argmax compared with the wrong row."""
    logits_TV = np.array([[0, 0, 0, 0], [1e4, 0, 0, 0], [0, 20, 0, 0]], np.float32)
    nats, correct = cross_entropy(logits_TV, np.array([3, 0, 0]))
    assert nats == pytest.approx(math.log(4) + 0 + 20 + math.log1p(3 * math.exp(-20)), rel=1e-12)
    assert correct == 1


def test_cross_entropy_equals_torch():
    """Catches a mistake in both of our own implementations."""
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    logits_TV, targets_T = generator.standard_normal((50, 9)), generator.integers(0, 9, 50)
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits_TV), torch.tensor(targets_T), reduction="sum")
    assert cross_entropy(logits_TV, targets_T)[0] == pytest.approx(expected.item(), rel=1e-13)
