"""Dropout (Srivastava et al. 2014): between layers and before the head (Zaremba, Sutskever & Vinyals 2014).

What is kept is scaled up, so that its mean stays and nothing is to be done when the network is used. `masks.py`, beside
this folder, draws what is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from charloom.engines.bptt.arrays import Floats
from charloom.engines.masks import DropoutLevels, dropout_levels


def forward(x: Floats, mask: Floats | None) -> Floats:
    """x times the mask; None drops nothing."""
    return x if mask is None else x * mask


def backward(d_out: Floats, mask: Floats | None) -> Floats:
    """The mask again: a unit that was dropped had no part in the loss."""
    return d_out if mask is None else d_out * mask


def draw_weights(
    parameters: Mapping[str, Floats], share: float, random: np.random.Generator
) -> dict[str, DropoutLevels]:
    """What a step drops this share of the recurrent weights by (Merity, Keskar & Socher 2018).

    One draw for all texts and times, so what goes on in time is the same network from the first step to the last.
    """
    if not share:
        return {}
    return {
        name: dropout_levels(random, value.shape, share) for name, value in parameters.items() if "weight_hh" in name
    }
