"""The score of a model on a text: sums of nats and counts, and cross-entropy.

A model that gives the next character the probability p can encode it in -log2 p bits (Shannon 1948). So bits per
character compare a language model with a compressor. Training minimises nats (natural logarithm).

Shapes: T steps, V vocabulary size, N targets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, repr=False)
class Score:
    """The score of a model on a text; scores can be added.

    tokens: the number of predicted tokens; characters: the same in characters (one may be several bytes); nats: the sum
    of -ln p; correct: how often the token with the highest probability was the target.
    """

    tokens: int
    characters: int
    nats: float
    correct: int

    @classmethod
    def of_targets(cls, nats_N: NDArray[np.floating[Any]], correct_N: NDArray[np.bool_]) -> Score:
        """The score of N targets of one character each, from the result of `Engine.score`; sums in float64."""
        return cls(len(nats_N), len(nats_N), float(nats_N.sum(dtype=np.float64)), int(correct_N.sum()))

    @property
    def nats_per_char(self) -> float:
        """Mean of -ln p per character."""
        return self.nats / self.characters

    @property
    def bits_per_char(self) -> float:
        """The same in bits."""
        return self.nats_per_char / math.log(2)

    @property
    def perplexity(self) -> float:
        """e to the power of nats per character: the number of equally likely characters with the same loss."""
        return math.exp(self.nats_per_char) if self.nats_per_char < 709 else math.inf  # e^709 is near the largest float

    @property
    def accuracy(self) -> float:
        """The part of the tokens, 0 … 1, for which the token with the highest probability was the target."""
        return self.correct / self.tokens

    def __repr__(self) -> str:
        """The main figures in one line; a score of nothing has none."""
        if not self.characters:
            return "<charloom.Score: 0 characters>"
        return (
            f"<charloom.Score: {self.bits_per_char:.3f} bits/char ({self.nats_per_char:.4f} nats/char), "
            f"accuracy {self.accuracy:.1%}, {self.characters:,} characters>"
        )

    def __add__(self, other: Score) -> Score:
        return Score(
            self.tokens + other.tokens,
            self.characters + other.characters,
            self.nats + other.nats,
            self.correct + other.correct,
        )


def cross_entropy(logits_TV: NDArray[np.floating[Any]], targets_T: NDArray[np.integer[Any]]) -> tuple[float, int]:
    """(sum over T of -ln softmax(logits)[target] in float64, number of targets with the highest logit)."""
    scores_TV = logits_TV.astype(np.float64)
    scores_TV -= scores_TV.max(axis=-1, keepdims=True)
    target_T = scores_TV[np.arange(len(targets_T)), targets_T]
    nats_T = np.log(np.exp(scores_TV).sum(axis=-1)) - target_T
    return float(nats_T.sum()), int((logits_TV.argmax(axis=-1) == targets_T).sum())
