"""The network's own distribution of the token after a text, before any sampling parameter.

Shapes: T tokens, V vocabulary size.
"""

from __future__ import annotations

import math

import numpy as np

from charloom.cells import Integers
from charloom.data.vocabulary import Vocabulary
from charloom.errors import ModelError
from charloom.inference.rows import Backend
from charloom.inference.sampling import Doubles
from charloom.inference.scheduler import NOTHING_TO_CHOOSE


def next_token(backend: Backend, vocabulary: Vocabulary, ids_T: Integers) -> dict[str, float]:
    """The probability of each token by its name in `Vocabulary.strings`, the most probable first.

    Without ids, all tokens that stand for text are equally probable: a text without a prompt begins in this way.

    Raises:
        ModelError: if the network's output is not finite.
    """
    probabilities_V = _probabilities(backend, ids_T) if len(ids_T) else _even(vocabulary)
    found: dict[str, float] = {}
    for string, probability in zip(vocabulary.strings, probabilities_V.tolist(), strict=True):
        found[string] = found.get(string, 0.0) + probability  # a text may contain U+FFFD, the unknown token's string
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _probabilities(backend: Backend, ids_T: Integers) -> Doubles:
    """The softmax of the logits after the last id."""
    state, begin = backend.initial_state(), 0
    while begin < len(ids_T) - 1:
        count, state = backend.read(ids_T[begin:-1], state, math.inf)
        begin += count
    logits_BTV, _ = backend.logits(ids_T[None, -1:], state)
    logits_V = logits_BTV[0, 0].astype(np.float64)
    if not np.isfinite(logits_V).all():
        raise ModelError(NOTHING_TO_CHOOSE)
    shares_V: Doubles = np.exp(logits_V - logits_V.max())
    shares_V /= shares_V.sum()
    return shares_V


def _even(vocabulary: Vocabulary) -> Doubles:
    shares_V = np.zeros(vocabulary.size)
    shares_V[: vocabulary.plain] = 1 / vocabulary.plain
    return shares_V
