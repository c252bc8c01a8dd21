"""The engine contract, and the choice of an engine.

Batches and parameters cross it as NumPy arrays. State is a value of the engine's own that the caller only passes on;
`None` is the zero state.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.errors import DeviceError

Array = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]
State = Any

# How long an idle OpenMP thread of PyTorch's spins before it sleeps. By default it spins for milliseconds, and with one
# other busy process on two cores a step takes 50 times as long; with this, half as long again (LOG.md).
SPINS = "300"

PYTORCH = "PyTorch, which is not installed; run: pip install 'charloom[torch]'"


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

    def restore(self, arrays: Arrays) -> State:
        """Takes over what `snapshot` gave (after `load`) and returns the state that was in it."""
        ...


def chosen_engine(settings: TrainingSettings) -> str:
    """`numpy` or `torch`: the engine asked for, where `auto` is torch if it is installed."""
    if settings.engine != "auto":
        return settings.engine
    return "torch" if _torch_is_here() else "numpy"


def check_engine(settings: TrainingSettings) -> None:
    """Makes sure that the engine and the device asked for are here.

    Raises:
        DeviceError: if not, with what to do.
    """
    if chosen_engine(settings) == "numpy":
        _check_numpy(settings)
        return
    if not _torch_is_here():
        raise DeviceError(f"--engine torch needs {PYTORCH}")
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read once, when torch is first imported
    from charloom.engines.torch.device import choose_device

    choose_device(settings.device)


def _check_numpy(settings: TrainingSettings) -> None:
    """The hand-written engine computes in float32 on the CPU; what needs PyTorch, it refuses."""
    need = "--engine torch; --engine numpy computes on the CPU in fp32" if settings.engine == "numpy" else PYTORCH
    if settings.device in ("cuda", "mps"):
        raise DeviceError(f"--device {settings.device} needs {need}")
    if settings.precision == "bf16":
        raise DeviceError(f"--precision bf16 needs {need}")


def _torch_is_here() -> bool:
    return importlib.util.find_spec("torch") is not None


def open_engine(architecture: Architecture, settings: TrainingSettings, dropout: float) -> Engine:
    """The engine that the settings ask for.

    Raises:
        DeviceError: if it, or its device, is not here.
    """
    check_engine(settings)
    if chosen_engine(settings) == "numpy":
        from charloom.engines.bptt.engine import NumpyEngine

        return NumpyEngine(architecture, settings, dropout)
    from charloom.engines.torch.engine import TorchEngine

    return TorchEngine(architecture, settings, dropout)
