"""The fast backend: prompts, steps and sampling in C++ (`charloom/kernels/inference/`). Twin of `numpy_backend.py`.

Shapes: B rows, S steps, T tokens of a prompt, L layers, H hidden, V vocabulary size, X a layer's input size, G gates
times H, N log-probabilities.
"""

from __future__ import annotations

from copy import copy
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.cells import Floats, Integers, merged_biases
from charloom.inference.rows import Decoded, Row, State
from charloom.inference.sampling import NGRAM_WINDOW
from charloom.inference.weights import InferenceWeights
from charloom.kernels import thread_count

READ_TOKENS = 2**16
"""Most tokens of a prompt that one call reads: each call copies and checks its tokens."""


def fits(weights: InferenceWeights) -> bool:
    """Whether the kernels compute this network as NumPy would. They accept float32 only.

    Their sigmoid and tanh return a number for NaN too. So NumPy computes a network that diverged, and reports it.
    """
    return weights.dtype == np.float32 and all(map(_finite, weights.parameters.values()))


class NativeBackend:
    """See `charloom.inference.rows.Backend`.

    Args:
        module: a variant of the kernels.
        weights: finite float32 numbers.
        precision: `fp32`, `bf16` or `int8`.
        threads: the most threads to use; None is all cores. The text does not depend on it.
        tiles: whether AMX may multiply if there are many rows. The text does not depend on it.
    """

    def __init__(
        self,
        module: ModuleType,
        weights: InferenceWeights,
        precision: str,
        threads: int | None = None,
        tiles: bool = False,
    ) -> None:
        self._module, self._architecture, self._threads = module, weights.architecture, thread_count(threads)
        sizes = weights.architecture
        self._packed = module.PackedNetwork(
            cell=(sizes.cell, sizes.variant),
            precision=precision,
            tiles=tiles,
            layers=[_layer(weights, number) for number in range(sizes.layers)],
            head=weights.parameters["head.weight"],
            head_bias=weights.parameters["head.bias"],
            features=None if weights.tabled else weights.features_VE,
            reset_id=-1 if weights.reset_id is None else weights.reset_id,
        )

    def with_threads(self, threads: int | None) -> NativeBackend:
        """See `Backend.with_threads`; the packed network is shared."""
        other = copy(self)
        other._threads = thread_count(threads)
        return other

    def initial_state(self) -> State:
        """See `Backend.initial_state`."""
        zeros_LBH = np.zeros((self._architecture.layers, 1, self._architecture.hidden), np.float32)
        return State(zeros_LBH, zeros_LBH if self._architecture.cell == "lstm" else None)

    def read(self, ids_T: Integers, state: State, seconds: float) -> tuple[int, State]:
        """See `Backend.read`."""
        batch = self._joined(state)
        count = batch.read(ids_T[None, :READ_TOKENS].astype(np.int64), None, seconds)
        return count, self._state(batch, 1)

    def logits(self, ids_BT: Integers, state: State) -> tuple[Floats, State]:
        """See `Backend.logits`."""
        batch = self._joined(state)
        logits_BTV = np.empty((*ids_BT.shape, self._architecture.vocabulary_size), np.float32)
        batch.read(np.ascontiguousarray(ids_BT, np.int64), logits_BTV, np.inf)
        return logits_BTV, self._state(batch, len(ids_BT))

    def batch(self) -> NativeBatch:
        """See `Backend.batch`."""
        return NativeBatch(self._module, self._module.DecodingBatch(self._packed, self._threads))

    def _joined(self, state: State) -> Any:
        """A batch of the kernels with these states, which generates nothing."""
        batch = self._module.DecodingBatch(self._packed, self._threads)
        row, nothing = self._module.Row(), np.empty(0, np.int64)
        for number in range(state.h_LBH.shape[1]):
            batch.join(row, *_arrays(state, number), nothing)
        return batch

    def _state(self, batch: Any, rows: int) -> State:
        """The states of the first `rows` rows."""
        shape = (rows, self._architecture.layers, self._architecture.hidden)
        h_BLH, c_BLH = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for row in range(rows):
            batch.copy_state(row, h_BLH[row], c_BLH[row])
        h_LBH, c_LBH = (np.ascontiguousarray(part.swapaxes(0, 1)) for part in (h_BLH, c_BLH))
        return State(h_LBH, c_LBH if self._architecture.cell == "lstm" else None)


