"""The engine contract, and the choice of an engine.

Batches and parameters cross it as NumPy arrays. State is a value of the engine's own that the caller only passes on;
`None` is the zero state.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Mapping
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

# How long an idle OpenMP thread of PyTorch's spins before it sleeps. By default it spins for milliseconds, and with one
# other busy process on two cores a step takes 50 times as long; with this, half as long again (LOG.md).
SPINS = "300"

PYTORCH = "PyTorch, which is not installed; run: pip install torch"


class Engine(Protocol):
    """What trains and measures a network. Shapes: B texts side by side, T characters."""

    @property
    def description(self) -> str:
        """Engine, device and precision in a few words, for a person."""
        ...

    def step(self, inputs_BT: Array, targets_BT: Array, state: State, learning_rate: float) -> tuple[float, int, State]:
        """One step of training: (sum of nats over the targets, number of targets, state after it)."""
        ...

    def score(self, inputs_BT: Array, targets_BT: Array, state: State) -> tuple[float, int, int, State]:
        """Measures without learning: (sum of nats, number of targets, how many were the top guess, state after it)."""
        ...

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """A copy of all parameters under their names on disk."""
        ...

    def load(self, parameters: Mapping[str, NDArray[Any]]) -> None:
        """Takes over parameters; what the optimizer remembers stays."""
        ...

    def snapshot(self, state: State) -> Arrays:
        """All that exact resuming needs besides the parameters: what the optimizer remembers, counters, the state."""
        ...

    def restore(self, arrays: Arrays, batch: int) -> State:
        """Takes over what `snapshot` gave (after `load`) and returns the state that was in it.

        batch: texts of the next step, which must be the state's; 0 where that step begins from the zero state.
        """
        ...


def chosen_engine(settings: TrainingSettings) -> str:
    """`native`, `torch` or `numpy`: the engine asked for.

    `auto` is torch for a GPU, else the kernels; without them torch if it is installed, and at last NumPy.
    """
    if settings.engine != "auto":
        return settings.engine
    if settings.device in ("cuda", "mps") or (settings.device == "auto" and _torch_is_here() and _gpu_may_be_here()):
        return "torch"
    if chosen().module is not None:
        return "native"
    return "torch" if _torch_is_here() else "numpy"


def check_engine(settings: TrainingSettings, cell: str) -> None:
    """Makes sure that the engine, the device and the precision asked for are here, for this cell.

    Raises:
        DeviceError: if not, with what to do.
    """
    engine = chosen_engine(settings)
    if engine != "torch":
        _check_hand_written(engine, settings, cell)
        return
    if not _torch_is_here():
        raise DeviceError(f"--{_torch_was_named(settings)} needs {PYTORCH}")
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read once, when torch is first imported
    from charloom.engines.torch.device import choose_device, choose_precision

    choose_precision(settings.precision, choose_device(settings.device), cell)


def slower_than_asked(settings: TrainingSettings, cell: str) -> str | None:
    """What to tell a person where `auto` had to take something slower: an engine, a precision, or both."""
    engine = chosen_engine(settings)
    return "; ".join(filter(None, [_slower_engine(engine, settings), _without_bf16(engine, settings, cell)])) or None


def _slower_engine(engine: str, settings: TrainingSettings) -> str | None:
    if settings.engine != "auto" or engine == "native":
        return None
    if engine == "torch":
        return None if settings.device != "cpu" and _gpu_may_be_here() else chosen().notice
    return f"{chosen().notice or chosen().reason}; PyTorch would be faster: pip install torch"


def _without_bf16(engine: str, settings: TrainingSettings, cell: str) -> str | None:
    """What to tell where the hardware has fast bf16 products, and PyTorch cannot train this cell with them."""
    if engine != "torch" or settings.precision != "auto":
        return None
    from charloom.engines.torch.device import bf16_is_faster, choose_device, trains_in_bf16

    device = choose_device(settings.device)
    if not bf16_is_faster(device, cell) or trains_in_bf16(device.type, cell):
        return None
    return f"PyTorch cannot train the cell {cell!r} in bf16 here, so it trains in fp32, which is slower"


def _check_hand_written(engine: str, settings: TrainingSettings, cell: str) -> None:
    """The hand-written engine computes on the CPU; what needs PyTorch, it refuses."""
    able = "computes on the CPU in fp32" if engine == "numpy" else "computes on the CPU"
    need = f"--engine torch; --engine {engine} {able}" if settings.engine == engine else PYTORCH
    if settings.device in ("cuda", "mps"):
        raise DeviceError(f"--device {settings.device} needs {need}")
    if engine == "native":
        from charloom.engines.bptt.native import kernels_to_train, precision_of

        precision_of(settings.precision, cell, kernels_to_train())
    elif settings.precision == "bf16":
        raise DeviceError(f"--precision bf16 needs {need}")


def _torch_was_named(settings: TrainingSettings) -> str:
    return "engine torch" if settings.engine == "torch" else f"device {settings.device}"


def _torch_is_here() -> bool:
    return importlib.util.find_spec("torch") is not None


def _gpu_may_be_here() -> bool:
    """Whether a GPU's driver is (NVIDIA's, AMD's, Apple's), found without importing torch, which takes a second."""
    apple = sys.platform == "darwin" and platform.machine() == "arm64"
    return apple or shutil.which("nvidia-smi") is not None or os.path.exists("/dev/kfd")


def open_engine(architecture: Architecture, settings: TrainingSettings, dropout: float) -> Engine:
    """The engine that the settings ask for.

    Raises:
        DeviceError: if it, or its device, is not here.
    """
    check_engine(settings, architecture.cell)
    engine = chosen_engine(settings)
    if engine != "torch":
        from charloom.engines.bptt.engine import BpttEngine

        return BpttEngine(architecture, settings, dropout, native=engine == "native")
    from charloom.engines.torch.engine import TorchEngine

    return TorchEngine(architecture, settings, dropout)
