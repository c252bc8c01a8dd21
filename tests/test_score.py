"""Scores and the compressor beside them."""

from __future__ import annotations

import lzma
import math

import numpy as np
import pyppmd
import pytest

from charloom.evaluation.compressors import PPMD_MEMORY, PPMD_ORDER, bits_after, ppmd_bits, xz_bits
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


def test_a_hopeless_model_has_infinite_perplexity():
    """Catches an OverflowError where a model gives the text next to no chance."""
    assert Score(1, 1, 1000.0, 0).perplexity == math.inf


def test_cross_entropy_by_hand():
    """Catches a softmax in float32, overflow at large logits, and argmax compared with the wrong row."""
    logits_TV = np.array([[0, 0, 0, 0], [1e4, 0, 0, 0], [0, 20, 0, 0]], np.float32)
    nats, correct = cross_entropy(logits_TV, np.array([3, 0, 0]))
    assert nats == pytest.approx(math.log(4) + 0 + 20 + math.log1p(3 * math.exp(-20)), rel=1e-12)
    assert correct == 1


def test_cross_entropy_equals_torch():
    """Catches a mistake that both of our own lines share."""
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    logits_TV, targets_T = generator.standard_normal((50, 9)), generator.integers(0, 9, 50)
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits_TV), torch.tensor(targets_T), reduction="sum")
    assert cross_entropy(logits_TV, targets_T)[0] == pytest.approx(expected.item(), rel=1e-13)


def test_xz_bits_are_those_of_xz_9e():
    """Catches another preset, and bytes taken for bits."""
    data = b"".join(b"line %d of a text\n" % (n * n) for n in range(3000))
    expected = 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    assert xz_bits(data) == expected
    assert xz_bits(b"") == 8 * 32  # the container alone


def test_ppmd_bits_are_those_of_its_decoder():
    """Catches a stream that is not flushed: bits of a text that cannot be read again."""
    data = b"the cat sat on the mat. " * 50
    bits = ppmd_bits(data)
    coder = pyppmd.Ppmd7Encoder(PPMD_ORDER, PPMD_MEMORY)
    packed = coder.encode(data) + coder.flush()
    assert bits == 8 * len(packed)
    assert pyppmd.Ppmd7Decoder(PPMD_ORDER, PPMD_MEMORY).decode(packed, len(data)) == data
    assert bits < xz_bits(data)


@pytest.mark.parametrize("coder", [xz_bits, ppmd_bits])
def test_what_was_read_before_helps_and_is_not_counted(coder):
    """Catches the bits of both texts taken for those of the second, and a text that is coded by itself."""
    random = np.random.default_rng(0)
    before, other = (bytes(random.integers(97, 123, 20_000, np.uint8)) for _ in range(2))
    data = before[5_000:15_000]
    assert bits_after(coder, b"", data) == coder(data)
    assert bits_after(coder, before, data) < 0.1 * coder(data)
    assert bits_after(coder, other, data) > 0.9 * coder(data)
