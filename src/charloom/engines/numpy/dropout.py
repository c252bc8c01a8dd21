"""Dropout (Srivastava et al. 2014): between layers and before the head (Zaremba, Sutskever & Vinyals 2014).

The other units are scaled up, so that their mean does not change. So the network without dropout needs no scaling.
`engines/masks.py` draws the levels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from charloom.cells import Floats
from charloom.engines.masks import DropoutLevels, dropout_levels


def forward(x: Floats, mask: Floats | None) -> Floats:
    """x times the mask; None drops nothing."""
    return x if mask is None else x * mask


def backward(d_out: Floats, mask: Floats | None) -> Floats:
    """d_out times the mask: a dropped unit does not affect the loss."""
    return d_out if mask is None else d_out * mask


def weight_drop_levels(
    parameters: Mapping[str, Floats], share: float, random: np.random.Generator
) -> dict[str, DropoutLevels]:
    """Weight drop: the levels that drop this share of the recurrent weights (Merity, Keskar & Socher 2018).

    The same weights are dropped for all rows and time steps of a batch.
    """
    if not share:
        return {}
    return {
        name: dropout_levels(random, value.shape, share) for name, value in parameters.items() if "weight_hh" in name
    }
