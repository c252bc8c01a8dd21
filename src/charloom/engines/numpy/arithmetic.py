"""The arithmetic of a training step in NumPy. `NativeArithmetic` has the same methods with the kernels.

Shapes: see `arrays.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from charloom.cells import Booleans, Floats
from charloom.config import TrainingSettings
from charloom.engines.masks import NOTHING_DROPPED, DropoutLevels
from charloom.engines.numpy import clip, dropout, optimizers
from charloom.engines.numpy.arrays import CpuState
from charloom.engines.numpy.network import NumpyNetwork
from charloom.engines.numpy.rows import Rows, RowThreads, joined_states, summed_gradients


class NumpyArithmetic:
    """The gradients of a batch, its loss, and the optimizer's step, which changes the network's parameters in place."""

    CHUNK = 64  # steps scored in one call: without a backward pass, activations of earlier chunks are not needed

    def __init__(self, network: NumpyNetwork, threads: int) -> None:
        self._network = network
        self._threads = RowThreads(threads)
        self._libraries = ThreadpoolController()

    @property
    def description(self) -> str:
        """Engine and precision in a few words."""
        return f"numpy {np.__version__} by hand, {self._network.parameters['head.bias'].dtype}"

    def gradients(
        self, batch: Rows, dropped: Mapping[str, DropoutLevels] = NOTHING_DROPPED
    ) -> tuple[float, dict[str, Floats], CpuState]:
        """(sum of nats, its gradients, state after). Weights in `dropped` are dropped."""
        weights = self._network.parameters
        masks = {name: levels.mask(weights[name].dtype) for name, levels in dropped.items()}
        used = {name: dropout.forward(value, masks.get(name)) for name, value in weights.items()}
        network = NumpyNetwork(self._network.architecture, used)

        def work(rows: Rows) -> tuple[float, dict[str, Floats], CpuState]:
            passed = network.forward(*rows)
            return passed.nats, network.backward(passed).parameters, passed.state

        with self._limited():
            nats, gradients, states = zip(*self._threads.share(work, batch), strict=True)
            total = summed_gradients(list(gradients))
            masked = {name: dropout.backward(total[name], masks.get(name)) for name in total}
            return sum(nats), masked, joined_states(list(states))

    def measure(self, batch: Rows) -> tuple[Floats, Booleans, CpuState]:
        """(nats of each target, whether it was the top guess, state after), without learning."""

        def work(rows: Rows) -> tuple[Floats, Booleans, CpuState]:
            passed = self._network.forward(*rows)
            return passed.nats_N, passed.correct_N, passed.state

        with self._limited():
            nats, correct, states = zip(*self._threads.share(work, batch), strict=True)
        return np.concatenate(nats), np.concatenate(correct), joined_states(list(states))

    def update(
        self,
        gradients: Mapping[str, Floats],
        count: int,
        memories: Mapping[str, optimizers.Memory],
        rate: float,
        settings: TrainingSettings,
    ) -> None:
        """One step of gradient descent with the clipped mean over `count` targets. Makes the gradients invalid."""
        with self._limited():
            clip.to_mean(gradients.values(), count, settings.clip_value, settings.clip)
            optimizers.step(self._network.parameters, gradients, memories, rate, settings)

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """One BLAS thread (`rows.py` says why), and no overflow warnings: the trainer checks the loss."""
        with self._libraries.limit(limits=1, user_api="blas"), np.errstate(all="ignore"):
            yield
