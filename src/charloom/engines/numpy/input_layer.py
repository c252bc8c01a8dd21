"""The input layer: from token ids to the input products W x + b of the first recurrent layer.

x is the token's features: its embedding, its index/V, or a one-hot row. W x + b depends on the token alone. So it is
computed once for each distinct token of the batch and gathered for every position. With one-hot rows, W x is a column
of W.

Shapes: see `arrays.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charloom.cells import Floats, Integers
from charloom.engines.numpy import gather, linear


class InputActivations(NamedTuple):
    """The saved activations. features_VE: None for one-hot."""

    distinct_U: Integers
    positions_TB: Integers
    features_VE: Floats | None
    weight_GE: Floats


def forward(
    ids_TB: Integers, features_VE: Floats | None, weight_GE: Floats, bias_G: Floats
) -> tuple[Floats, InputActivations]:
    """inputs_TBG = W x + b, where x is each id's row in features_VE. None is the identity (one-hot)."""
    distinct_U, positions = np.unique(ids_TB, return_inverse=True)
    saved = InputActivations(distinct_U, positions.reshape(ids_TB.shape), features_VE, weight_GE)
    if features_VE is None:
        table_UG: Floats = weight_GE.T[distinct_U] + bias_G
    else:
        table_UG = linear.forward(features_VE[distinct_U], weight_GE, bias_G)
    return gather.forward(table_UG, saved.positions_TB), saved


def backward(d_inputs_TBG: Floats, saved: InputActivations) -> tuple[Floats | None, Floats, Floats]:
    """(d_features_VE, d_weight_GE, d_bias_G). Tokens that are not in the batch have a zero gradient."""
    distinct_U, positions_TB, features_VE, weight_GE = saved
    d_table_UG = gather.backward(d_inputs_TBG, positions_TB, len(distinct_U))
    if features_VE is None:
        d_weight_GE = np.zeros_like(weight_GE)
        d_weight_GE[:, distinct_U] = d_table_UG.T
        return None, d_weight_GE, np.add.reduce(d_table_UG, axis=0)
    d_features_VE = np.zeros_like(features_VE)
    d_features_VE[distinct_U], d_weight_GE, d_bias_G = linear.backward(d_table_UG, features_VE[distinct_U], weight_GE)
    return d_features_VE, d_weight_GE, d_bias_G
