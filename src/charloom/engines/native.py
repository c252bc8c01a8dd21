"""The arithmetic of a training step with the kernels (C++). `NumpyArithmetic` has the same methods in NumPy.

A step is four calls: forward, backward, clipping, and Adam or SGD. Parameters, gradients and the optimizer's memory are
the same NumPy float32 arrays as without kernels. The kernels pack copies in the layout that they need.

Shapes: see `numpy/arrays.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, ModuleType

import numpy as np

from charloom.architecture import Architecture
from charloom.cells import Booleans, Floats
from charloom.config import ADAM, TrainingSettings
from charloom.engines.masks import NOTHING_DROPPED, DropoutLevels
from charloom.engines.numpy import optimizers
from charloom.engines.numpy.arrays import CpuState
from charloom.engines.numpy.network import count
from charloom.engines.numpy.rows import Rows
from charloom.errors import DeviceError
from charloom.kernels import KernelChoice, chosen


def kernels_to_train() -> KernelChoice:
    """The kernels that training uses.

    Raises:
        DeviceError: if no kernels are available.
    """
    choice = chosen()
    if choice.module is None:
        raise DeviceError(f"`engine='native'` needs charloom's kernels, which are not used here: {choice.reason}")
    return choice


def precision_of(asked: str, cell: str, choice: KernelChoice) -> str:
    """The number format of the products: fp32 or bf16.

    auto takes bf16 for an LSTM if tiles (AMX) multiply it. A step then takes a quarter of the time, and over five seeds
    the loss after equal steps is as good. auto takes fp32 for other cells. A GRU in bf16 is as good over the same
    number of steps, but in longer runs at the default learning rate it diverges, which it does not in fp32. An RNN was
    not tried in long runs (LOG.md, "bf16 by the kernels over five seeds", "bf16 in long runs of a GRU").

    Raises:
        DeviceError: if the kernels do not have these products.
    """
    assert choice.module is not None
    if asked == "auto":
        return "bf16" if choice.tiles and cell == "lstm" else "fp32"
    if asked not in choice.module.precisions():
        raise DeviceError(
            f"`precision={asked!r}` on a CPU needs AVX512-BF16 or AMX; the kernels here ({choice.name}) compute in "
            "fp32; use `precision='fp32'`"
        )
    return asked


class NativeArithmetic:
    """The gradients of a batch, its loss, and the optimizer's step, which changes the parameters in place.

    Args:
        architecture: the network's.
        parameters: float32, under the names of `architecture.shapes` and in their order.
        precision: of the products; see `precision_of`.
        threads: the most threads to use.
        kernels: the variant of the kernels.
    """

    CHUNK = 256  # steps scored in one call

    def __init__(
        self,
        architecture: Architecture,
        parameters: Mapping[str, Floats],
        precision: str,
        threads: int,
        kernels: KernelChoice,
    ) -> None:
        assert kernels.module is not None
        assert list(parameters) == list(architecture.shapes)
        self._architecture, self._parameters, self._threads = architecture, parameters, threads
        self._precision, self._kernels = precision, kernels
        self._module: ModuleType = kernels.module
        self._network = self._module.TrainingNetwork(architecture, precision, kernels.tiles, threads)
        self._gradients = {name: np.empty_like(value) for name, value in parameters.items()}
        self._masked: dict[str, Floats] = {}  # weights after weight drop

    @property
    def description(self) -> str:
        """Engine and precision in a few words."""
        return f"kernels ({self._kernels.name}), {self._precision}"

    def gradients(
        self, batch: Rows, dropped: Mapping[str, DropoutLevels] = NOTHING_DROPPED
    ) -> tuple[float, dict[str, Floats], CpuState]:
        """(sum of nats, its gradients, state after). Weights in `dropped` are dropped.

        The next call writes its gradients to the same arrays.
        """
        for name, (levels, kept) in dropped.items():
            if name not in self._masked:
                self._masked[name] = np.empty_like(self._parameters[name])
            self._module.drop(self._parameters[name], levels, kept, self._masked[name], self._threads)
        nats_N, _, state = self._forward(batch, True, {name: self._masked[name] for name in dropped})
        self.backward(None)
        for name, (levels, kept) in dropped.items():
            self._module.drop(self._gradients[name], levels, kept, self._gradients[name], self._threads)
        return float(nats_N.sum()), self._gradients, state

    def backward(self, d_state: CpuState | None) -> CpuState | None:
        """The backward pass of the last forward pass, into the gradients' arrays.

        d_state: the gradient with respect to the state after; None is zero. Returns the gradient with respect to the
        state before, or None if d_state is None.
        """
        if d_state is None:
            self._network.backward(list(self._gradients.values()), [], [])
            return None
        d_before = tuple(np.empty(part_LBH.shape, np.float32) for part_LBH in d_state)
        self._network.backward(list(self._gradients.values()), _contiguous(d_state), d_before)
        return d_before

    def measure(self, batch: Rows) -> tuple[Floats, Booleans, CpuState]:
        """(nats of each target, whether it was the top guess, state after), without learning."""
        return self._forward(batch, False)

    def _forward(
        self, batch: Rows, save: bool, instead: Mapping[str, Floats] = MappingProxyType({})
    ) -> tuple[Floats, Booleans, CpuState]:
        """(nats of each target, whether it was the top guess, state after).

        save: whether a backward pass follows. instead: arrays that replace some parameters, by name.
        """
        shape = (self._architecture.layers, len(batch.inputs_BT), self._architecture.hidden)
        after = tuple(np.empty(shape, np.float32) for _ in range(2 if self._architecture.cell == "lstm" else 1))
        ids_BT, asked_BT = (np.ascontiguousarray(of_BT, np.int32) for of_BT in (batch.inputs_BT, batch.targets_BT))
        drawn = [] if batch.masks is None else [*batch.masks.between, batch.masks.head]
        masks = [np.ascontiguousarray(mask) for mask in drawn]  # those of some rows of a batch are views
        locked = batch.masks is not None and batch.masks.locked
        given = [instead.get(name, value) for name, value in self._parameters.items()]
        nats_N, correct_N = np.empty(count(asked_BT)), np.empty(count(asked_BT), np.bool_)
        before = _contiguous(batch.state or ())
        arrays = self._module.BatchArrays(ids_BT, asked_BT, before, after, nats_N, correct_N, masks, locked)
        self._network.forward(given, arrays, save)
        return nats_N, correct_N, after

    def update(
        self,
        gradients: Mapping[str, Floats],
        count: int,
        memories: Mapping[str, optimizers.Memory],
        rate: float,
        settings: TrainingSettings,
    ) -> None:
        """One step of gradient descent with the clipped mean over `count` targets. Makes the gradients invalid.

        The kernels have their own Adam and SGD, which compute the mean while they read the sums.
        """
        sums = list(gradients.values())
        clipping = self._module.clipping(sums, count, settings.clip_value or 0.0, settings.clip or 0.0, self._threads)
        if settings.optimizer in ADAM:
            self._adam(sums, clipping, memories, rate, settings)
        elif settings.optimizer == "sgd":
            self._sgd(sums, clipping, memories, rate, settings)
        else:
            self._module.clip(sums, clipping, self._threads)
            with np.errstate(all="ignore"):
                optimizers.step(self._parameters, gradients, memories, rate, settings)

    def _adam(
        self,
        sums: list[Floats],
        clipping: object,
        memories: Mapping[str, optimizers.Memory],
        rate: float,
        settings: TrainingSettings,
    ) -> None:
        for memory in memories.values():
            memory["step"] += 1
        t = float(memory["step"])
        unbiased_rate, epsilon = optimizers.adam_corrections(rate, settings.beta1, settings.beta2, t)
        arrays = [
            (value, of_value, memory["exp_avg"], memory["exp_avg_sq"], optimizers.decay(value, settings))
            for value, of_value, memory in zip(self._parameters.values(), sums, memories.values(), strict=True)
        ]
        step = self._module.AdamStep(
            rate=unbiased_rate,
            decay_rate=rate,
            beta1=settings.beta1,
            beta2=settings.beta2,
            epsilon=epsilon,
            decoupled=settings.optimizer == "adamw",
        )
        self._module.adam(arrays, clipping, step, self._threads)

    def _sgd(
        self,
        sums: list[Floats],
        clipping: object,
        memories: Mapping[str, optimizers.Memory],
        rate: float,
        settings: TrainingSettings,
    ) -> None:
        none = np.empty(0, np.float32)
        arrays = [
            (value, of_value, memory.get("momentum_buffer", none), optimizers.decay(value, settings))
            for value, of_value, memory in zip(self._parameters.values(), sums, memories.values(), strict=True)
        ]
        step = self._module.SgdStep(rate=rate, momentum=settings.momentum, nesterov=settings.nesterov)
        self._module.sgd(arrays, clipping, step, self._threads)


def _contiguous(state: CpuState) -> list[Floats]:
    """h, and c of an LSTM, as the kernels read them."""
    return [np.ascontiguousarray(part, np.float32) for part in state]
