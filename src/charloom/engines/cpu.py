"""The engine contract on the CPU. `NumpyArithmetic` or `NativeArithmetic` computes; everything else is here.

Parameters, state and optimizer memory are NumPy arrays in float32. The dropout levels of step s are drawn from (seed,
s), so there is no random state to save.

Shapes: B sequences, T time steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charloom.architecture import Architecture
from charloom.cells import Booleans, Floats
from charloom.config import TrainingSettings
from charloom.data.groups import NOTHING
from charloom.engines.engine import Array, Engine, EngineChoice
from charloom.engines.masks import dropout_stream
from charloom.engines.native import NativeArithmetic, kernels_to_train
from charloom.engines.numpy import optimizers
from charloom.engines.numpy.arithmetic import NumpyArithmetic
from charloom.engines.numpy.arrays import CpuState
from charloom.engines.numpy.dropout import weight_drop_levels
from charloom.engines.numpy.network import NumpyNetwork, count
from charloom.engines.numpy.rows import Rows
from charloom.engines.resume import checked_steps, memory_keys, state_parts
from charloom.kernels import thread_count


class CpuEngine(Engine):
    """Trains and measures one network. See `charloom.engines.engine.Engine` for the contract.

    State is (h_LBH,) or, for an LSTM, (h_LBH, c_LBH).

    Args:
        choice: the result of `choose_engine`: NumPy or the kernels, and the precision.
        architecture: the network's.
        settings: the settings of training.
        dtype: NumPy's dtype; float64 for checks of gradients.
    """

    def __init__(
        self,
        choice: EngineChoice,
        architecture: Architecture,
        settings: TrainingSettings,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self._settings = settings
        self._dtype = np.dtype(dtype)
        self._parameters: dict[str, Floats] = {n: np.zeros(s, dtype) for n, s in architecture.shapes.items()}
        self._network = NumpyNetwork(architecture, self._parameters)
        self._gradients: Mapping[str, Floats] = {}
        self._steps = 0
        self._memories = self._fresh_memories()
        self._threads = thread_count(settings.threads)
        self._arithmetic: NumpyArithmetic | NativeArithmetic
        if choice.engine == "native":
            kernels = kernels_to_train()
            self._arithmetic = NativeArithmetic(
                architecture, self._parameters, choice.precision, self._threads, kernels
            )
        else:
            self._arithmetic = NumpyArithmetic(self._network, self._threads)

    @property
    def description(self) -> str:
        """Engine, precision and threads in a few words."""
        return f"{self._arithmetic.description}, {self._threads} thread{'s' * (self._threads > 1)}"

    @property
    def gradient_arrays(self) -> Mapping[str, Floats]:
        """The sums of the last `gradients`, which `update` reads."""
        return self._gradients

    def gradients(
        self, inputs_BT: Array, targets_BT: Array, state: CpuState | None, rows: slice | None = None
    ) -> tuple[float, int, CpuState]:
        """The first half of a step: (sum of nats over the targets, number of targets, state after the step).

        rows: the only rows to compute; see `Engine.gradients`.
        """
        masks = None
        random = dropout_stream(self._settings.seed, self._steps)
        dropped = weight_drop_levels(self._parameters, self._settings.weight_drop, random)
        if self._settings.dropout:
            locked = self._settings.dropout_mask == "locked"
            masks = self._network.dropout_masks(targets_BT, self._settings.dropout, random, locked)
        batch = Rows(inputs_BT, targets_BT, None, masks)
        if rows is not None:
            batch = batch.cut(rows.start, rows.stop)
        if not len(batch.inputs_BT):
            self._gradients = {name: np.zeros_like(value) for name, value in self._parameters.items()}
            return 0.0, 0, self._network.zero_state(0)
        nats, self._gradients, state = self._arithmetic.gradients(batch._replace(state=state), dropped)
        return nats, count(batch.targets_BT), state

    def update(self, learning_rate: float, count: int) -> None:
        """The second half: one step of gradient descent with the clipped mean over `count` targets."""
        if not self._steps:
            self._memories = self._fresh_memories(steps=1)
        self._arithmetic.update(self._gradients, max(1, count), self._memories, learning_rate, self._settings)
        self._steps += 1

    def score(self, inputs_BT: Array, targets_BT: Array, state: CpuState | None) -> tuple[Floats, Booleans, CpuState]:
        """Loss without learning: (nats of each target, whether it was the top guess, state after the step).

        Scores a chunk of steps at a time, because the activations of a long sequence need much memory.
        """
        wanted_BT = targets_BT != NOTHING
        nats_BT, correct_BT = np.empty(targets_BT.shape), np.empty(targets_BT.shape, np.bool_)
        for start in range(0, targets_BT.shape[1], self._arithmetic.CHUNK):
            steps = np.s_[:, start : start + self._arithmetic.CHUNK]
            nats_N, correct_N, state = self._arithmetic.measure(Rows(inputs_BT[steps], targets_BT[steps], state, None))
            nats_BT[steps][wanted_BT[steps]] = nats_N
            correct_BT[steps][wanted_BT[steps]] = correct_N
        assert state is not None
        return nats_BT[wanted_BT], correct_BT[wanted_BT], state

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """A copy of all parameters under their names on disk."""
        return {name: value.astype(np.float32) for name, value in self._parameters.items()}

    def load(self, parameters: Mapping[str, NDArray[Any]]) -> None:
        """Replaces the parameters. The optimizer's memory does not change."""
        for name, value in self._parameters.items():
            value[...] = parameters[name]

    def snapshot(self, state: CpuState | None) -> dict[str, NDArray[Any]]:
        """The optimizer's memory of each parameter, the number of steps, and the state."""
        arrays: dict[str, NDArray[Any]] = {"steps": np.array(self._steps)}
        for name, memory in self._memories.items():
            arrays |= {f"optimizer.{name}.{key}": value.copy() for key, value in memory.items()}
        return arrays | {f"state.{index}": part.copy() for index, part in enumerate(state or ())}

    def restore(self, arrays: Mapping[str, NDArray[Any]], batch: int) -> CpuState | None:
        """Restores what `snapshot` returned, and returns its state.

        batch: rows of the next step, which must equal those of the state; 0 if that step begins from the zero state.

        Raises:
            ModelError: names an array that is missing, not expected, of another shape, or not finite.
        """
        self._steps = checked_steps(arrays, self._network.architecture, self._settings, batch)
        self._memories = self._fresh_memories(self._steps)
        for name, memory in self._memories.items():
            for key, value in memory.items():
                value[...] = arrays[f"optimizer.{name}.{key}"]
        return tuple(part.astype(self._dtype) for part in state_parts(arrays, batch)) or None

    def _fresh_memories(self, steps: int = 0) -> dict[str, optimizers.Memory]:
        """The optimizer's memory after `steps` steps, filled with zeros. `step` is float32, as in PyTorch."""
        keys = memory_keys(self._settings, steps)
        return {
            name: {k: np.zeros((), np.float32) if k == "step" else np.zeros_like(value) for k in keys}
            for name, value in self._parameters.items()
        }
