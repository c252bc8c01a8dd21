"""Baselines with at most one token of context: a uniform guess, frequencies, and a table of pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from charloom.data.batches import Batches
from charloom.data.ids import Ids


@dataclass(frozen=True)
class Guesses:
    """Losses of guesses without context: a uniform guess, and the frequencies in the same text."""

    uniform: float
    frequency: float


def guesses(batches: Batches, tokens: int, most: float = math.inf) -> Guesses:
    """Losses of guesses without context, on the same part of a layout as `measure`.

    tokens: the vocabulary size; most: as in `measure`.
    """
    counts = np.zeros(tokens, np.int64)
    read = 0
    for index in range(len(batches)):
        if read >= most:
            break
        inputs_BT, targets_BT = batches.batch(0, index)
        counts += np.bincount(targets_BT[targets_BT >= 0], minlength=tokens)
        read += inputs_BT.size
    shares = counts[counts > 0] / max(1, counts.sum())
    return Guesses(math.log(tokens), float(-(shares * np.log(shares)).sum()))


def pairs_nats(train: Ids, validation: Ids, tokens: int) -> float:
    """Nats per token of a table of pairs: P(next | this) from training, with 1 added to each count (Laplace).

    This is the loss of a model that sees only the last token.
    """
    counts = np.ones((tokens, tokens))
    ids = train.view()
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    log_p = np.log(counts / counts.sum(1, keepdims=True))
    judged = validation.view()
    return float(-log_p[judged[:-1], judged[1:]].mean())
