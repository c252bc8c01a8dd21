"""The resume state: names and shapes, the same for every engine. They are checked when it is loaded.

The arrays are `steps`; `optimizer.<parameter>.<key>` with PyTorch's names as keys; `state.0` (h); and, for an LSTM,
`state.1` (c). Both states are [L, B, H]. The next batch must have as many rows as the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.errors import ModelError

Snapshot = Mapping[str, NDArray[Any]]

# The memory of each optimizer for each parameter: a number (`step`), and arrays of the parameter's shape.
OPTIMIZER_MEMORY: dict[str, tuple[str, ...]] = {
    "adamw": ("step", "exp_avg", "exp_avg_sq"),
    "adam": ("step", "exp_avg", "exp_avg_sq"),
    "rmsprop": ("step", "square_avg"),
    "adagrad": ("step", "sum"),
    "sgd": ("momentum_buffer",),
}


def memory_keys(settings: TrainingSettings, steps: int) -> tuple[str, ...]:
    """The keys of the optimizer's memory after this number of steps."""
    begun = steps or settings.optimizer == "adagrad"  # Adagrad's sums exist before the first step
    forgetful = settings.optimizer == "sgd" and not settings.momentum
    return OPTIMIZER_MEMORY[settings.optimizer] if begun and not forgetful else ()


def checked_steps(arrays: Snapshot, architecture: Architecture, settings: TrainingSettings, batch: int) -> int:
    """The number of steps in a snapshot, after a check that every array exists and is valid.

    batch: rows of the next step, which continues their state; 0 if it begins from the zero state.

    Raises:
        ModelError: names an array that is missing, not expected, of another shape, or not finite.
    """
    steps = arrays.get("steps", np.array(-1))
    if steps.shape or steps.dtype.kind != "i" or steps < 0:
        raise ModelError("resume.safetensors: steps must be a count; it is missing or damaged")
    shapes = _optimizer_shapes(architecture, memory_keys(settings, int(steps))) | _state_shapes(architecture, batch)
    names = {name for name in arrays if name != "steps" and (batch or not name.startswith("state."))}
    if names != shapes.keys():
        odd = sorted(names ^ shapes.keys())[0]
        raise ModelError(f"resume.safetensors: {odd} is {'not expected' if odd in arrays else 'missing'}")
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            hint = "; batch_size in run.toml must be as it was" if name.startswith("state.") else ""
            found = f"found {array.dtype} {array.shape}{hint}"
            raise ModelError(f"resume.safetensors: {name} must be finite {shape}; {found}")
        if name.endswith(".step") and not 0 <= array <= steps:  # in float32 it stops at 2^24, and steps does not
            raise ModelError(f"resume.safetensors: {name} must be a count from 0 to {steps}, the steps; found {array}")
    return int(steps)


def state_parts(arrays: Snapshot, batch: int) -> list[NDArray[Any]]:
    """The parts of the state in a snapshot; empty if the next step begins from the zero state."""
    return [array for name, array in sorted(arrays.items()) if batch and name.startswith("state.")]


def _optimizer_shapes(architecture: Architecture, keys: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    return {
        f"optimizer.{name}.{key}": () if key == "step" else shape
        for name, shape in architecture.shapes.items()
        for key in keys
    }


def _state_shapes(architecture: Architecture, batch: int) -> dict[str, tuple[int, ...]]:
    names = ("state.0", "state.1") if architecture.cell == "lstm" else ("state.0",)
    return {name: (architecture.layers, batch, architecture.hidden) for name in names if batch}
