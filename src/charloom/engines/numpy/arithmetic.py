"""The arithmetic of a training step in NumPy. `NativeArithmetic` has the same methods on the kernels.

Shapes: see `arrays.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from charloom.cells import Floats, Integers
from charloom.config import TrainingSettings
from charloom.engines.masks import NOTHING_DROPPED, DropoutLevels
from charloom.engines.numpy import clip, dropout, optimizers
from charloom.engines.numpy.arrays import CpuState
from charloom.engines.numpy.network import NumpyNetwork
from charloom.engines.numpy.rows import Rows, RowThreads, joined_states, summed_gradients

CHUNK = 64  # steps scored at once: without a backward pass, no activation of an earlier chunk is needed


class NumpyArithmetic:
    """The gradients of a batch, its loss, and the optimizer's step, which changes the network's parameters in place."""

    def __init__(self, network: NumpyNetwork, threads: int) -> None:
        self._network = network
        self._threads = RowThreads(threads)
        self._libraries = ThreadpoolController()

    @property
    def description(self) -> str:
        """Engine and precision in a few words."""
        return f"numpy {np.__version__} by hand, {self._network.parameters['head.bias'].dtype}"

    def gradients(
        self, batch: Rows, scale: float, dropped: Mapping[str, DropoutLevels] = NOTHING_DROPPED
    ) -> tuple[float, dict[str, Floats], CpuState]:
        """(sum of nats, gradients of scale times it, state after), without the weights that are dropped."""
        weights = self._network.parameters
        masks = {name: levels.mask(weights[name].dtype) for name, levels in dropped.items()}
        used = {name: dropout.forward(value, masks.get(name)) for name, value in weights.items()}
        network = NumpyNetwork(self._network.architecture, used)

        def work(rows: Rows) -> tuple[float, dict[str, Floats], CpuState]:
            passed = network.forward(*rows)
            return passed.nats, network.backward(passed, scale).parameters, passed.state

        with self._limited():
            nats, gradients, states = zip(*self._threads.share(work, batch), strict=True)
            total = summed_gradients(list(gradients))
            masked = {name: dropout.backward(total[name], masks.get(name)) for name in total}
            return sum(nats), masked, joined_states(list(states))

    def measure(self, inputs_BT: Integers, targets_BT: Integers, state: CpuState | None) -> tuple[float, int, CpuState]:
        """(sum of nats, top guesses, state after), without learning."""
        with self._limited():
            parts = self._threads.share(self._measure, Rows(inputs_BT, targets_BT, state, None))
        nats, correct, states = zip(*parts, strict=True)
        return sum(nats), sum(correct), joined_states(list(states))

    def _measure(self, rows: Rows) -> tuple[float, int, CpuState]:
        """(sum of nats, top guesses, state after) of some rows, one chunk of steps after the other."""
        nats, correct, state = 0.0, 0, rows.state
        for start in range(0, rows.inputs_BT.shape[1], CHUNK):
            ids_BT, targets_BT = (of_BT[:, start : start + CHUNK] for of_BT in (rows.inputs_BT, rows.targets_BT))
            done = self._network.forward(ids_BT, targets_BT, state)
            nats, correct, state = nats + done.nats, correct + done.correct, done.state
        assert state is not None
        return nats, correct, state

    def update(
        self,
        gradients: Mapping[str, Floats],
        memories: Mapping[str, optimizers.Memory],
        rate: float,
        settings: TrainingSettings,
    ) -> None:
        """Clips, and takes one step of gradient descent; uses the gradients up."""
        with self._limited():
            if settings.clip_value:
                clip.by_value(gradients.values(), settings.clip_value)
            if settings.clip:
                clip.by_norm(gradients.values(), settings.clip)
            optimizers.step(self._network.parameters, gradients, memories, rate, settings)

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """One BLAS thread (`rows.py` says why), and no overflow warnings: the trainer checks the loss."""
        with self._libraries.limit(limits=1, user_api="blas"), np.errstate(all="ignore"):
            yield
