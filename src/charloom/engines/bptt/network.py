"""The network, put together from its operations: forward to the loss, and backward through time.

    ids → entry → recurrent layer → (dropout → linear → recurrent layer)* → targets' positions → dropout → head → nats

Shapes: see `arrays.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from charloom.architecture import Architecture
from charloom.data.groups import NOTHING
from charloom.engines.bptt import dropout, entry, gru, head, linear, lstm, rnn
from charloom.engines.bptt.arrays import Floats, Integers, State
from charloom.engines.bptt.recurrence import Gradients
from charloom.engines.masks import dropout_levels


class Masks(NamedTuple):
    """What dropout keeps in one step (see `masks.py`): between each two layers, and of what enters the head.

    between: [T, B, H]; head: [N, H], targets in the order of [B, T]. Locked: [1, B, H] and [B, H], for all of a text.
    """

    between: list[Floats]
    head: Floats
    locked: bool = False

    def of_targets(self, texts_N: Integers) -> Floats:
        """The head's, for targets in these texts."""
        return self.head[texts_N] if self.locked else self.head


class Passed(NamedTuple):
    """What went up from one layer to the next: h after dropout, and the mask, if any."""

    x_TBH: Floats
    mask_TBH: Floats | None


@dataclass(frozen=True, eq=False)
class Forward:
    """What `Network.forward` found: sum of nats, number of targets, how many were the top guess, and the state after.

    The rest is for `backward`, and for whoever wants to look inside: the caches of the entry, of each recurrent layer
    (gates and states of every step; see its file), of what was passed between two of them, and of the head; places_N is
    where in [T, B], as one row, the targets stand.
    """

    nats: float
    count: int
    correct: int
    state: State
    entry: entry.Cache
    layers: list[Any]
    passed: list[Passed]
    places_N: Integers
    mask_NH: Floats | None
    head: head.Cache


@dataclass(frozen=True, eq=False)
class Backward:
    """What `Network.backward` found: the gradient of every parameter, and all that came back from each recurrent layer,
    with respect to its state before the first step and to its h at every step.
    """

    parameters: dict[str, Floats]
    layers: list[Gradients]

    @property
    def state(self) -> State:
        """With respect to the state before the first step, of all layers."""
        return _stacked([layer.state for layer in self.layers])


