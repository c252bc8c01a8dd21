"""The fast writer: the whole loop of reading, choosing and drawing in C++ (`charloom/kernels/writing.cpp`).

Shapes: B texts side by side, S steps, T tokens of a prompt, L layers, H hidden, V vocabulary size, X a layer's input
size, G gates times H.
"""

from __future__ import annotations

from copy import copy
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charloom.errors import ModelError
from charloom.inference.layers import Floats
from charloom.inference.network import Integers, Network, State
from charloom.inference.sampling import NO_CHOICE, Ids
from charloom.kernels import thread_count

if TYPE_CHECKING:
    from charloom.inference.backend import Numbers, Rules

PROMPT_SECONDS = 0.05
"""A long prompt is read in pieces of so long, so that Ctrl-C need not wait for its end."""


def fits(network: Network) -> bool:
    """Whether the kernels can write this network as NumPy would: they know float32 alone.

    Their sigmoid and tanh have a value for NaN too, so a network that diverged is left to NumPy, which says so.
    """
    return network.dtype == np.float32 and all(map(_finite, network.parameters.values()))


class NativeWriter:
    """A network packed for the kernels; `charloom.inference.backend.Writer` says what its methods do.

    Args:
        module: a variant of the kernels.
        network: of finite float32 numbers.
        precision: `fp32`, `bf16` or `int8`.
        threads: how many to use at most, None being all cores; the text does not depend on it.
        tiles: whether AMX may multiply where there are many texts; nor does it depend on that.
    """

    def __init__(
        self, module: ModuleType, network: Network, precision: str, threads: int | None = None, tiles: bool = False
    ) -> None:
        made = network.architecture
        self._threads = thread_count(threads)
        self._dtype = network.dtype
        self._tokens = made.vocabulary_size
        self._writer = module.Writer(
            cell=made.nonlinearity if made.cell == "rnn" else made.cell,
            precision=precision,
            tiles=tiles,
            layers=[_layer(network, number) for number in range(made.layers)],
            head=network.parameters["head.weight"],
            head_bias=network.parameters["head.bias"],
            entries=None if network.tabled else network.features_VE,
            reset=-1 if network.reset_id is None else network.reset_id,
        )

    def limited(self, threads: int | None) -> NativeWriter:
        """See `Writer.limited`; what is packed is shared."""
        other = copy(self)
        other._threads = thread_count(threads)
        return other

    def read(self, ids_T: Integers, state: State) -> State:
        """See `Writer.read`."""
        h_LBH, c_LBH = _copies(state)
        done = 0
        while done < len(ids_T):
            ids_BS = ids_T[None, done:].astype(np.int64)
            done += self._writer.read(h_LBH, c_LBH, ids_BS, None, PROMPT_SECONDS, self._threads)
        return _state(h_LBH, c_LBH, state)

    def logits(self, ids_BS: Integers, state: State) -> tuple[Floats, State]:
        """See `Writer.logits`."""
        h_LBH, c_LBH = _copies(state)
        logits_BSV = np.empty((*ids_BS.shape, self._tokens), self._dtype)
        self._writer.read(h_LBH, c_LBH, ids_BS.astype(np.int64), logits_BSV, np.inf, self._threads)
        return logits_BSV, _state(h_LBH, c_LBH, state)

    def write(
        self, ids_B: Integers, state: State, rules: Rules, numbers: Numbers, steps: int, seconds: float
    ) -> tuple[Ids, State]:
        """See `Writer.write`."""
        chosen_BS = np.empty((len(ids_B), steps), np.int64)
        h_LBH, c_LBH = _copies(state)
        done, failed = self._writer.write(
            h_LBH,
            c_LBH,
            ids_B.astype(np.int64),
            chosen_BS,
            numbers.seed,
            np.array(numbers.sequences, np.int64),
            numbers.position,
            seconds,
            self._threads,
            **choice(rules),
        )
        if failed and done == 0:
            raise ModelError(NO_CHOICE)
        if failed:  # only up to there, so that the state is the one before the step that failed
            return self.write(ids_B, state, rules, numbers, done, np.inf)
        return chosen_BS[:, :done], _state(h_LBH, c_LBH, state)


def choice(rules: Rules) -> dict[str, Any]:
    """The rules as the kernels take them: every filter has a value that lets all through."""
    sampling = rules.sampling
    return {
        "temperature": sampling.temperature,
        "top_k": min(sampling.top_k or 0, 2**31 - 1),
        "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
        "floor": float(np.log(sampling.min_p)) if sampling.min_p else -np.inf,
        "likeliest": sampling.likeliest,
        "never": list(rules.never),
        "separator": -1 if rules.separator is None else rules.separator,
    }


def _layer(network: Network, number: int) -> tuple[Floats | None, Floats, Floats, Floats | None]:
    """A layer's weights in PyTorch's layout: input, recurrent, what each token or any gives, GRU's hidden bias."""
    layer = network.layers[number]
    bias_G, hidden_H = layer.biases
    if number > 0 or not network.tabled:
        return layer.weight_GX, layer.recurrent_GH, bias_G[None], hidden_H
    table_VG = layer.weight_GX.T if network.features_VE is None else network.features_VE @ layer.weight_GX.T
    return None, layer.recurrent_GH, np.ascontiguousarray(table_VG + bias_G), hidden_H


def _copies(state: State) -> tuple[Floats, Floats]:
    """h_LBH and c_LBH for the kernels to change."""
    return np.array(state.h_LBH, order="C"), np.array(state.memory, order="C")


def _state(h_LBH: Floats, c_LBH: Floats, like: State) -> State:
    return State(h_LBH, None if like.c_LBH is None else c_LBH)


def _finite(array: NDArray[np.floating[Any]]) -> bool:
    return bool(np.isfinite(array.min()) and np.isfinite(array.max()))
