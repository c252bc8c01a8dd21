"""The recurrent cells, one layer and one step at a time, with their weights rearranged for speed.

Equations and parameter layouts are those of `torch.nn.RNN`, `LSTM` (Hochreiter & Schmidhuber 1997, with the forget
gate of Gers et al. 2000) and `GRU` (Cho et al. 2014, in the variant whose reset gate follows the product, as cuDNN's).

One step of a small network is bound by the number of NumPy calls, so the weights are rearranged once:

- transposed, which lets a row of hidden values multiply them as they lie in memory;
- σ(x) = ½ tanh(½x) + ½, exactly: the rows of every sigmoid gate are halved (exact in floating point) and moved to the
  front, so one tanh serves all gates; it saturates without a warning, where 1 / (1 + exp(-x)) overflows;
- biases are summed, where the cell allows it.

Shapes: B texts side by side, T steps, X a layer's input size, H hidden, G gates times H (1 rnn, 3 gru, 4 lstm).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.architecture import Architecture

Floats = NDArray[np.floating[Any]]


class Layer:
    """One recurrent layer, its weights rearranged: sigmoid gates first and halved, then the rest.

    order: the gates' places in PyTorch's layout, in our order; sigmoids: how many of them are sigmoids.
    """

    order: tuple[int, ...] = (0,)
    sigmoids = 0

    def __init__(self, architecture: Architecture, parameters: Mapping[str, Floats], number: int) -> None:
        self.hidden = architecture.hidden
        self.nonlinearity = architecture.nonlinearity
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        self.weight_GX, self.recurrent_GH, *self._given = (parameters[f"rnn.{name}_l{number}"] for name in names)

    # rearranged when NumPy first needs them: the kernels take the parameters as they are

    @cached_property
    def weight_XG(self) -> Floats:
        """What multiplies a layer's input."""
        return np.ascontiguousarray(self._arrange(self.weight_GX).T)

    @cached_property
    def recurrent_HG(self) -> Floats:
        """What multiplies its own hidden values."""
        return np.ascontiguousarray(self._arrange(self.recurrent_GH).T)

    @cached_property
    def bias_G(self) -> Floats:
        """What is added to the input product."""
        return self._biases(*map(self._arrange, self._given))[0]

    @cached_property
    def hidden_H(self) -> Floats | None:
        """What is added to the hidden product only, if anything."""
        return self._biases(*map(self._arrange, self._given))[1]

    @property
    def biases(self) -> tuple[Floats, Floats | None]:
        """Both of them in PyTorch's order."""
        return self._biases(*self._given)

    def _arrange(self, parameter: Floats) -> Floats:
        gates = parameter.reshape(len(self.order), self.hidden, *parameter.shape[1:])[list(self.order)]
        gates[: self.sigmoids] *= 0.5
        return gates.reshape(parameter.shape)

    def _biases(self, bias_G: Floats, hidden_G: Floats) -> tuple[Floats, Floats | None]:
        return bias_G + hidden_G, None

    def inputs(self, x: Floats) -> Floats:
        """The part of the gates that does not wait for the recurrence: [..., X] to [..., G]."""
        return x @ self.weight_XG + self.bias_G

    def run(self, inputs_TBG: Floats, h_BH: Floats, c_BH: Floats) -> tuple[Floats, Floats]:
        """All steps of a block: h_TBH, and c_BH after the last."""
        h_TBH = np.empty((*inputs_TBG.shape[:2], self.hidden), inputs_TBG.dtype)
        c_BH = c_BH.copy()
        for inputs_BG, h_out in zip(inputs_TBG, h_TBH, strict=True):
            self.advance(inputs_BG, h_BH, c_BH, h_out, c_BH)
            h_BH = h_out
        return h_TBH, c_BH

    def advance(self, inputs_BG: Floats, h_BH: Floats, c_BH: Floats, h_out: Floats, c_out: Floats) -> None:
        """One step, written into h_out and, for lstm, c_out, which may be c_BH itself; other cells leave c alone."""
        raise NotImplementedError


