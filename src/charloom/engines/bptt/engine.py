"""The engine contract on NumPy alone, every gradient by hand.

All is float32, on the CPU. What is dropped at step s is drawn from (seed, s), so there is no random state to save.

Shapes: B texts side by side, T characters.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.engines.bptt import clip, optimizers
from charloom.engines.bptt.arrays import Floats, State
from charloom.engines.bptt.dropout import generator
from charloom.engines.bptt.network import Network, count
from charloom.engines.bptt.rows import Crew, Rows, joined, summed
from charloom.engines.resume import checked_steps, remembered, state_parts

Array = NDArray[np.int64]

STRETCH = 64  # steps measured at once: what there is no way back through need not all be kept


class NumpyEngine:
    """Trains and measures one network. See `charloom.engines.engine.Engine` for the contract.

    State is (h_LBH,) or, for an LSTM, (h_LBH, c_LBH). dtype: float32; float64 makes it the judge of gradients.
    """

    def __init__(
        self,
        architecture: Architecture,
        settings: TrainingSettings,
        dropout: float = 0.0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self._settings, self._dropout = settings, dropout
        self._dtype = np.dtype(dtype)
        self._parameters: dict[str, Floats] = {n: np.zeros(s, dtype) for n, s in architecture.shapes.items()}
        self._network = Network(architecture, self._parameters)
        self._steps = 0
        self._memories = self._fresh_memories()
        self._threads = settings.threads or _cores()
        self._crew = Crew(self._threads)
        self._libraries = ThreadpoolController()

    @property
    def description(self) -> str:
        """Engine, precision and threads in a few words."""
        threads = f"{self._threads} thread{'s' * (self._threads > 1)}"
        return f"numpy {np.__version__} by hand, {self._dtype}, {threads}"

    def step(
        self, inputs_BT: Array, targets_BT: Array, state: State | None, learning_rate: float
    ) -> tuple[float, int, State]:
        """One step of training: (sum of nats over the targets, number of targets, state after it)."""
        with self._at_work():
            nats, gradients, state = self._gradients(inputs_BT, targets_BT, state)
            if self._settings.clip_value:
                clip.by_value(gradients.values(), self._settings.clip_value)
            if self._settings.clip:
                clip.by_norm(gradients.values(), self._settings.clip)
            if not self._steps:
                self._memories = self._fresh_memories(steps=1)
            optimizers.step(self._parameters, gradients, self._memories, learning_rate, self._settings)
        self._steps += 1
        return nats, count(targets_BT), state

    def _gradients(
        self, inputs_BT: Array, targets_BT: Array, state: State | None
    ) -> tuple[float, dict[str, Floats], State]:
        """(sum of nats, gradients of their mean, state after) of a step of training."""
        masks = None
        if self._dropout:
            masks = self._network.draw(targets_BT, self._dropout, generator(self._settings.seed, self._steps))
        scale = 1 / max(1, count(targets_BT))

        def work(rows: Rows) -> tuple[float, dict[str, Floats], State]:
            done = self._network.forward(*rows)
            return done.nats, self._network.backward(done, scale).parameters, done.state

        parts = self._crew.share(work, Rows(inputs_BT, targets_BT, state, masks))
        nats, gradients, states = zip(*parts, strict=True)
        return sum(nats), summed(list(gradients)), joined(list(states))

    def score(self, inputs_BT: Array, targets_BT: Array, state: State | None) -> tuple[float, int, int, State]:
        """Measures without learning: (sum of nats, number of targets, how many were the top guess, state after it)."""
        with self._at_work():
            parts = self._crew.share(self._measure, Rows(inputs_BT, targets_BT, state, None))
        nats, correct, states = zip(*parts, strict=True)
        return sum(nats), count(targets_BT), sum(correct), joined(list(states))

    def _measure(self, rows: Rows) -> tuple[float, int, State]:
        """(sum of nats, top guesses, state after) of some rows, a stretch of time after the other."""
        nats, correct, state = 0.0, 0, rows.state
        for start in range(0, rows.inputs_BT.shape[1], STRETCH):
            ids_BT, targets_BT = (of_BT[:, start : start + STRETCH] for of_BT in (rows.inputs_BT, rows.targets_BT))
            done = self._network.forward(ids_BT, targets_BT, state)
            nats, correct, state = nats + done.nats, correct + done.correct, done.state
        assert state is not None
        return nats, correct, state

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """One BLAS thread (`rows.py` says why), and no warning of overflow: the trainer looks at the loss."""
        with self._libraries.limit(limits=1, user_api="blas"), np.errstate(all="ignore"):
            yield

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

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> State | None:
        """Takes over what `snapshot` gave and returns the state that was in it.

        Raises:
            ModelError: naming the array that is missing, not expected, of another shape, or not finite.
        """
        self._steps = checked_steps(arrays, self._network.architecture, self._settings)
        self._memories = self._fresh_memories(self._steps)
        for name, memory in self._memories.items():
            for key, value in memory.items():
                value[...] = arrays[f"optimizer.{name}.{key}"]
        return tuple(part.astype(self._dtype) for part in state_parts(arrays)) or None

    def _fresh_memories(self, steps: int = 0) -> dict[str, optimizers.Memory]:
        """Zeros for all that the optimizer remembers after so many steps. `step` is float32, as PyTorch has it."""
        keys = remembered(self._settings, steps)
        return {
            name: {k: np.zeros((), np.float32) if k == "step" else np.zeros_like(value) for k in keys}
            for name, value in self._parameters.items()
        }


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
