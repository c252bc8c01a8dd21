"""What every process of a run has: its engine, its rows of each batch, and the commands of the first process.

A command is a header of numbers, then its data. Shapes: L layers, B sequences, T time steps, H hidden.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.data.groups import NOTHING
from charloom.engines.engine import Array, Arrays, Engine, EngineChoice, State, open_engine
from charloom.errors import ProcessLostError
from charloom.kernels import cores

if TYPE_CHECKING:
    from charloom.engines.torch.processes import Processes

MESSAGE = 1000
"""Bytes of the message of a process that cannot open its engine."""


class Command(IntEnum):
    """What the first process asks of the others. `engines/follower.py` has the method for each."""

    END = 0
    OPEN = 1
    LOAD = 2
    RESTORE = 3
    GRADIENTS = 4
    UPDATE = 5
    STATE = 6
    WAIT = 7


HEADER = 5  # numbers: the command, and up to four of its own


@contextmanager
def command(processes: Processes, asked: Command, *numbers: float) -> Iterator[None]:
    """Sends a header. In this context its data is sent; after an error there, no command can follow.

    Raises:
        ProcessLostError: if an earlier command failed: the others still wait for the rest of it.
    """
    with processes.turn:
        if not processes.ready:
            raise processes.lost or ProcessLostError("a command to it was cut off")
        processes.ready = False
        processes.broadcast(np.array([asked, *numbers, *[0] * (HEADER - 1 - len(numbers))], np.float64))
        yield
        processes.ready = True


def open_part(processes: Processes, asked: Mapping[str, Any]) -> Engine:
    """The engine of one process. By default, the processes of a machine share its cores.

    Raises:
        CharloomError: if it cannot be opened here.
    """
    settings, choice = TrainingSettings(**asked["settings"]), EngineChoice(**asked["choice"])
    if choice.device == "cuda":
        processes.take_gpu()
    if settings.threads is None:
        settings = settings.model_copy(update={"threads": max(1, cores() // processes.local_count)})
    return open_engine(choice, Architecture(**asked["architecture"]), settings)


def rows_of(rank: int, count: int, batch: int) -> slice:
    """The rows of a batch that a process computes; there may be none."""
    return slice(rank * batch // count, (rank + 1) * batch // count)


class Part:
    """The part of one process: its engine, and the state of its rows."""

    def __init__(self, processes: Processes, engine: Engine) -> None:
        self.processes, self.engine = processes, engine
        self._state: State = None

    def rows(self, batch: int) -> slice:
        """Its rows of a batch."""
        return rows_of(self.processes.rank, self.processes.count, batch)

    def gradients(self, inputs_BT: Array, targets_BT: Array, carried: bool, asked: bool = False) -> tuple[float, int]:
        """Leaves the sums over all processes in the engine: (sum of nats, number of targets) of the whole batch.

        The sum of nats is rounded to the gradients' float32.

        carried: whether the batch continues from the state. asked: whether a signal asked this process to stop.
        """
        state = self._state if carried else None
        rows = self.rows(len(inputs_BT))
        nats, _, self._state = self.engine.gradients(inputs_BT, targets_BT, state, rows)
        nats, stop = self.processes.add(self.engine.gradient_arrays.values(), (nats, asked))
        self.processes.stop_asked |= bool(stop)
        return nats, int((targets_BT != NOTHING).sum())

    def snapshot(self, with_state: bool) -> Arrays:
        """What `Engine.snapshot` returns, with the state of its rows only."""
        return self.engine.snapshot(self._state if with_state else None)

    def restore(self, arrays: Arrays, batch: int) -> None:
        """Takes its rows of a snapshot of the whole batch, which was checked."""
        rows = self.rows(batch)
        mine = {name: array[:, rows] if name.startswith("state.") else array for name, array in arrays.items()}
        self._state = self.engine.restore(mine, rows.stop - rows.start)

    def digest(self) -> NDArray[np.uint8]:
        """32 bytes that differ if the parameters do."""
        hashed = hashlib.sha256()
        for value in self.engine.parameters().values():
            hashed.update(np.ascontiguousarray(value).data)
        return np.frombuffer(hashed.digest(), np.uint8)
