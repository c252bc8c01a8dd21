"""The engine that evaluates: fp32 on the CPU, with the kernels or NumPy. It never uses PyTorch, which takes a second to
load.

An engine has its own buffers, so only one thread may use it at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from charloom.checkpoint import ModelFolder
from charloom.config import TrainingSettings
from charloom.engines.engine import Engine, EngineChoice, open_engine
from charloom.kernels import chosen

# Dynamic evaluation uses plain gradient descent.
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
    """Engines with the weights of one model, for calls from many threads. It has as many engines as parallel calls."""

    def __init__(self, model: ModelFolder) -> None:
        self._model = model
        self._idle: list[Engine] = []

    @contextmanager
    def borrowed(self) -> Iterator[Engine]:
        """An engine that no other call uses meanwhile. Its weights must not be changed."""
        try:
            engine = self._idle.pop()
        except IndexError:
            engine = open_evaluation_engine(self._model)
        yield engine
        self._idle.append(engine)  # not after an error, because its state may then be invalid