class RnnLayer(Layer):
    """h' = tanh(W x + b + U h + b') or, with relu, max(0, …) (Elman 1990)."""

    def advance(self, inputs_BG: Floats, h_BH: Floats, c_BH: Floats, h_out: Floats, c_out: Floats) -> None:
        """See `Layer.advance`; the equations stand above."""
        gates_BG = rows_times(h_BH, self.recurrent_HG)
        gates_BG += inputs_BG
        if self.nonlinearity == "tanh":
            np.tanh(gates_BG, out=h_out)
        else:
            np.maximum(gates_BG, 0, out=h_out)


class LstmLayer(Layer):
    """c' = σ(f) c + σ(i) tanh(g); h' = σ(o) tanh(c'). In memory: i, f, o, then g."""

    order = (0, 1, 3, 2)
    sigmoids = 3

    def advance(self, inputs_BG: Floats, h_BH: Floats, c_BH: Floats, h_out: Floats, c_out: Floats) -> None:
        """See `Layer.advance`; the equations stand above."""
        H = self.hidden
        gates_BG = rows_times(h_BH, self.recurrent_HG)
        gates_BG += inputs_BG
        np.tanh(gates_BG, out=gates_BG)
        _tanh_to_sigmoid(gates_BG[:, : 3 * H])
        write_BH = gates_BG[:, :H]
        write_BH *= gates_BG[:, 3 * H :]
        np.multiply(gates_BG[:, H : 2 * H], c_BH, out=c_out)
        c_out += write_BH
        np.tanh(c_out, out=h_out)
        h_out *= gates_BG[:, 2 * H : 3 * H]


class GruLayer(Layer):
    """n = tanh(W x + b + σ(r) (U h + b')); h' = (1 - σ(z)) n + σ(z) h. In memory: r, z, n, as in PyTorch.

    r multiplies the hidden product with its bias, so the n gate keeps two biases.
    """

    order = (0, 1, 2)
    sigmoids = 2

    def _biases(self, bias_G: Floats, hidden_G: Floats) -> tuple[Floats, Floats | None]:
        shared_G, H = bias_G.copy(), self.hidden
        shared_G[: 2 * H] += hidden_G[: 2 * H]
        return shared_G, hidden_G[2 * H :].copy()

    def advance(self, inputs_BG: Floats, h_BH: Floats, c_BH: Floats, h_out: Floats, c_out: Floats) -> None:
        """See `Layer.advance`; the equations stand above."""
        assert self.hidden_H is not None
        H = self.hidden
        gates_BG = rows_times(h_BH, self.recurrent_HG)
        reset_update_BG, new_BH = gates_BG[:, : 2 * H], gates_BG[:, 2 * H :]
        reset_update_BG += inputs_BG[:, : 2 * H]
        np.tanh(reset_update_BG, out=reset_update_BG)
        _tanh_to_sigmoid(reset_update_BG)
        new_BH += self.hidden_H
        new_BH *= gates_BG[:, :H]
        new_BH += inputs_BG[:, 2 * H :]
        np.tanh(new_BH, out=new_BH)
        np.subtract(h_BH, new_BH, out=h_out)
        h_out *= gates_BG[:, H : 2 * H]
        h_out += new_BH


LAYERS: dict[str, type[Layer]] = {"rnn": RnnLayer, "lstm": LstmLayer, "gru": GruLayer}


def _tanh_to_sigmoid(gates: Floats) -> None:
    """½ tanh(½x) + ½ = σ(x), in place; the ½ inside is already in the weights."""
    gates *= 0.5
    gates += 0.5


def rows_times(x_BX: Floats, weight_XG: Floats) -> Floats:
    """x_BX @ weight_XG, each row's product on its own, in one NumPy call.

    BLAS rounds a matrix times a matrix otherwise than a vector times a matrix, and one near tie in sampling would then
    part two texts. So a row is bit for bit the same alone and in any batch; at 16 rows that takes 2 to 3 times as long
    as a matrix product (H 128 to 512, on two cores with AVX-512).
    """
    if len(x_BX) == 1:
        return x_BX @ weight_XG
    product_BG: Floats = (x_BX[:, None, :] @ weight_XG)[:, 0]
    return product_BG