class Network:
    """An architecture with its parameters (by the names of `architecture.shapes`), which it reads and never changes."""

    def __init__(self, architecture: Architecture, parameters: Mapping[str, Floats]) -> None:
        self.architecture, self.parameters = architecture, parameters
        self._forward, self._backward = _recurrence(architecture)

    def forward(
        self, inputs_BT: Integers, targets_BT: Integers, state: State | None = None, masks: Masks | None = None
    ) -> Forward:
        """From ids and a state to the nats of the targets and the state after; None is the zero state, or no dropout.

        Where a target is NOTHING, the head is not computed.
        """
        top_TBH, after, below, layers, passed = self._unroll(inputs_BT, state, masks)
        texts_N, times_N = np.nonzero(targets_BT != NOTHING)
        places_N = times_N * len(targets_BT) + texts_N
        mask_NH = masks.of_targets(texts_N) if masks else None
        x_NH = dropout.forward(top_TBH.reshape(-1, self.architecture.hidden)[places_N], mask_NH)
        weights = self.parameters["head.weight"], self.parameters["head.bias"]
        nats, correct, top = head.forward(x_NH, *weights, targets_BT[texts_N, times_N])
        return Forward(nats, len(places_N), correct, after, below, layers, passed, places_N, mask_NH, top)

    def _unroll(
        self, inputs_BT: Integers, state: State | None, masks: Masks | None
    ) -> tuple[Floats, State, entry.Cache, list[Any], list[Passed]]:
        """The recurrent layers: (h_TBH of the top one, state after, and the caches that `Forward` names)."""
        state = self.zero_state(len(inputs_BT)) if state is None else state
        ids_TB = np.ascontiguousarray(inputs_BT.T)
        inputs_TBG, below = entry.forward(ids_TB, self.tokens(), *self._of_inputs(0))
        states: list[State] = []
        layers: list[Any] = []
        passed: list[Passed] = []
        for n in range(self.architecture.layers):
            before = tuple(part_LBH[n] for part_LBH in state)
            h_TBH, after, cache = self._forward(inputs_TBG, before, *self._of_past(n))
            states.append(after)
            layers.append(cache)
            if n + 1 < self.architecture.layers:
                mask_TBH = masks.between[n] if masks else None
                passed.append(Passed(dropout.forward(h_TBH, mask_TBH), mask_TBH))
                inputs_TBG = linear.forward(passed[-1].x_TBH, *self._of_inputs(n + 1))
        return h_TBH, _stacked(states), below, layers, passed

    def backward(self, done: Forward, scale: float, d_state: State | None = None) -> Backward:
        """The gradients of scale times the nats; scale is 1/N where the loss is their mean.

        d_state: with respect to the state after. None is zero: what follows has no say, which is what truncates.
        """
        d_x_NH, d_head_VH, d_head_V = head.backward(scale, done.head)
        found = {"head.weight": d_head_VH, "head.bias": d_head_V}
        d_h_TBH = np.zeros((*done.entry.places_TB.shape, self.architecture.hidden), d_x_NH.dtype)
        d_h_TBH.reshape(-1, self.architecture.hidden)[done.places_N] = dropout.backward(d_x_NH, done.mask_NH)
        layers: list[Gradients] = []
        for n in reversed(range(self.architecture.layers)):
            d_after = None if d_state is None else tuple(part_LBH[n] for part_LBH in d_state)
            d = self._backward(d_h_TBH, d_after, done.layers[n])
            layers.insert(0, d)
            if n > 0:
                x_TBH, mask_TBH = done.passed[n - 1]
                d_x_TBH, d_weight_GX, d_bias_G = linear.backward(d.inputs_TBG, x_TBH, self._of_inputs(n)[0])
                d_h_TBH = dropout.backward(d_x_TBH, mask_TBH)
            else:
                d_features_VE, d_weight_GX, d_bias_G = entry.backward(d.inputs_TBG, done.entry)
            found |= {f"rnn.weight_ih_l{n}": d_weight_GX, f"rnn.bias_ih_l{n}": d_bias_G}
            found |= {f"rnn.weight_hh_l{n}": d.weight_GH, f"rnn.bias_hh_l{n}": d.bias_G}
        if self.architecture.input == "embedding":
            assert d_features_VE is not None
            found["embedding.weight"] = d_features_VE
        return Backward({name: found[name] for name in self.parameters}, layers)

    def draw_masks(
        self, targets_BT: Integers, share: float, random: np.random.Generator, locked: bool = False
    ) -> Masks:
        """Dropout's masks for a batch: first those between the layers, from the bottom up and in the order of
        [T, B, H], then the head's, in the order of its targets in [B, T].
        """
        layers, hidden, dtype = self.architecture.layers, self.architecture.hidden, self.parameters["head.bias"].dtype
        (B, T), N = targets_BT.shape, count(targets_BT)
        between = [
            dropout_levels(random, (1 if locked else T, B, hidden), share).mask(dtype) for _ in range(layers - 1)
        ]
        return Masks(between, dropout_levels(random, (B if locked else N, hidden), share).mask(dtype), locked)

    def tokens(self) -> Floats | None:
        """What each token enters as: features_VE, its embedding or its index/V; None is one-hot."""
        if self.architecture.input == "onehot":
            return None
        if self.architecture.input == "embedding":
            return self.parameters["embedding.weight"]
        dtype = self.parameters["head.bias"].dtype
        return (
            np.arange(self.architecture.vocabulary_size, dtype=dtype) / dtype.type(self.architecture.vocabulary_size)
        )[:, None]

    def zero_state(self, batch: int) -> State:
        """The state before anything was read: (h_LBH,) or, for an LSTM, (h_LBH, c_LBH)."""
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
    """How many targets there are."""
    return int((targets_BT != NOTHING).sum())


def _recurrence(
    architecture: Architecture,
) -> tuple[
    Callable[[Floats, State, Floats, Floats], tuple[Floats, State, Any]],
    Callable[[Floats, State | None, Any], Gradients],
]:
    """forward and backward of the architecture's cell."""
    if architecture.cell == "lstm":
        return lstm.forward, lstm.backward
    if architecture.cell == "gru":
        return gru.forward, gru.backward
    return partial(rnn.forward, nonlinearity=architecture.nonlinearity), rnn.backward


def _stacked(states: list[State]) -> State:
    """The states of layers, bottom up, as one: [L, B, H] of each part."""
    return tuple(np.stack(parts) for parts in zip(*states, strict=True))
