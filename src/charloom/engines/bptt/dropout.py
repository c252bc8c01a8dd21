"""Dropout (Srivastava et al. 2014): between layers and before the head (Zaremba, Sutskever & Vinyals 2014).

What is kept is scaled up, so that its mean stays and nothing is to be done when the network is used. `masks.py`, beside
this folder, draws what is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from charloom.engines.bptt.arrays import Floats
from charloom.engines.masks import draw


class Dropped(NamedTuple):
    """Weights before some were dropped, and the mask that did it."""

    weights: Floats
    mask: Floats


def forward(x: Floats, mask: Floats | None) -> Floats:
    """x times the mask; None drops nothing."""
    return x if mask is None else x * mask


def backward(d_out: Floats, mask: Floats | None) -> Floats:
    """The mask again: a unit that was dropped had no part in the loss."""
    return d_out if mask is None else d_out * mask


def drop_weights(parameters: Mapping[str, Floats], share: float, random: np.random.Generator) -> dict[str, Dropped]:
    """Sets this share of the recurrent weights to zero for a step, in place (Merity, Keskar & Socher 2018).

    One mask for all texts and times, so what goes on in time is the same network from the first step to the last.
    """
    if not share:
        return {}
    dropped = {}
    for name, weights in parameters.items():
        if "weight_hh" in name:
            dropped[name] = Dropped(weights.copy(), draw(random, weights.shape, share, weights.dtype))
            np.multiply(weights, dropped[name].mask, out=weights)
    return dropped


def restore_weights(
    parameters: Mapping[str, Floats], gradients: Mapping[str, Floats], dropped: Mapping[str, Dropped]
) -> None:
    """Undoes `drop_weights`: the weights as they were, and their gradients through the mask, in place."""
    for name, (weights, mask) in dropped.items():
        parameters[name][...] = weights
        gradients[name][...] *= mask
