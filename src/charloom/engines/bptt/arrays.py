"""The kinds of array that the operations hand on, and the legend of their shapes.

An operation is a pair of functions, `forward` and `backward`, of plain arrays. `forward` returns what it computed and a
cache; `backward` takes the gradient of the loss with respect to that, and the cache, and returns the gradients with
respect to what `forward` took. A gradient has the name of its array with `d_` before it. Neither changes what it takes.

Shapes: T steps of time, B texts side by side, V vocabulary size, U of them distinct in a batch, E features of a
token, X a layer's input size, L layers, H hidden units, G = gates times H (1 rnn, 3 gru, 4 lstm), N targets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
State = tuple[Floats, ...]  # (h,) or, for an LSTM, (h, c): [B, H] of a layer, [L, B, H] of a network
