"""The choice of a backend: the kernels if they can compute the network, else NumPy. Both give the same text within
rounding.
"""

from __future__ import annotations

from typing import Literal

from charloom import kernels
from charloom.errors import SettingsError
from charloom.inference.native_backend import NativeBackend, fits
from charloom.inference.numpy_backend import NumpyBackend
from charloom.inference.rows import Backend
from charloom.inference.weights import InferenceWeights

Precision = Literal["auto", "fp32", "bf16", "int8"]

AUTO: Precision = "fp32"
"""The precision that `auto` takes: the parameters as they were trained.

So a seed gives the same text with and without kernels, on every processor and in every version. The model generates
with the numbers that its score was measured with. bfloat16 and int8 change bits per character by less than 0.0005 and
0.002 (benchmarks/precision.py). No reader sees that, but the texts differ after a few hundred characters.
"""


def open_backend(weights: InferenceWeights, precision: Precision) -> Backend:
    """The fastest backend that computes this network in this precision.

    Raises:
        SettingsError: if only the kernels have this precision, and they are missing or cannot compute this network.
    """
    native = kernels.chosen()
    precision = AUTO if precision == "auto" else precision
    if precision == "int8" and weights.architecture.cell == "rnn" and weights.architecture.nonlinearity == "relu":
        raise SettingsError(
            "`precision` must be 'fp32' or 'bf16' for a relu network, whose values have no bound; got 'int8'"
        )
    if native.module is not None and fits(weights):
        return NativeBackend(native.module, weights, precision, tiles=native.tiles)
    if precision != "fp32":
        why = native.reason if native.module is None else "this network is not of finite float32 numbers"
        raise SettingsError(f"`precision` must be 'fp32' where the kernels do not generate ({why}); got {precision!r}")
    return NumpyBackend(weights)
