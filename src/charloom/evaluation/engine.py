"""The engine that evaluates: fp32 on the CPU, by the kernels or NumPy, and never PyTorch, which takes a second to load.

An engine has buffers of its own, so it serves one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from charloom.checkpoint import ModelFolder
from charloom.config import TrainingSettings
from charloom.engines.engine import Engine, EngineChoice, open_engine
from charloom.kernels import chosen

# Plain gradient descent, which is what dynamic evaluation learns by.
SETTINGS = TrainingSettings(
    steps=1, dropout=0.0, optimizer="sgd", momentum=0.0, weight_decay=0.0, clip=1.0, precision="fp32", device="cpu"
)


def open_evaluation_engine(model: ModelFolder) -> Engine:
    """An engine with a copy of the model's weights."""
    choice = EngineChoice("numpy" if chosen().module is None else "native")
    engine = open_engine(choice, model.architecture, SETTINGS)
    engine.load(model.parameters)
    return engine


class EnginePool:
    """Engines with the weights of one model, for calls from many threads: as many as there were calls at once."""

    def __init__(self, model: ModelFolder) -> None:
        self._model = model
        self._idle: list[Engine] = []

    @contextmanager
    def borrowed(self) -> Iterator[Engine]:
        """An engine that nobody else uses at the moment; its weights must not be changed."""
        try:
            engine = self._idle.pop()
        except IndexError:
            engine = open_evaluation_engine(self._model)
        yield engine
        self._idle.append(engine)  # not after an error, which may have left it in any state
