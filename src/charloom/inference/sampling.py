"""From logits to the next token: pure functions, and random numbers that depend only on their position.

The order is fixed, and is the order of Hugging Face's `generate`: repetition penalty, n-grams that must not repeat,
suppressed tokens, temperature, top-k, top-p, min-p, draw. Each filter gets the result of the one before it. All but the
first three keep at least one token.

Shapes: B rows, V vocabulary size, N positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from charloom.cells import Floats, Integers
from charloom.config import Section

Doubles = NDArray[np.float64]

COLDEST = 1e-6
"""Lower temperatures are greedy: then even a logit one float32 rounding below the highest has probability 0."""

NGRAM_WINDOW = 10_000
"""Last tokens in which n-grams are searched. This bounds memory and time for a sequence without an end."""

BLOCK = 256
"""Random numbers made in one call for a sequence, so that the 10 µs that set up a generator matter little."""


class Sampling(Section):
    """How the next token is chosen. The names are those of Hugging Face's `generate`.

    The default temperature is 0.8. A small character model gives a little probability to many wrong letters, and at 1.0
    they sometimes break a word. 1.0 samples the model's own distribution.
    """

    temperature: float = Field(
        0.8, ge=0, le=100, description="below 1 is more predictable, above 1 more varied; 0 is greedy"
    )
    top_k: int | None = Field(None, ge=1, description="choose from the N most probable tokens only")
    top_p: float | None = Field(
        None, gt=0, le=1, description="choose from the fewest tokens that together have probability X"
    )
    min_p: float | None = Field(
        None, ge=0, le=1, description="choose from tokens at least X times as probable as the most probable one"
    )
    greedy: bool = Field(False, description="always choose the most probable token")
    repetition_penalty: float = Field(
        1.0, ge=0.01, le=100, description="above 1 makes recent tokens less probable, below 1 more probable; 1 is off"
    )
    repetition_window: int = Field(64, ge=1, le=10_000, description="recent tokens that `repetition_penalty` considers")
    no_repeat_ngram_size: int | None = Field(
        None, ge=1, le=10_000, description="never repeat N tokens in the same order"
    )

    @property
    def is_greedy(self) -> bool:
        """Whether sampling does not use random numbers."""
        return self.greedy or self.temperature < COLDEST

    @property
    def penalised(self) -> int:
        """How many of the last tokens the repetition penalty uses; 0 if it is off."""
        return 0 if self.repetition_penalty == 1 else self.repetition_window

    @property
    def history(self) -> int:
        """How many of the last tokens the filters use, prompt included."""
        return max(self.penalised, 0 if self.no_repeat_ngram_size is None else NGRAM_WINDOW)


def choose(logits_BV: Floats, uniform_B: Doubles, sampling: Sampling) -> Integers:
    """The next token of each row by temperature, top-k, top-p and min-p.

    Args:
        logits_BV: the network's output; -inf forbids a token.
        uniform_B: a number in [0, 1) for each row.
        sampling: of all rows.

    Returns:
        ids_B. With equal logits, greedy takes the lowest id. -1 if a row's highest logit is not finite.
    """
    highest_B1 = np.maximum.reduce(logits_BV, axis=-1, keepdims=True)
    if all(map(math.isfinite, highest_B1[:, 0].tolist())):  # three times as fast as np.isfinite(…).all()
        scores_BV = logits_BV.astype(np.float64) - highest_B1
        return _highest(scores_BV) if sampling.is_greedy else draw(np.exp(_filtered(scores_BV, sampling)), uniform_B)
    ids_B = np.full(len(logits_BV), -1)
    for row in np.flatnonzero(np.isfinite(highest_B1[:, 0])):
        ids_B[row] = choose(logits_BV[row : row + 1], uniform_B[row : row + 1], sampling)[0]
    return ids_B


def probabilities(logits_BV: Floats, sampling: Sampling) -> Doubles:
    """probabilities_BV with which `choose` takes each token; each row sums to 1. The highest logits must be finite."""
    scores_BV = logits_BV.astype(np.float64)
    scores_BV -= scores_BV.max(axis=-1, keepdims=True)
    if sampling.is_greedy:
        chosen_BV: Doubles = (np.arange(scores_BV.shape[1]) == _highest(scores_BV)[:, None]).astype(np.float64)
        return chosen_BV
    weights_BV = np.exp(_filtered(scores_BV, sampling))
    normalised_BV: Doubles = weights_BV / weights_BV.sum(axis=-1, keepdims=True)
    return normalised_BV


def log_probabilities(logits_V: Floats, token: int, top: int) -> tuple[Doubles, Integers]:
    """ln softmax(logits) of the token and of the `top` most probable tokens; and the ids of those, the lowest of equals
    first.
    """
    scores_V = logits_V.astype(np.float64) - logits_V.max()
    scores_V -= np.log(np.exp(scores_V).sum())
    top_ids: Integers = np.argsort(-scores_V, kind="stable")[:top]
    return scores_V[[token, *top_ids]], top_ids


def penalise(logits_V: Floats, tokens: Sequence[int], penalty: float) -> None:
    """Divides positive logits of these tokens by the penalty and multiplies negative ones by it, in place.

    Each token counts once (Keskar et al. 2019, as in Hugging Face's `RepetitionPenaltyLogitsProcessor`).
    """
    ids = np.unique(np.array(tokens, np.intp))
    factor = logits_V.dtype.type(penalty)
    logits_V[ids] = np.where(logits_V[ids] < 0, logits_V[ids] * factor, logits_V[ids] / factor)


def forbid_ngrams(logits_V: Floats, tokens: Sequence[int], size: int) -> None:
    """Forbids, in place, each token that would repeat a sequence of `size` tokens that `tokens` contains.

    As Hugging Face's `NoRepeatNGramLogitsProcessor` (Paulus et al. 2017).
    """
    if len(tokens) < size:
        return
    windows_NS = np.lib.stride_tricks.sliding_window_view(np.array(tokens, np.intp), size)
    last = np.array(tokens[len(tokens) - size + 1 :], np.intp)
    logits_V[windows_NS[(windows_NS[:, :-1] == last).all(axis=1), -1]] = -np.inf


def _filtered(scores_BV: Doubles, sampling: Sampling) -> Doubles:
    """Logits after temperature and every filter that is on. The filters do not change the highest logit."""
    if sampling.temperature != 1:
        scores_BV = temperature(scores_BV, sampling.temperature)
    if sampling.top_k is not None:
        scores_BV = top_k(scores_BV, sampling.top_k)
    if sampling.top_p is not None:
        scores_BV = top_p(scores_BV, sampling.top_p)
    if sampling.min_p is not None:
        scores_BV = min_p(scores_BV, sampling.min_p)
    return scores_BV


def temperature(logits_BV: Doubles, value: float) -> Doubles:
    """Logits / value: p_i becomes proportional to p_i^(1/value) (Boltzmann's distribution; Ackley et al. 1985)."""
    return logits_BV / value


def top_k(logits_BV: Doubles, k: int) -> Doubles:
    """Exactly the k most probable tokens (Fan et al. 2018). Of equal tokens at the limit, the lowest ids stay."""
    size = logits_BV.shape[1]
    if k >= size:
        return logits_BV
    edge_B1 = np.partition(logits_BV, size - k, axis=-1)[:, size - k, None]
    above_BV, equal_BV = logits_BV > edge_B1, logits_BV == edge_B1
    room_B1 = k - above_BV.sum(axis=-1, keepdims=True)
    kept_BV = above_BV | (equal_BV & (equal_BV.cumsum(axis=-1) <= room_B1))
    return np.where(kept_BV, logits_BV, -np.inf)


def top_p(logits_BV: Doubles, p: float) -> Doubles:
    """The nucleus: the fewest tokens, most probable first, that reach p together (Holtzman et al. 2019).

    The most probable token always stays. Of equal tokens, lower ids come first.
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
    """Tokens at least p times as probable as the most probable one (Nguyen et al. 2024)."""
    if p <= 0:
        return logits_BV
    floor_B1 = logits_BV.max(axis=-1, keepdims=True) + np.log(p)
    return np.where(logits_BV >= floor_B1, logits_BV, -np.inf)


def draw(probabilities_BV: Floats, uniform_B: Doubles) -> Integers:
    """One token for each row by the inverse of the cumulative distribution, in float64.

    Args:
        probabilities_BV: at least 0, some above 0; a row need not sum to 1.
        uniform_B: in [0, 1), float64.

    Returns:
        ids_B: the first token whose cumulative probability exceeds uniform times the row's sum. So a token of
        probability 0 is never drawn.
    """
    cdf_BV = np.add.accumulate(probabilities_BV, axis=-1, dtype=np.float64)
    # uniform is at most 1 - 2^-53. This lowers any normal double by at least half a unit in the last place. So the
    # product rounds to less than the total, and some cumulative probability exceeds it.
    target_B = uniform_B * cdf_BV[:, -1]
    ids_B: Integers
    if len(cdf_BV) == 1:
        ids_B = cdf_BV[0].searchsorted(target_B, side="right")
    else:
        ids_B = (cdf_BV <= target_B[:, None]).sum(axis=-1)
    return ids_B


def uniforms(seed: int, index: int, position: int, count: int) -> Doubles:
    """The numbers in [0, 1) at positions position … position + count - 1 of a random stream.

    Philox-4x64 (Salmon et al. 2011) encrypts a counter under the key (seed, index), so any number is computed directly.
    Each counter gives four numbers. NumPy keeps this raw stream the same in every version. The upper 53 bits make a
    double.
    """
    source = np.random.Philox(key=np.array([seed, index], np.uint64))
    source.advance(position // 4)
    raw_N = source.random_raw(position % 4 + count)[position % 4 :]
    return (raw_N >> np.uint64(11)).astype(np.float64) * 2.0**-53


def random_stream(seed: int, index: int, position: int = 0) -> Iterator[float]:
    """The numbers of a random stream from this position on. The stream has no end."""
    while True:
        yield from uniforms(seed, index, position, BLOCK).tolist()
        position += BLOCK


def _highest(scores_BV: Doubles) -> Integers:
    ids_B: Integers = scores_BV.argmax(axis=-1)
    return ids_B
