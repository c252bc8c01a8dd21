"""What an engine must remember to go on exactly: names and shapes, the same for every engine, checked on the way in.

`steps`; `optimizer.<parameter>.<key>`, keys under PyTorch's names; and `state.0` (h) and, for an LSTM, `state.1` (c),
both [L, B, H].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.errors import ModelError

Arrays = Mapping[str, NDArray[Any]]

# What each optimizer keeps of each parameter: a number (`step`), and arrays of the parameter's shape.
REMEMBERED: dict[str, tuple[str, ...]] = {
    "adamw": ("step", "exp_avg", "exp_avg_sq"),
    "adam": ("step", "exp_avg", "exp_avg_sq"),
    "rmsprop": ("step", "square_avg"),
    "adagrad": ("step", "sum"),
    "sgd": ("momentum_buffer",),
}


def remembered(settings: TrainingSettings, steps: int) -> tuple[str, ...]:
    """The keys that the optimizer has after so many steps."""
    begun = steps or settings.optimizer == "adagrad"  # whose sums are there from the beginning
    forgetful = settings.optimizer == "sgd" and not settings.momentum
    return REMEMBERED[settings.optimizer] if begun and not forgetful else ()


def checked_steps(arrays: Arrays, architecture: Architecture, settings: TrainingSettings) -> int:
    """The count of steps in a snapshot of which every array is there and as it must be.

    Raises:
        ModelError: naming the array that is missing, not expected, of another shape, or not finite.
    """
    steps = arrays.get("steps", np.array(-1))
    if steps.shape or steps.dtype.kind != "i" or steps < 0:
        raise ModelError("resume.safetensors: steps must be a count; it is missing or damaged")
    shapes = _optimizer_shapes(architecture, remembered(settings, int(steps))) | _state_shapes(arrays, architecture)
    if arrays.keys() - {"steps"} != shapes.keys():
        odd = sorted((arrays.keys() - {"steps"}) ^ shapes.keys())[0]
        raise ModelError(f"resume.safetensors: {odd} is {'not expected' if odd in arrays else 'missing'}")
    for name, shape in shapes.items():
        found = arrays[name]
        if found.shape != shape or found.dtype.kind != "f" or not np.isfinite(found).all():
            raise ModelError(f"resume.safetensors: {name} must be finite {shape}; found {found.dtype} {found.shape}")
    return int(steps)


def state_parts(arrays: Arrays) -> list[NDArray[Any]]:
    """The state in a snapshot, part by part; empty where there is none."""
    return [array for name, array in sorted(arrays.items()) if name.startswith("state.")]


def _optimizer_shapes(architecture: Architecture, keys: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    return {
        f"optimizer.{name}.{key}": () if key == "step" else shape
        for name, shape in architecture.shapes.items()
        for key in keys
    }


def _state_shapes(arrays: Arrays, architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """The shapes that a state must have, if there is one: (L, B, H) with any B."""
    parts = state_parts(arrays)
    batch = parts[0].shape[1:2] if parts else ()
    names = ("state.0", "state.1") if architecture.cell == "lstm" else ("state.0",)
    return {name: (architecture.layers, *batch, architecture.hidden) for name in names if parts}
