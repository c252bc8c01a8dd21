"""The forward equations of the recurrent cells, for training and for generation.

Equations and parameter layouts are those of `torch.nn.RNN`, `LSTM` and `GRU`. A gate's sum is a = W x_t + b + U h_{t-1}
+ b', with rows of its own in W, b, U and b'.

A function here computes one step of B sequences, from sums to h_t, in arrays that the caller passes. Training passes
other arrays at each step, the saved activations of the backward pass. Generation passes the same arrays again.

Shapes: B sequences, V vocabulary size, E features of a token, H hidden units, G = gates times H (1 rnn, 3 gru, 4 lstm).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from charloom.architecture import Architecture

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Booleans = NDArray[np.bool_]
Nonlinearity = Literal["tanh", "relu"]


def sigmoid(tanh: Floats) -> None:
    """σ(x) from tanh(½x), in place: σ(x) = ½ tanh(½x) + ½.

    The caller halves the sums of sigmoid gates first, which is exact. So one tanh computes all gates. It saturates
    without a warning, but 1 / (1 + exp(-x)) overflows.
    """
    tanh *= 0.5
    tanh += 0.5


def cap(i_BH: Floats, f_BH: Floats) -> None:
    """The capped input gate, in place: min(i, 1 - f), so that |c_t| ≤ max(|c_{t-1}|, 1). Any shape.

    Source: the code of Melis, Dyer and Blunsom 2018, "On the State of the Art of Evaluation in Neural Language Models".
    """
    np.minimum(i_BH, 1 - f_BH, out=i_BH)


def rnn_step(sums_BH: Floats, nonlinearity: Nonlinearity, h_out: Floats) -> None:
    """The simple recurrent cell (Elman 1990): h_t = tanh(a) or, with relu, max(0, a). h_out may be sums_BH itself."""
    if nonlinearity == "tanh":
        np.tanh(sums_BH, h_out)
    else:
        np.maximum(sums_BH, 0, out=h_out)


def lstm_step(gates: Iterable[Floats], c_BH: Floats, c_out: Floats, squashed_out: Floats, h_out: Floats) -> None:
    """The LSTM (Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000).

        i, f, o = σ(a)    g = tanh(a)
        c_t = f c_{t-1} + i g
        h_t = o tanh(c_t)

    Args:
        gates: i, f, g, o, each [B, H].
        c_BH: c_{t-1}.
        c_out: for c_t; may be c_BH itself.
        squashed_out: for tanh(c_t); may be h_out itself.
        h_out: for h_t.
    """
    i_BH, f_BH, g_BH, o_BH = gates
    np.multiply(f_BH, c_BH, c_out)
    c_out += i_BH * g_BH
    np.tanh(c_out, squashed_out)
    np.multiply(o_BH, squashed_out, h_out)


def gru_step(gates: Iterable[Floats], product_BH: Floats, inputs_BH: Floats, h_BH: Floats, h_out: Floats) -> None:
    """The GRU (Cho et al. 2014), in the variant of cuDNN and PyTorch, whose reset gate follows the product.

        r, z = σ(a)
        n = tanh(W x_t + b + r (U h_{t-1} + b'))
        h_t = (1 - z) n + z h_{t-1}

    Args:
        gates: r and z, and an array for n, each [B, H].
        product_BH: U h_{t-1} + b' of n; may be the array for n.
        inputs_BH: W x_t + b of n.
        h_BH: h_{t-1}.
        h_out: for h_t.
    """
    r_BH, z_BH, n_BH = gates
    np.multiply(r_BH, product_BH, n_BH)
    n_BH += inputs_BH
    np.tanh(n_BH, n_BH)
    np.subtract(h_BH, n_BH, h_out)
    h_out *= z_BH
    h_out += n_BH


def input_features(architecture: Architecture, parameters: Mapping[str, Floats]) -> Floats | None:
    """features_VE, the input of each token to the first layer: its embedding, or its index/V as one number (E = 1).

    None for one-hot input, whose features would be the identity matrix.
    """
    if architecture.input == "onehot":
        return None
    if architecture.input == "embedding":
        return parameters["embedding.weight"]
    size, dtype = architecture.vocabulary_size, parameters["head.bias"].dtype
    return (np.arange(size, dtype=dtype) / dtype.type(size))[:, None]


def merged_biases(cell: str, bias_ih_G: Floats, bias_hh_G: Floats) -> tuple[Floats, Floats | None]:
    """(bias that is added to the input product, in PyTorch's gate order; hidden bias of a GRU's n gate, [H]).

    The second is None for the other cells. In a GRU, r multiplies the hidden product with its bias, so n needs both.
    """
    if cell != "gru":
        return bias_ih_G + bias_hh_G, None
    merged_G, shared = bias_ih_G.copy(), len(bias_ih_G) * 2 // 3
    merged_G[:shared] += bias_hh_G[:shared]
    return merged_G, bias_hh_G[shared:].copy()
