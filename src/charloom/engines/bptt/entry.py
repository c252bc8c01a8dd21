"""How tokens enter the first layer: ids in, the input part of its gates out.

Each kind of input is a row x of numbers for each token: its embedding, its index/V, or a one-hot row. What the first
layer makes of it, W x + b, depends on the token alone: so it is computed once for each distinct token of the batch,
and gathered for every place. For one-hot rows, W x is a column of W.

Shapes: see `arrays.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charloom.engines.bptt import gather, linear
from charloom.engines.bptt.arrays import Floats, Integers


class Cache(NamedTuple):
    """What `backward` needs. features_VE: None for one-hot."""

    distinct_U: Integers
    places_TB: Integers
    features_VE: Floats | None
    weight_GE: Floats


def forward(ids_TB: Integers, features_VE: Floats | None, weight_GE: Floats, bias_G: Floats) -> tuple[Floats, Cache]:
    """inputs_TBG = W x + b with x the row of each id in features_VE; None stands for the identity (one-hot)."""
    distinct_U, places = np.unique(ids_TB, return_inverse=True)
    cache = Cache(distinct_U, places.reshape(ids_TB.shape), features_VE, weight_GE)
    if features_VE is None:
        table_UG: Floats = weight_GE.T[distinct_U] + bias_G
    else:
        table_UG = linear.forward(features_VE[distinct_U], weight_GE, bias_G)
    return gather.forward(table_UG, cache.places_TB), cache


def backward(d_inputs_TBG: Floats, cache: Cache) -> tuple[Floats | None, Floats, Floats]:
    """(d_features_VE, d_weight_GE, d_bias_G); tokens that are not in the batch have a gradient of zero."""
    distinct_U, places_TB, features_VE, weight_GE = cache
    d_table_UG = gather.backward(d_inputs_TBG, places_TB, len(distinct_U))
    if features_VE is None:
        d_weight_GE = np.zeros_like(weight_GE)
        d_weight_GE[:, distinct_U] = d_table_UG.T
        return None, d_weight_GE, np.add.reduce(d_table_UG, axis=0)
    d_features_VE = np.zeros_like(features_VE)
    d_features_VE[distinct_U], d_weight_GE, d_bias_G = linear.backward(d_table_UG, features_VE[distinct_U], weight_GE)
    return d_features_VE, d_weight_GE, d_bias_G
