"""The recurrent layers for generation: the equations of `cells.py`, with the weights rearranged for speed.

One step of a small network is bound by the number of NumPy calls, so the weights are rearranged once:

- transposed, so that a row of hidden values multiplies them in memory order;
- rows of sigmoid gates are halved (exact in floating point) and moved to the front, as `cells.sigmoid` needs them. Then
  one tanh serves all gates, and one product and one sum serve all sigmoids;
- biases are merged, if the cell allows it.

Shapes: B sequences, T steps, X a layer's input size, H hidden, G gates times H (1 rnn, 3 gru, 4 lstm).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from charloom.architecture import Architecture
from charloom.cells import Floats, cap, gru_step, lstm_step, merged_biases, rnn_step, sigmoid


class Layer:
    """One recurrent layer with rearranged weights: first the sigmoid gates, halved, then the others.

    order: the position in PyTorch's layout of each gate in our order; sigmoids: the number of sigmoid gates.
    """

    order: tuple[int, ...] = (0,)
    sigmoids = 0

    def __init__(self, architecture: Architecture, parameters: Mapping[str, Floats], number: int) -> None:
        self.cell, self.hidden = architecture.cell, architecture.hidden
        self.variant = architecture.variant
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        self.weight_GX, self.recurrent_GH, *self._given = (parameters[f"rnn.{name}_l{number}"] for name in names)

    # Rearranged when NumPy first uses them: the kernels take the parameters unchanged.

    @cached_property
    def weight_XG(self) -> Floats:
        """The weights of a layer's input."""
        return np.ascontiguousarray(self._arrange(self.weight_GX).T)

    @cached_property
    def recurrent_HG(self) -> Floats:
        """The weights of the layer's own hidden values."""
        return np.ascontiguousarray(self._arrange(self.recurrent_GH).T)

    @cached_property
    def bias_G(self) -> Floats:
        """The bias of the input product."""
        return merged_biases(self.cell, *map(self._arrange, self._given))[0]

    @cached_property
    def hidden_H(self) -> Floats | None:
        """The bias of the hidden product alone, or None."""
        return merged_biases(self.cell, *map(self._arrange, self._given))[1]

    def _arrange(self, parameter: Floats) -> Floats:
        gates = parameter.reshape(len(self.order), self.hidden, *parameter.shape[1:])[list(self.order)]
        gates[: self.sigmoids] *= 0.5
        return gates.reshape(parameter.shape)

    def inputs(self, x: Floats) -> Floats:
        """The input products, [..., X] to [..., G]. They do not depend on the recurrence."""
        return x @ self.weight_XG + self.bias_G

    def run(self, inputs_TBG: Floats, h_BH: Floats, c_BH: Floats) -> tuple[Floats, Floats]:
        """All steps of a block: h_TBH, and c_BH after the last step."""
        h_TBH = np.empty((*inputs_TBG.shape[:2], self.hidden), inputs_TBG.dtype)
        c_BH = c_BH.copy()
        for inputs_BG, h_out in zip(inputs_TBG, h_TBH, strict=True):
            self.advance(inputs_BG, h_BH, c_BH, h_out, c_BH)
            h_BH = h_out
        return h_TBH, c_BH

    def advance(self, inputs_BG: Floats, h_BH: Floats, c_BH: Floats, h_out: Floats, c_out: Floats) -> None:
        """One step. Writes h_out and, for an LSTM, c_out, which may be c_BH itself. Other cells do not change c."""
        raise NotImplementedError


class RnnLayer(Layer):
    """`cells.rnn_step`."""

    def advance(self, inputs_BG: Floats, h_BH: Floats, c_BH: Floats, h_out: Floats, c_out: Floats) -> None:
        """See `Layer.advance`."""
        sums_BH = rows_times(h_BH, self.recurrent_HG)
        sums_BH += inputs_BG
        rnn_step(sums_BH, "relu" if self.variant == "relu" else "tanh", h_out)


class LstmLayer(Layer):
    """`cells.lstm_step`, with the gates in memory in the order i, f, o, g."""

    order = (0, 1, 3, 2)
    sigmoids = 3

    def advance(self, inputs_BG: Floats, h_BH: Floats, c_BH: Floats, h_out: Floats, c_out: Floats) -> None:
        """See `Layer.advance`."""
        H = self.hidden
        gates_BG = rows_times(h_BH, self.recurrent_HG)
        gates_BG += inputs_BG
        np.tanh(gates_BG, gates_BG)
        sigmoid(gates_BG[:, : 3 * H])
        gates = gates_BG[:, :H], gates_BG[:, H : 2 * H], gates_BG[:, 3 * H :], gates_BG[:, 2 * H : 3 * H]
        if self.variant == "capped":
            cap(*gates[:2])
        lstm_step(gates, c_BH, c_out, h_out, h_out)


class GruLayer(Layer):
    """`cells.gru_step`, with the gates in memory in PyTorch's order r, z, n."""

    order = (0, 1, 2)
    sigmoids = 2

    def advance(self, inputs_BG: Floats, h_BH: Floats, c_BH: Floats, h_out: Floats, c_out: Floats) -> None:
        """See `Layer.advance`."""
        assert self.hidden_H is not None
        H = self.hidden
        gates_BG = rows_times(h_BH, self.recurrent_HG)
        reset_update_BG, new_BH = gates_BG[:, : 2 * H], gates_BG[:, 2 * H :]
        reset_update_BG += inputs_BG[:, : 2 * H]
        np.tanh(reset_update_BG, reset_update_BG)
        sigmoid(reset_update_BG)
        new_BH += self.hidden_H
        gates = gates_BG[:, :H], gates_BG[:, H : 2 * H], new_BH
        gru_step(gates, new_BH, inputs_BG[:, 2 * H :], h_BH, h_out)


LAYERS: dict[str, type[Layer]] = {"rnn": RnnLayer, "lstm": LstmLayer, "gru": GruLayer}


def rows_times(x_BX: Floats, weight_XG: Floats) -> Floats:
    """x_BX @ weight_XG, with a separate product for each row, in one NumPy call.

    BLAS rounds the product of a matrix and a matrix differently from the product of a vector and a matrix. At a near
    tie, sampling could then choose another token. With separate products, a row is bit for bit the same alone and in
    any batch. 16 rows take 2 to 3 times as long as a matrix product (H 128 to 512, on two cores with AVX-512).
    """
    if len(x_BX) == 1:
        return x_BX @ weight_XG
    product_BG: Floats = (x_BX[:, None, :] @ weight_XG)[:, 0]
    return product_BG
