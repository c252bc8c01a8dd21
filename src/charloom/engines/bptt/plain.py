"""A step's arithmetic in NumPy. `native.py` is its twin on the kernels, with the same methods.

Shapes: see `arrays.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from charloom.config import TrainingSettings
from charloom.engines.bptt import clip, dropout, optimizers
from charloom.engines.bptt.arrays import Floats, Integers, State
from charloom.engines.bptt.network import Network
from charloom.engines.bptt.rows import Rows, RowThreads, joined, summed
from charloom.engines.masks import NOTHING_DROPPED, DropoutLevels

STRETCH = 64  # steps measured at once: what there is no way back through need not all be kept


class Plain:
    """What a network finds in a batch, and how it learns from it; the network's parameters change in place."""

    def __init__(self, network: Network, threads: int) -> None:
        self._network = network
        self._threads = RowThreads(threads)
        self._libraries = ThreadpoolController()

    @property
    def description(self) -> str:
        """What computes, in a few words."""
        return f"numpy {np.__version__} by hand, {self._network.parameters['head.bias'].dtype}"

    def gradients(
        self, batch: Rows, scale: float, dropped: Mapping[str, DropoutLevels] = NOTHING_DROPPED
    ) -> tuple[float, dict[str, Floats], State]:
        """(sum of nats, gradients of scale times it, state after), without the weights that are dropped."""
        weights = self._network.parameters
        masks = {name: draw.mask(weights[name].dtype) for name, draw in dropped.items()}
        kept = {name: dropout.forward(value, masks.get(name)) for name, value in weights.items()}
        network = Network(self._network.architecture, kept)

        def work(rows: Rows) -> tuple[float, dict[str, Floats], State]:
            done = network.forward(*rows)
            return done.nats, network.backward(done, scale).parameters, done.state

        with self._at_work():
            nats, gradients, states = zip(*self._threads.share(work, batch), strict=True)
            of_all = summed(list(gradients))
            of_kept = {name: dropout.backward(of_all[name], masks.get(name)) for name in of_all}
            return sum(nats), of_kept, joined(list(states))

    def measure(self, inputs_BT: Integers, targets_BT: Integers, state: State | None) -> tuple[float, int, State]:
        """(sum of nats, top guesses, state after), without learning."""
        with self._at_work():
            parts = self._threads.share(self._measure, Rows(inputs_BT, targets_BT, state, None))
        nats, correct, states = zip(*parts, strict=True)
        return sum(nats), sum(correct), joined(list(states))

    def _measure(self, rows: Rows) -> tuple[float, int, State]:
        """(sum of nats, top guesses, state after) of some rows, a stretch of time after the other."""
        nats, correct, state = 0.0, 0, rows.state
        for start in range(0, rows.inputs_BT.shape[1], STRETCH):
            ids_BT, targets_BT = (of_BT[:, start : start + STRETCH] for of_BT in (rows.inputs_BT, rows.targets_BT))
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
        with self._at_work():
            if settings.clip_value:
                clip.by_value(gradients.values(), settings.clip_value)
            if settings.clip:
                clip.by_norm(gradients.values(), settings.clip)
            optimizers.step(self._network.parameters, gradients, memories, rate, settings)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """One BLAS thread (`rows.py` says why), and no warning of overflow: the trainer looks at the loss."""
        with self._libraries.limit(limits=1, user_api="blas"), np.errstate(all="ignore"):
            yield