class NativeBatch:
    """See `charloom.inference.rows.DecodingBatch`."""

    def __init__(self, module: ModuleType, batch: Any) -> None:
        self._module, self._batch = module, batch
        self._logprobs: list[int | None] = []  # the number that each row asks for

    def join(self, row: Row, recent: Integers, state: State) -> None:
        """See `DecodingBatch.join`."""
        self._batch.join(native_row(self._module, row, int(recent[-1])), *_arrays(state, 0), recent.astype(np.int64))
        self._logprobs.append(row.logprobs)

    def leave(self, row: int) -> None:
        """See `DecodingBatch.leave`."""
        self._batch.leave(row)
        last = self._logprobs.pop()
        if row < len(self._logprobs):
            self._logprobs[row] = last

    def decode(self, steps: int, seconds: float) -> Decoded:
        """See `DecodingBatch.decode`."""
        rows, asked = len(self._logprobs), [each for each in self._logprobs if each is not None]
        tokens_BS = np.empty((rows, steps), np.int64)
        if not asked:
            done = self._batch.decode(tokens_BS, seconds, None, None)
            return Decoded(tokens_BS[:, :done])
        logprobs, top_ids_BSN = np.empty((rows, steps, 1 + max(asked))), np.empty((rows, steps, max(asked)), np.int32)
        done = self._batch.decode(tokens_BS, seconds, logprobs, top_ids_BSN)
        return Decoded(tokens_BS[:, :done], logprobs[:, :done], top_ids_BSN[:, :done])


def native_row(module: ModuleType, row: Row, token: int) -> Any:
    """A row in the form that the kernels take. A filter that is off has the value that lets all tokens through."""
    sampling, made = row.sampling, module.SamplingParameters()
    made.temperature = sampling.temperature
    made.top_k = min(sampling.top_k or 0, 2**31 - 1)
    made.top_p = 1.0 if sampling.top_p is None else sampling.top_p
    made.min_log_p = float(np.log(sampling.min_p)) if sampling.min_p else -np.inf
    made.greedy = sampling.is_greedy
    made.repetition_penalty, made.repetition_window = sampling.repetition_penalty, sampling.repetition_window
    made.no_repeat_ngram_size, made.ngram_window = sampling.no_repeat_ngram_size or 0, NGRAM_WINDOW
    made.suppressed = list(row.suppressed)
    made.separator = -1 if row.separator_id is None else row.separator_id
    native = module.Row()
    native.sampling, native.seed, native.index, native.position = made, row.seed, row.index, row.position
    native.token, native.logprobs = token, -1 if row.logprobs is None else row.logprobs
    return native


def _layer(weights: InferenceWeights, number: int) -> tuple[Floats | None, Floats, Floats, Floats | None]:
    """A layer's weights in PyTorch's layout: input, recurrent, table, and the hidden bias of GRU's n gate.

    The table has a row of inputs for each token, or one row of biases.
    """
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weight_GX, recurrent_GH, *biases = (weights.parameters[f"rnn.{name}_l{number}"] for name in names)
    bias_G, hidden_bias_H = merged_biases(weights.architecture.cell, *biases)
    if number > 0 or not weights.tabled:
        return weight_GX, recurrent_GH, bias_G[None], hidden_bias_H
    table_VG = weight_GX.T if weights.features_VE is None else weights.features_VE @ weight_GX.T
    return None, recurrent_GH, np.ascontiguousarray(table_VG + bias_G), hidden_bias_H


def _arrays(state: State, row: int) -> tuple[Floats, Floats]:
    """h_LH and c_LH of a row. Without c, h takes its place, and nothing reads it."""
    h_LH = np.ascontiguousarray(state.h_LBH[:, row])
    return h_LH, h_LH if state.c_LBH is None else np.ascontiguousarray(state.c_LBH[:, row])


def _finite(array: NDArray[np.floating[Any]]) -> bool:
    return bool(np.isfinite(array.min()) and np.isfinite(array.max()))
