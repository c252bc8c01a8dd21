"""The network: the forward pass from ids to the loss, and the backward pass through time.

    ids → input layer → recurrent layer → (dropout → linear → recurrent layer)* → target positions → dropout → head →
    nats

Shapes: see `arrays.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from charloom.architecture import Architecture
from charloom.cells import Booleans, Floats, Integers, input_features
from charloom.data.groups import NOTHING
from charloom.engines.masks import dropout_levels
from charloom.engines.numpy import dropout, gru, head, input_layer, linear, lstm, rnn
from charloom.engines.numpy.arrays import CpuState
from charloom.engines.numpy.recurrence import LayerGradients


class Masks(NamedTuple):
    """The dropout masks of one step (see `masks.py`): one between each two layers, and one before the head.

    between: [T, B, H]; head: [N, H], targets in the order of [B, T]. Locked masks are [1, B, H] and [B, H]: one mask
    for all time steps.
    """

    between: list[Floats]
    head: Floats
    locked: bool = False

    def of_targets(self, rows_N: Integers) -> Floats:
        """The head's mask for the targets of these rows."""
        return self.head[rows_N] if self.locked else self.head


class DropoutActivations(NamedTuple):
    """The saved activations between two layers: h after dropout, and the mask, if any."""

    x_TBH: Floats
    mask_TBH: Floats | None


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """The result of `NumpyNetwork.forward`: the nats of each target, whether it was the top guess, and the state after.

    The other fields are saved activations: of the input layer, of each recurrent layer (gates and states of every
    step), of dropout between layers, and of the head. positions_N: the positions of the targets in [T, B], flattened.
    """

    nats_N: Floats
    correct_N: Booleans
    state: CpuState
    input_layer: input_layer.InputActivations
    layers: list[Any]
    between: list[DropoutActivations]
    positions_N: Integers
    mask_NH: Floats | None
    head: head.LossActivations

    @property
    def nats(self) -> float:
        """The sum over the targets."""
        return float(np.add.reduce(self.nats_N, dtype=np.float64))


@dataclass(frozen=True, eq=False)
class BackwardPass:
    """The result of `NumpyNetwork.backward`: the gradient of every parameter, and each recurrent layer's gradients."""

    parameters: dict[str, Floats]
    layers: list[LayerGradients]

    @property
    def state(self) -> CpuState:
        """The gradient with respect to the state of all layers before the first step."""
        return _stacked([layer.state for layer in self.layers])


