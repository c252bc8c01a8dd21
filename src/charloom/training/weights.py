"""Uses of the engine's weights during training: models to save, and samples of text."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from charloom.checkpoint import ModelFolder
from charloom.config import TrainingSettings
from charloom.engines.engine import Engine
from charloom.errors import ModelError
from charloom.inference.options import Options
from charloom.model import Model


class NotFinite(Exception):
    """The loss or a weight became infinite or NaN; the trainer catches it."""


def finite_parameters(engine: Engine) -> dict[str, Any]:
    """The engine's parameters, all finite, for saving.

    Raises:
        NotFinite: if a parameter is not finite. The last step may have caused this without a sign in its own loss.
    """
    parameters = engine.parameters()
    if not all(np.isfinite(value).all() for value in parameters.values()):
        raise NotFinite
    return parameters


def trained_model(model: ModelFolder, engine: Engine, step: int, figures: dict[str, float]) -> ModelFolder:
    """The model with the engine's parameters, and with the step and these figures in its metadata.

    Raises:
        NotFinite: if a parameter is not finite.
    """
    metadata = {**model.metadata, "step": step, **figures}
    return dataclasses.replace(model, parameters=finite_parameters(engine), metadata=metadata)


def sample(model: ModelFolder, settings: TrainingSettings, step: int) -> str | None:
    """Text that the model generates after `step` steps of training, by the sample settings.

    None if the state overflows: a relu network may do so when it reads its own text. This does not end the run.
    """
    options: Options = {"seed": settings.seed, "records": 1 if model.vocabulary.separator else None}
    options |= {"threads": settings.threads}
    if settings.sample_temperature == 0:
        options |= {"greedy": True, "index": step}  # the index changes the first character of each sample
    else:
        options |= {"temperature": settings.sample_temperature}
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return Model(model).generate(length=settings.sample_length, **options)
    except ModelError:
        return None
