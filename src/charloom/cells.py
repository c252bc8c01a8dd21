"""Temporary."""

from __future__ import annotations

import numpy as np


def input_features(architecture, parameters):
    if architecture.input == "onehot":
        return None
    if architecture.input == "embedding":
        return parameters["embedding.weight"]
    dtype = parameters["head.bias"].dtype
    return (np.arange(architecture.vocabulary_size, dtype=dtype) / dtype.type(architecture.vocabulary_size))[:, None]


def merged_biases(cell, bias_ih_G, bias_hh_G):
    if cell != "gru":
        return bias_ih_G + bias_hh_G, None
    shared_G, H = bias_ih_G.copy(), len(bias_ih_G) // 3
    shared_G[: 2 * H] += bias_hh_G[: 2 * H]
    return shared_G, bias_hh_G[2 * H :].copy()
