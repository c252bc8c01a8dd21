"""The forward pass in NumPy: from token ids and a state to logits and the next state.

The first layer's input product and biases depend only on the token. So they become a table with one row for each token,
and a step begins with a gather, for every kind of input.

Independent records: the separator, `reset_id`, is always read from the zero state.

A row of `step` is bit for bit the same in every batch. `rows_times` explains how, and the cost.

Shapes: B sequences, T steps, V vocabulary size, E input size, H hidden, L layers, G gates times H
(1 rnn, 3 gru, 4 lstm).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

import numpy as np

from charloom.cells import Floats, Integers
from charloom.inference.layers import LAYERS, rows_times
from charloom.inference.rows import State
from charloom.inference.weights import InferenceWeights

BLOCK_LIMIT = 2**20
"""Most numbers in one tensor while a sequence is read: 4 MiB in float32, about the size of a second-level cache."""


class InferenceNetwork:
    """A network for inference. Nothing in it changes, so threads may share it.

    Args:
        weights: the parameters.
    """

    def __init__(self, weights: InferenceWeights) -> None:
        architecture, parameters = weights.architecture, weights.parameters
        assert {name: parameter.shape for name, parameter in parameters.items()} == architecture.shapes
        self.architecture, self._weights, self.dtype = architecture, weights, weights.dtype
        cell = LAYERS[architecture.cell]
        self.layers = [cell(architecture, parameters, n) for n in range(architecture.layers)]
        self._head_V = parameters["head.bias"]
        self._widest = max(architecture.vocabulary_size, len(self.layers[0].weight_GX))

    @cached_property
    def _head_HV(self) -> Floats:
        return np.ascontiguousarray(self._weights.parameters["head.weight"].T)

    @cached_property
    def _table_VG(self) -> Floats:
        """The first layer's input products for every token."""
        first = self.layers[0]
        return (
            first.weight_XG + first.bias_G
            if self._weights.features_VE is None
            else first.inputs(self._weights.features_VE)
        )

    def initial_state(self, batch: int) -> State:
        """The zero state of `batch` sequences."""
        zeros_LBH = np.zeros((self.architecture.layers, batch, self.architecture.hidden), self.dtype)
        return self._state(zeros_LBH, zeros_LBH)

    def step(self, ids_B: Integers, state: State) -> tuple[Floats, State]:
        """One step with one token of each sequence.

        Returns:
            logits_BV of the next token, in a new array, and the next state.
        """
        state = self._before(ids_B, state)
        c_LBH = state.memory
        h_out, c_out = np.empty_like(state.h_LBH), np.empty_like(c_LBH)
        inputs_BG = self._first(ids_B)
        for n, layer in enumerate(self.layers):
            if n > 0:
                inputs_BG = rows_times(h_out[n - 1], layer.weight_XG)
                inputs_BG += layer.bias_G
            layer.advance(inputs_BG, state.h_LBH[n], c_LBH[n], h_out[n], c_out[n])
        logits_BV = rows_times(h_out[-1], self._head_HV)
        logits_BV += self._head_V
        return logits_BV, self._state(h_out, c_out)

    def sequence(self, ids_BT: Integers, state: State) -> tuple[Floats, State]:
        """Many tokens in one call: logits_BTV after each token, and the state after the last."""
        logits_BTV = np.empty((*ids_BT.shape, self.architecture.vocabulary_size), self.dtype)
        done = 0
        for top_TBH, after in self._hidden(ids_BT, state):
            logits_BTV[:, done : done + len(top_TBH)] = (top_TBH @ self._head_HV + self._head_V).swapaxes(0, 1)
            done, state = done + len(top_TBH), after
        return logits_BTV, state

    def states(self, ids_BT: Integers, state: State) -> Iterator[tuple[int, State]]:
        """Reads these tokens block by block, without logits: the number of steps of each block, and the state after it.

        The ends of blocks depend only on ids_BT, so reading may stop after any block.
        """
        for top_TBH, after in self._hidden(ids_BT, state):
            yield len(top_TBH), after

    def _hidden(self, ids_BT: Integers, state: State) -> Iterator[tuple[Floats, State]]:
        """The top layer's h_TBH and the state after it, block by block.

        A layer computes the input products of all steps first, as one product. Only the recurrence runs step by step.
        """
        for start, stop in pairwise(self._cuts(ids_BT)):
            state = self._before(ids_BT[:, start], state)
            c_LBH = state.memory
            h_out, c_out = np.empty_like(state.h_LBH), np.empty_like(c_LBH)
            below_TBG = self._first(ids_BT[:, start:stop].T)
            for n, layer in enumerate(self.layers):
                inputs_TBG = below_TBG if n == 0 else layer.inputs(below_TBG)
                below_TBG, c_out[n] = layer.run(inputs_TBG, state.h_LBH[n], c_LBH[n])
                h_out[n] = below_TBG[-1]
            state = self._state(h_out, c_out)
            yield below_TBG, state

    def _cuts(self, ids_BT: Integers) -> list[int]:
        """The bounds of the blocks. No block exceeds BLOCK_LIMIT, and every `reset_id` begins a block."""
        batch, length = ids_BT.shape
        steps = max(1, BLOCK_LIMIT // max(1, batch * self._widest))
        resets = (
            []
            if self._weights.reset_id is None
            else np.flatnonzero((ids_BT == self._weights.reset_id).any(axis=0)).tolist()
        )
        return sorted({*range(0, length, steps), *resets, length})

    def _before(self, ids_B: Integers, state: State) -> State:
        """The state before these tokens: zero in the rows that read `reset_id`."""
        if self._weights.reset_id is None or not (anew_B := ids_B == self._weights.reset_id).any():
            return state
        h_LBH = np.where(anew_B[:, None], 0, state.h_LBH)
        return State(h_LBH, None if state.c_LBH is None else np.where(anew_B[:, None], 0, state.c_LBH))

    def _state(self, h_LBH: Floats, c_LBH: Floats) -> State:
        return State(h_LBH, c_LBH if self.architecture.cell == "lstm" else None)

    def _first(self, ids: Integers) -> Floats:
        """The first layer's input products for ids of any shape: [...] to [..., G]."""
        if self._weights.tabled:
            return self._table_VG.take(ids, axis=0)
        assert self._weights.features_VE is not None
        first = self.layers[0]
        if ids.ndim > 1:
            return first.inputs(self._weights.features_VE[ids])
        return rows_times(self._weights.features_VE[ids], first.weight_XG) + first.bias_G
