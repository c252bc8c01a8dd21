"""The engine contract on networks differentiated by hand: in NumPy (`plain.py`) or on the kernels (`native.py`).

All is float32, on the CPU. What is dropped at step s is drawn from (seed, s), so there is no random state to save.

Shapes: B texts side by side, T characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.engines.bptt import optimizers
from charloom.engines.bptt.arrays import Floats, State
from charloom.engines.bptt.dropout import draw_weights
from charloom.engines.bptt.native import Native, kernels_to_train, precision_of
from charloom.engines.bptt.network import Network, count
from charloom.engines.bptt.plain import Plain
from charloom.engines.bptt.rows import Rows
from charloom.engines.masks import generator
from charloom.engines.resume import checked_steps, remembered, state_parts
from charloom.kernels import thread_count

Array = NDArray[np.int64]


class BpttEngine:
    """Trains and measures one network. See `charloom.engines.engine.Engine` for the contract.

    State is (h_LBH,) or, for an LSTM, (h_LBH, c_LBH).

    Args:
        architecture: of the network.
        settings: of training.
        dropout: the share that is dropped.
        native: whether the kernels compute, or NumPy.
        dtype: of NumPy's numbers; float64 makes it the judge of gradients.

    Raises:
        DeviceError: if the kernels are asked for and are not here, or lack the precision asked for.
    """

    def __init__(
        self,
        architecture: Architecture,
        settings: TrainingSettings,
        dropout: float = 0.0,
        native: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self._settings, self._dropout = settings, dropout
        self._dtype = np.dtype(dtype)
        self._parameters: dict[str, Floats] = {n: np.zeros(s, dtype) for n, s in architecture.shapes.items()}
        self._network = Network(architecture, self._parameters)
        self._steps = 0
        self._memories = self._fresh_memories()
        self._threads = thread_count(settings.threads)
        self._compute = self._kernels() if native else Plain(self._network, self._threads)

    def _kernels(self) -> Native:
        kernels = kernels_to_train()
        architecture = self._network.architecture
        precision = precision_of(self._settings.precision, architecture.cell, kernels)
        return Native(architecture, self._parameters, precision, self._threads, kernels)

    @property
    def description(self) -> str:
        """What computes, precision and threads in a few words."""
        return f"{self._compute.description}, {self._threads} thread{'s' * (self._threads > 1)}"

    def step(
        self, inputs_BT: Array, targets_BT: Array, state: State | None, learning_rate: float
    ) -> tuple[float, int, State]:
        """One step of training: (sum of nats over the targets, number of targets, state after it)."""
        masks, targets = None, count(targets_BT)
        random = generator(self._settings.seed, self._steps)
        dropped = draw_weights(self._parameters, self._settings.weight_drop, random)
        if self._dropout:
            masks = self._network.draw_masks(targets_BT, self._dropout, random, self._settings.dropout_mask == "locked")
        batch = Rows(inputs_BT, targets_BT, state, masks)
        nats, gradients, state = self._compute.gradients(batch, 1 / max(1, targets), dropped)
        if not self._steps:
            self._memories = self._fresh_memories(steps=1)
        self._compute.update(gradients, self._memories, learning_rate, self._settings)
        self._steps += 1
        return nats, targets, state

    def score(self, inputs_BT: Array, targets_BT: Array, state: State | None) -> tuple[float, int, int, State]:
        """Measures without learning: (sum of nats, number of targets, how many were the top guess, state after it)."""
        nats, correct, state = self._compute.measure(inputs_BT, targets_BT, state)
        return nats, count(targets_BT), correct, state

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """A copy of all parameters under their names on disk."""
        return {name: value.astype(np.float32) for name, value in self._parameters.items()}

    def load(self, parameters: Mapping[str, NDArray[Any]]) -> None:
        """Takes over parameters; what the optimizer remembers stays."""
        for name, value in self._parameters.items():
            value[...] = parameters[name]

    def snapshot(self, state: State | None) -> dict[str, NDArray[Any]]:
        """What the optimizer remembers of each parameter, the count of steps, and the state."""
        arrays: dict[str, NDArray[Any]] = {"steps": np.array(self._steps)}
        for name, memory in self._memories.items():
            arrays |= {f"optimizer.{name}.{key}": value.copy() for key, value in memory.items()}
        return arrays | {f"state.{index}": part.copy() for index, part in enumerate(state or ())}

    def restore(self, arrays: Mapping[str, NDArray[Any]], batch: int) -> State | None:
        """Takes over what `snapshot` gave and returns the state that was in it.

        batch: texts of the next step, which must be the state's; 0 where that step begins from the zero state.

        Raises:
            ModelError: naming the array that is missing, not expected, of another shape, or not finite.
        """
        self._steps = checked_steps(arrays, self._network.architecture, self._settings, batch)
        self._memories = self._fresh_memories(self._steps)
        for name, memory in self._memories.items():
            for key, value in memory.items():
                value[...] = arrays[f"optimizer.{name}.{key}"]
        return tuple(part.astype(self._dtype) for part in state_parts(arrays, batch)) or None

    def _fresh_memories(self, steps: int = 0) -> dict[str, optimizers.Memory]:
        """Zeros for all that the optimizer remembers after so many steps. `step` is float32, as PyTorch has it."""
        keys = remembered(self._settings, steps)
        return {
            name: {k: np.zeros((), np.float32) if k == "step" else np.zeros_like(value) for k in keys}
            for name, value in self._parameters.items()
        }
