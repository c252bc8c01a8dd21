"""From logits to the next token: pure functions, and random numbers that depend on nothing but their place.

The order is fixed: tokens that are never written, temperature, top-k, top-p, min-p, draw. Each filter sees what the
one before it left (as Hugging Face's `generate` does), and keeps at least one token.

Shapes: B texts side by side, V vocabulary size, N positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from charloom.config import Section
from charloom.errors import ModelError

Doubles = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
Ids = NDArray[np.intp]

COLDEST = 1e-6
"""Temperatures below write the likeliest token: a logit one float32 rounding behind has no chance left."""

BLOCK = 256
"""Random numbers made at once for a text: the 10 µs that a generator costs to set up vanish among them."""

NO_CHOICE = (
    "a model's output must hold a finite number to choose a token by; found none: its weights diverged in "
    "training, or every token it has is forbidden; use an earlier checkpoint"
)
"""What `ModelError` says of it."""


class Sampling(Section):
    """How the next token is chosen.

    The default temperature is 0.8: a small character model puts a little probability on very many wrong letters, and
    at 1.0 one of them spoils a word now and then; 1.0 is what shows the model's own distribution.
    """

    temperature: float = Field(0.8, ge=0, le=100, description="below 1 safer, above 1 bolder; 0 is greedy")
    top_k: int | None = Field(None, ge=1, description="only the k likeliest tokens")
    top_p: float | None = Field(None, gt=0, le=1, description="only the likeliest tokens that together reach p")
    min_p: float | None = Field(None, ge=0, le=1, description="only tokens at least p times as likely as the first")
    greedy: bool = Field(False, description="always the likeliest token")

    @property
    def likeliest(self) -> bool:
        """Whether nothing is left to chance."""
        return self.greedy or self.temperature < COLDEST


def choose(logits_BV: Floats, uniform_B: Doubles, sampling: Sampling, never: Sequence[int] = ()) -> Ids:
    """The next token of each text.

    Args:
        logits_BV: the network's output; -inf is a token that cannot come.
        uniform_B: a number in [0, 1) for each text.
        never: ids that are not to be written.

    Returns:
        ids_B; with equal logits, greedy takes the lowest id.

    Raises:
        ModelError: where a text's logits leave no finite one to choose.
    """
    scores_BV = _shifted(forbid(logits_BV, never))
    if sampling.likeliest:
        return _likeliest(scores_BV)
    return draw(np.exp(_filtered(scores_BV, sampling)), uniform_B)


def probabilities(logits_BV: Floats, sampling: Sampling, never: Sequence[int] = ()) -> Doubles:
    """probabilities_BV with which `choose` takes each token; each row sums to 1."""
    scores_BV = _shifted(forbid(logits_BV, never))
    if sampling.likeliest:
        chosen_BV: Doubles = (np.arange(scores_BV.shape[1]) == _likeliest(scores_BV)[:, None]).astype(np.float64)
        return chosen_BV
    weights_BV = np.exp(_filtered(scores_BV, sampling))
    normalised_BV: Doubles = weights_BV / weights_BV.sum(axis=-1, keepdims=True)
    return normalised_BV


def _filtered(scores_BV: Doubles, sampling: Sampling) -> Doubles:
    """Logits after temperature and every filter that is on; the highest stays where it is."""
    if sampling.temperature != 1:
        scores_BV = temperature(scores_BV, sampling.temperature)
    if sampling.top_k is not None:
        scores_BV = top_k(scores_BV, sampling.top_k)
    if sampling.top_p is not None:
        scores_BV = top_p(scores_BV, sampling.top_p)
    if sampling.min_p is not None:
        scores_BV = min_p(scores_BV, sampling.min_p)
    return scores_BV


def forbid(logits_BV: Floats, never: Sequence[int]) -> Doubles:
    """A float64 copy in which these ids cannot come."""
    scores_BV = logits_BV.astype(np.float64)
    for token in never:
        scores_BV[:, token] = -np.inf
    return scores_BV


def temperature(logits_BV: Doubles, value: float) -> Doubles:
    """Logits / value: p_i becomes proportional to p_i^(1/value) (Boltzmann's distribution; Ackley et al. 1985)."""
    return logits_BV / value


def top_k(logits_BV: Doubles, k: int) -> Doubles:
    """Exactly the k likeliest tokens (Fan et al. 2018); among equals at the edge, the lowest ids."""
    size = logits_BV.shape[1]
    if k >= size:
        return logits_BV
    edge_B1 = np.partition(logits_BV, size - k, axis=-1)[:, size - k, None]
    above_BV, equal_BV = logits_BV > edge_B1, logits_BV == edge_B1
    room_B1 = k - above_BV.sum(axis=-1, keepdims=True)
    kept_BV = above_BV | (equal_BV & (equal_BV.cumsum(axis=-1) <= room_B1))
    return np.where(kept_BV, logits_BV, -np.inf)


def top_p(logits_BV: Doubles, p: float) -> Doubles:
    """The nucleus: the fewest tokens, likeliest first, that reach p together (Holtzman et al. 2019).

    The likeliest always stays; among equals, lower ids come first.
    """
    if p >= 1:
        return logits_BV
    order_BV = np.argsort(-logits_BV, axis=-1, kind="stable")
    sorted_BV = np.take_along_axis(logits_BV, order_BV, axis=-1)
    cdf_BV = np.exp(sorted_BV - sorted_BV[:, :1]).cumsum(axis=-1)
    before_BV = np.concatenate([np.zeros_like(cdf_BV[:, :1]), cdf_BV[:, :-1]], axis=-1)
    kept_BV = np.empty(logits_BV.shape, np.bool_)
    np.put_along_axis(kept_BV, order_BV, before_BV < p * cdf_BV[:, -1:], axis=-1)
    return np.where(kept_BV, logits_BV, -np.inf)


def min_p(logits_BV: Doubles, p: float) -> Doubles:
    """Tokens at least p times as likely as the likeliest one (Nguyen et al. 2024)."""
    if p <= 0:
        return logits_BV
    floor_B1 = logits_BV.max(axis=-1, keepdims=True) + np.log(p)
    return np.where(logits_BV >= floor_B1, logits_BV, -np.inf)


def draw(probabilities_BV: Floats, uniform_B: Doubles) -> Ids:
    """One token a row by the inverse of the cumulative distribution, in float64.

    Args:
        probabilities_BV: at least 0, some above 0; a row need not sum to 1.
        uniform_B: in [0, 1), float64.

    Returns:
        ids_B: the first token whose cumulative probability exceeds uniform times the row's sum; so never one of
        probability 0.
    """
    cdf_BV = np.add.accumulate(probabilities_BV, axis=-1, dtype=np.float64)
    # uniform is at most 1 - 2^-53, which lowers any normal double by half a unit in the last place or more, so the
    # product rounds to less than the total, and some cumulative probability exceeds it
    target_B = uniform_B * cdf_BV[:, -1]
    ids_B: Ids
    if len(cdf_BV) == 1:
        ids_B = cdf_BV[0].searchsorted(target_B, side="right")
    else:
        ids_B = (cdf_BV <= target_B[:, None]).sum(axis=-1)
    return ids_B


def uniforms(seed: int, sequence: int, position: int, count: int) -> Doubles:
    """The numbers in [0, 1) at positions position … position + count - 1 of a sequence.

    Philox-4x64 (Salmon et al. 2011) encrypts a counter under the key (seed, sequence): any number is reached directly,
    so a text does not depend on how it is made. Four numbers come from each counter; NumPy keeps this raw stream the
    same in every version. The upper 53 bits make a double.
    """
    source = np.random.Philox(key=np.array([seed, sequence], np.uint64))
    source.advance(position // 4)
    raw_N = source.random_raw(position % 4 + count)[position % 4 :]
    return (raw_N >> np.uint64(11)).astype(np.float64) * 2.0**-53


def uniform_rows(seed: int, sequences: Sequence[int], position: int = 0) -> Iterator[Doubles]:
    """uniform_B for one position after the other: a number for each of these sequences, without end."""
    while True:
        block_NB = np.stack([uniforms(seed, sequence, position, BLOCK) for sequence in sequences], axis=1)
        yield from block_NB
        position += BLOCK


def _likeliest(scores_BV: Doubles) -> Ids:
    ids_B: Ids = scores_BV.argmax(axis=-1)
    return ids_B


def _shifted(scores_BV: Doubles) -> Doubles:
    """Each row less its highest logit: the same distribution, whose exponentials cannot overflow."""
    highest_B1 = np.maximum.reduce(scores_BV, axis=-1, keepdims=True)
    if not all(map(math.isfinite, highest_B1[:, 0].tolist())):  # a third of np.isfinite(…).all() at this size
        raise ModelError(NO_CHOICE)
    return scores_BV - highest_B1
