"""The state of a network as arrays, and the conventions of all operations.

An operation is a pair of functions of arrays, `forward` and `backward`. `forward` returns its result and the saved
activations. `backward` takes the saved activations and the gradient of the loss with respect to that result. It returns
the gradients with respect to the arguments of `forward`. The gradient of an array has its name with the prefix `d_`. No
function changes its arguments.

Shapes: T time steps, B sequences, V vocabulary size, U distinct tokens of a batch, E features of a token, X a layer's
input size, L layers, H hidden units, G = gates times H (1 rnn, 3 gru, 4 lstm), N targets.
"""

from __future__ import annotations

from charloom.cells import Floats

CpuState = tuple[Floats, ...]  # (h,) or, for an LSTM, (h, c): [B, H] of a layer, [L, B, H] of a network
