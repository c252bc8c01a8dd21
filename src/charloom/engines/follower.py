"""The processes that are not the first one: they follow its commands (see `shared.py`)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from charloom.architecture import Architecture
from charloom.engines.process_part import HEADER, MESSAGE, Command, Part, open_part
from charloom.errors import CharloomError

if TYPE_CHECKING:
    from charloom.engines.torch.processes import Processes


def follow(processes: Processes, asked: Callable[[], bool]) -> int:
    """Does what the first process asks for, until it ends. Returns the exit status that it sends.

    asked: whether a signal asked this process to stop; then the first process saves everything and ends the run.

    Raises:
        ProcessLostError: if another process ended or does not answer.
    """
    follower = _Follower(processes, asked)
    while True:
        command, *numbers = processes.broadcast(np.zeros(HEADER))
        if command == Command.END:
            return int(numbers[0])
        follower.commands[Command(int(command))](*numbers)


class _Follower:
    """The commands of the first process, in another one. Each takes the four numbers of its header."""

    def __init__(self, processes: Processes, asked: Callable[[], bool]) -> None:
        self._processes, self._asked = processes, asked
        self._opened: Part | None = None
        self.commands: Mapping[Command, Callable[..., None]] = {
            Command.OPEN: self._open,
            Command.LOAD: self._load,
            Command.RESTORE: self._restore,
            Command.GRADIENTS: self._gradients,
            Command.UPDATE: self._update,
            Command.STATE: self._send_state,
            Command.WAIT: lambda *_: None,
        }

    @property
    def _part(self) -> Part:
        assert self._opened is not None
        return self._opened

    def _open(self, *_: float) -> None:
        asked = json.loads(self._processes.broadcast_bytes())
        message = b""
        self._opened = None  # its memory is needed
        try:
            self._opened = Part(self._processes, open_part(self._processes, asked))
            self._shapes = Architecture(**asked["architecture"]).shapes
        except (CharloomError, MemoryError) as error:
            message = (str(error) or "the memory is full").encode()[:MESSAGE]
        self._processes.send(np.frombuffer(message.ljust(MESSAGE, bytes(1)), np.uint8))

    def _load(self, *_: float) -> None:
        values = {name: self._processes.broadcast(np.empty(s, np.float32)) for name, s in self._shapes.items()}
        self._part.engine.load(values)

    def _restore(self, batch: float, *_: float) -> None:
        sizes = json.loads(self._processes.broadcast_bytes())
        arrays = {name: self._processes.broadcast(np.zeros(*size)) for name, size in sizes.items()}
        self._part.restore(arrays, int(batch))

    def _gradients(self, rows: float, steps: float, carried: float, learning_rate: float) -> None:
        ids = self._processes.broadcast(np.zeros((2, int(rows), int(steps)), np.int32))
        inputs_BT, targets_BT = ids.astype(np.int64)
        _, count = self._part.gradients(inputs_BT, targets_BT, bool(carried), self._asked())
        if not math.isnan(learning_rate):
            self._part.engine.update(learning_rate, count)

    def _update(self, learning_rate: float, count: float, *_: float) -> None:
        self._part.engine.update(learning_rate, int(count))

    def _send_state(self, batch: float, *_: float) -> None:
        self._processes.send(self._part.digest())
        for name, array in self._part.snapshot(bool(batch)).items():
            if name.startswith("state."):
                self._processes.send(array)
