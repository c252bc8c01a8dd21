"""A linear map: the input product of a layer above the first, and the logits.

Shapes: N rows, or [T, B] of them; X inputs, Y outputs.
"""

from __future__ import annotations

import numpy as np

from charloom.cells import Floats


def forward(x_NX: Floats, weight_YX: Floats, bias_Y: Floats) -> Floats:
    """y = W x + b, for every row. `backward` needs x and W."""
    y_NY = x_NX @ weight_YX.T
    y_NY += bias_Y
    return y_NY


def backward(d_y_NY: Floats, x_NX: Floats, weight_YX: Floats) -> tuple[Floats, Floats, Floats]:
    """d_x = Wᵀ d_y for every row; d_W = Σ d_y xᵀ and d_b = Σ d_y over the rows, one product each."""
    rows_MY = d_y_NY.reshape(-1, d_y_NY.shape[-1])
    d_weight_YX = rows_MY.T @ x_NX.reshape(-1, x_NX.shape[-1])
    return d_y_NY @ weight_YX, d_weight_YX, np.add.reduce(rows_MY, axis=0)