class NumpyNetwork:
    """An architecture with its parameters, by the names of `architecture.shapes`. It does not change them."""

    def __init__(self, architecture: Architecture, parameters: Mapping[str, Floats]) -> None:
        self.architecture, self.parameters = architecture, parameters
        self._forward, self._backward = _recurrence(architecture)

    def forward(
        self, inputs_BT: Integers, targets_BT: Integers, state: CpuState | None = None, masks: Masks | None = None
    ) -> ForwardPass:
        """From ids and a state to the nats of the targets and the state after. None is the zero state, or no dropout.

        The head is not computed at positions whose target is NOTHING.
        """
        top_TBH, after, first, layers, between = self._unroll(inputs_BT, state, masks)
        rows_N, times_N = np.nonzero(targets_BT != NOTHING)
        positions_N = times_N * len(targets_BT) + rows_N
        mask_NH = masks.of_targets(rows_N) if masks else None
        x_NH = dropout.forward(top_TBH.reshape(-1, self.architecture.hidden)[positions_N], mask_NH)
        weights = self.parameters["head.weight"], self.parameters["head.bias"]
        nats_N, correct_N, last = head.forward(x_NH, *weights, targets_BT[rows_N, times_N])
        return ForwardPass(
            nats_N=nats_N,
            correct_N=correct_N,
            state=after,
            input_layer=first,
            layers=layers,
            between=between,
            positions_N=positions_N,
            mask_NH=mask_NH,
            head=last,
        )

    def _unroll(
        self, inputs_BT: Integers, state: CpuState | None, masks: Masks | None
    ) -> tuple[Floats, CpuState, input_layer.InputActivations, list[Any], list[DropoutActivations]]:
        """The recurrent layers: (h_TBH of the top one, state after, and the activations that `ForwardPass` names)."""
        state = self.zero_state(len(inputs_BT)) if state is None else state
        ids_TB = np.ascontiguousarray(inputs_BT.T)
        features_VE = input_features(self.architecture, self.parameters)
        inputs_TBG, first = input_layer.forward(ids_TB, features_VE, *self._of_inputs(0))
        states: list[CpuState] = []
        layers: list[Any] = []
        between: list[DropoutActivations] = []
        for n in range(self.architecture.layers):
            before = tuple(part_LBH[n] for part_LBH in state)
            h_TBH, after, saved = self._forward(inputs_TBG, before, *self._of_past(n))
            states.append(after)
            layers.append(saved)
            if n + 1 < self.architecture.layers:
                mask_TBH = masks.between[n] if masks else None
                between.append(DropoutActivations(dropout.forward(h_TBH, mask_TBH), mask_TBH))
                inputs_TBG = linear.forward(between[-1].x_TBH, *self._of_inputs(n + 1))
        return h_TBH, _stacked(states), first, layers, between

    def backward(self, saved: ForwardPass, d_state: CpuState | None = None) -> BackwardPass:
        """The gradients of the sum of nats.

        d_state: the gradient with respect to the state after. None is zero: truncated BPTT.
        """
        d_x_NH, d_head_VH, d_head_V = head.backward(saved.head)
        found = {"head.weight": d_head_VH, "head.bias": d_head_V}
        d_h_TBH = np.zeros((*saved.input_layer.positions_TB.shape, self.architecture.hidden), d_x_NH.dtype)
        d_h_TBH.reshape(-1, self.architecture.hidden)[saved.positions_N] = dropout.backward(d_x_NH, saved.mask_NH)
        layers: list[LayerGradients] = []
        for n in reversed(range(self.architecture.layers)):
            d_after = None if d_state is None else tuple(part_LBH[n] for part_LBH in d_state)
            d = self._backward(d_h_TBH, d_after, saved.layers[n])
            layers.insert(0, d)
            if n > 0:
                x_TBH, mask_TBH = saved.between[n - 1]
                d_x_TBH, d_weight_GX, d_bias_G = linear.backward(d.inputs_TBG, x_TBH, self._of_inputs(n)[0])
                d_h_TBH = dropout.backward(d_x_TBH, mask_TBH)
            else:
                d_features_VE, d_weight_GX, d_bias_G = input_layer.backward(d.inputs_TBG, saved.input_layer)
            found |= {f"rnn.weight_ih_l{n}": d_weight_GX, f"rnn.bias_ih_l{n}": d_bias_G}
            found |= {f"rnn.weight_hh_l{n}": d.weight_GH, f"rnn.bias_hh_l{n}": d.bias_G}
        if self.architecture.input == "embedding":
            assert d_features_VE is not None
            found["embedding.weight"] = d_features_VE
        return BackwardPass({name: found[name] for name in self.parameters}, layers)

    def dropout_masks(
        self, targets_BT: Integers, share: float, random: np.random.Generator, locked: bool = False
    ) -> Masks:
        """Dropout masks for a batch, drawn in this order: between the layers from the bottom up, then the head's."""
        layers, hidden, dtype = self.architecture.layers, self.architecture.hidden, self.parameters["head.bias"].dtype
        (B, T), N = targets_BT.shape, count(targets_BT)
        between = [
            dropout_levels(random, (1 if locked else T, B, hidden), share).mask(dtype) for _ in range(layers - 1)
        ]
        return Masks(between, dropout_levels(random, (B if locked else N, hidden), share).mask(dtype), locked)

    def zero_state(self, batch: int) -> CpuState:
        """The state at the start of a sequence: (h_LBH,) or, for an LSTM, (h_LBH, c_LBH)."""
        shape = (self.architecture.layers, batch, self.architecture.hidden)
        parts = 2 if self.architecture.cell == "lstm" else 1
        return tuple(np.zeros(shape, self.parameters["head.bias"].dtype) for _ in range(parts))

    def _of_inputs(self, n: int) -> tuple[Floats, Floats]:
        """W and b of layer n."""
        return self.parameters[f"rnn.weight_ih_l{n}"], self.parameters[f"rnn.bias_ih_l{n}"]

    def _of_past(self, n: int) -> tuple[Floats, Floats]:
        """U and b' of layer n."""
        return self.parameters[f"rnn.weight_hh_l{n}"], self.parameters[f"rnn.bias_hh_l{n}"]


def count(targets_BT: Integers) -> int:
    """The number of targets."""
    return int((targets_BT != NOTHING).sum())


def _recurrence(
    architecture: Architecture,
) -> tuple[
    Callable[[Floats, CpuState, Floats, Floats], tuple[Floats, CpuState, Any]],
    Callable[[Floats, CpuState | None, Any], LayerGradients],
]:
    """forward and backward of the architecture's cell."""
    if architecture.cell == "lstm":
        return partial(lstm.forward, capped=architecture.variant == "capped"), lstm.backward
    if architecture.cell == "gru":
        return gru.forward, gru.backward
    return partial(rnn.forward, nonlinearity=architecture.nonlinearity), rnn.backward


def _stacked(states: list[CpuState]) -> CpuState:
    """The states of the layers, from the bottom up, as one state: [L, B, H] for each part."""
    return tuple(np.stack(parts) for parts in zip(*states, strict=True))
