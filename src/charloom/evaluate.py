"""How well a model predicts a text, and what compressors make of the same bytes.

A model that gives each next character the probability p can store it in -log2 p bits (Shannon 1948), so bits per
character compare a language model with a compressor directly. A model has read its training text; for a compressor to
have read it too, it stores both, and what the training text alone takes is subtracted. Nats (natural logarithm) are
what training minimises.

Shapes: T steps, V symbols.
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyppmd
from numpy.typing import NDArray

PPMD_ORDER = 6
"""Characters that PPMd looks back; of 4 to 16 the best on tiny-shakespeare, by 0.003 bits (LOG.md)."""

PPMD_MEMORY = 2**28
"""Bytes for PPMd's statistics: those of a few tens of megabytes of text."""


@dataclass(frozen=True)
class Score:
    """What a model made of a text: sums, from which every figure follows, so that scores can be added.

    symbols: how many were predicted; characters: how many characters they are (a character may be several bytes);
    nats: sum of -ln p; correct: how often the likeliest symbol was the right one.
    """

    symbols: int
    characters: int
    nats: float
    correct: int

    @property
    def nats_per_char(self) -> float:
        """Mean of -ln p a character."""
        return self.nats / self.characters

    @property
    def bits_per_char(self) -> float:
        """The same in bits: what storing a character would take."""
        return self.nats_per_char / math.log(2)

    @property
    def perplexity(self) -> float:
        """e to the nats a character: among how many equally likely characters the model still doubts."""
        return math.exp(self.nats_per_char) if self.nats_per_char < 709 else math.inf  # e^709 is near the largest float

    @property
    def accuracy(self) -> float:
        """Part of the symbols, 0 … 1, whose likeliest guess was right."""
        return self.correct / self.symbols

    def __add__(self, other: Score) -> Score:
        return Score(
            self.symbols + other.symbols,
            self.characters + other.characters,
            self.nats + other.nats,
            self.correct + other.correct,
        )


def cross_entropy(logits_TV: NDArray[np.floating[Any]], targets_T: NDArray[np.integer[Any]]) -> tuple[float, int]:
    """Sum over T of -ln softmax(logits)[target], in float64, and how many targets had the highest logit."""
    scores_TV = logits_TV.astype(np.float64)
    scores_TV -= scores_TV.max(axis=-1, keepdims=True)
    target_T = scores_TV[np.arange(len(targets_T)), targets_T]
    nats_T = np.log(np.exp(scores_TV).sum(axis=-1)) - target_T
    return float(nats_T.sum()), int((logits_TV.argmax(axis=-1) == targets_T).sum())


def xz_bits(data: bytes) -> int:
    """Bits that `xz -9e` needs for these bytes, its container included."""
    return 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


def ppmd_bits(data: bytes) -> int:
    """Bits that PPMd needs (Shkarin 2002, variant H), which predicts each byte from those before it as a model does."""
    coder = pyppmd.Ppmd7Encoder(PPMD_ORDER, PPMD_MEMORY)
    return 8 * (len(coder.encode(data)) + len(coder.flush()))


def bits_after(coder: Callable[[bytes], int], before: bytes, data: bytes) -> int:
    """Bits that a compressor needs for the data once it has seen what comes before."""
    return coder(before + data) - coder(before) if before else coder(data)
