"""The engine contract, and the choice of an engine.

Batches and parameters are NumPy arrays. The state is the engine's own value: the caller only passes it on. `None` is
the zero state.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.errors import DeviceError
from charloom.kernels import chosen

Array = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]
State = Any

# Spins of an idle OpenMP thread of PyTorch before it sleeps. The default is some milliseconds: with one other busy
# process on two cores, a step then takes 50 times as long. With this value it takes 1.5 times as long (LOG.md).
SPINS = "300"

PYTORCH = "PyTorch, which is not installed; run: pip install torch"


class Engine(Protocol):
    """Trains and measures a network. Shapes: B sequences, T time steps."""

    @property
    def description(self) -> str:
        """Engine, device and precision in a few words, for a person."""
        ...

    def step(self, inputs_BT: Array, targets_BT: Array, state: State, learning_rate: float) -> tuple[float, int, State]:
        """One step of training: (sum of nats over the targets, number of targets, state after the step)."""
        nats, count, state = self.gradients(inputs_BT, targets_BT, state)
        self.update(learning_rate, count)
        return nats, count, state

    def gradients(
        self, inputs_BT: Array, targets_BT: Array, state: State, rows: slice | None = None
    ) -> tuple[float, int, State]:
        """The first half of a step: (sum of nats over the targets, number of targets, state after the step).

        Writes the gradients of the sum of nats to `gradient_arrays`.

        rows: the only rows of the batch to compute; state and results are then theirs. Dropout does not depend on it:
        a row has the mask that it has when the whole batch is computed. There may be no row: the gradients are zero.
        """
        ...

    @property
    def gradient_arrays(self) -> Mapping[str, Any]:
        """The gradients by the parameters' names: NumPy arrays, or PyTorch's tensors, which may be on a GPU.

        `update` reads them. So several processes can add theirs in place (`torch.from_numpy` shares an array's memory),
        add their counts too, and then take the same step.
        """
        ...

    def update(self, learning_rate: float, count: int) -> None:
        """The second half: divides the gradients by `count`, clips, and takes one step. Makes the gradients invalid.

        count: the number of targets in the sums.
        """
        ...

    def score(
        self, inputs_BT: Array, targets_BT: Array, state: State
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_], State]:
        """Loss without learning, for N targets in the order of [B, T]: (nats_N, correct_N, state after the step).

        nats_N: -ln p of each target, in float32 or float64; add them in float64. correct_N: whether the target had the
        highest probability.
        """
        ...

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """A copy of all parameters under their names on disk."""
        ...

    def load(self, parameters: Mapping[str, NDArray[Any]]) -> None:
        """Replaces the parameters. The optimizer's memory does not change."""
        ...

    def snapshot(self, state: State) -> Arrays:
        """What exact resuming needs besides the parameters: the optimizer's memory, counters and the state."""
        ...

    def restore(self, arrays: Arrays, batch: int) -> State:
        """Restores what `snapshot` returned (after `load`), and returns its state.

        batch: rows of the next step, which must equal those of the state; 0 if that step begins from the zero state.
        """
        ...


@dataclass(frozen=True)
class EngineChoice:
    """The checked result of `choose_engine`.

    engine: `numpy`, `native` or `torch`; device: `cpu`, `cuda` or `mps`; precision: of the products, `fp32` or `bf16`.
    """

    engine: str
    device: str = "cpu"
    precision: str = "fp32"


def chosen_engine(settings: TrainingSettings) -> str:
    """The engine that the settings ask for: `native`, `torch` or `numpy`.

    `auto` is torch for a GPU, else the kernels. Without kernels it is torch if that is installed, else NumPy.
    """
    if settings.engine != "auto":
        return settings.engine
    if settings.device in ("cuda", "mps") or (settings.device == "auto" and _torch_is_here() and _gpu_may_be_here()):
        return "torch"
    if chosen().module is not None:
        return "native"
    return "torch" if _torch_is_here() else "numpy"


def choose_engine(settings: TrainingSettings, cell: str) -> EngineChoice:
    """The engine, device and precision that the settings ask for. All are available for this cell.

    Raises:
        DeviceError: if one is not available; the message says what to do.
    """
    engine = chosen_engine(settings)
    if engine != "torch":
        return EngineChoice(engine, precision=_cpu_precision(engine, settings, cell))
    if not _torch_is_here():
        raise DeviceError(f"{_torch_was_named(settings)} needs {PYTORCH}")
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # torch reads it once, when it is first imported
    from charloom.engines.torch.device import choose_device, choose_precision

    device = choose_device(settings.device)
    return EngineChoice(engine, device.type, choose_precision(settings.precision, device, cell))


def slower_than_asked(settings: TrainingSettings, cell: str) -> str | None:
    """A message for the user if `auto` took something slower: an engine, a precision, or both. Else None."""
    engine = chosen_engine(settings)
    return "; ".join(filter(None, [_slower_engine(engine, settings), _without_bf16(engine, settings, cell)])) or None


def _slower_engine(engine: str, settings: TrainingSettings) -> str | None:
    if settings.engine != "auto" or engine == "native":
        return None
    if engine == "torch":
        return None if settings.device != "cpu" and _gpu_may_be_here() else chosen().notice
    return f"{chosen().notice or chosen().reason}; PyTorch would be faster: pip install torch"


def _without_bf16(engine: str, settings: TrainingSettings, cell: str) -> str | None:
    """The message if the hardware has fast bf16 products, but PyTorch cannot train this cell with them."""
    if engine != "torch" or settings.precision != "auto":
        return None
    from charloom.engines.torch.device import bf16_is_faster, choose_device, trains_in_bf16

    device = choose_device(settings.device)
    if not bf16_is_faster(device, cell) or trains_in_bf16(device.type, cell):
        return None
    return f"PyTorch cannot train the cell {cell!r} in bf16 here, so it trains in fp32, which is slower"


def _cpu_precision(engine: str, settings: TrainingSettings, cell: str) -> str:
    """The precision of NumPy or the kernels.

    Raises:
        DeviceError: if they do not have the device or precision.
    """
    able = "computes on the CPU in fp32" if engine == "numpy" else "computes on the CPU"
    need = f"`engine='torch'`; `engine={engine!r}` {able}" if settings.engine == engine else PYTORCH
    if settings.device in ("cuda", "mps"):
        raise DeviceError(f"`device={settings.device!r}` needs {need}")
    if engine == "native":
        from charloom.engines.native import kernels_to_train, precision_of

        return precision_of(settings.precision, cell, kernels_to_train())
    if settings.precision == "bf16":
        raise DeviceError(f"`precision='bf16'` needs {need}")
    return "fp32"


def _torch_was_named(settings: TrainingSettings) -> str:
    return "`engine='torch'`" if settings.engine == "torch" else f"`device={settings.device!r}`"


def _torch_is_here() -> bool:
    return importlib.util.find_spec("torch") is not None


def _gpu_may_be_here() -> bool:
    """Whether a GPU driver (NVIDIA, AMD or Apple) is found. Does not import torch, which takes a second."""
    apple = sys.platform == "darwin" and platform.machine() == "arm64"
    return apple or shutil.which("nvidia-smi") is not None or os.path.exists("/dev/kfd")


def open_engine(choice: EngineChoice, architecture: Architecture, settings: TrainingSettings) -> Engine:
    """The engine of `choose_engine`. Its parameters must still be loaded."""
    if choice.engine == "torch":
        from charloom.engines.torch.engine import TorchEngine

        return TorchEngine(choice, architecture, settings)
    from charloom.engines.cpu import CpuEngine

    return CpuEngine(choice, architecture, settings)
