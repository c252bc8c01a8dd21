"""One network, trained by several processes: each computes some rows of every batch, and their gradients are added.

The first process has the corpus, the run folder and the training loop. Its engine is a `ProcessEngine`, which looks
like an engine for the whole batch. The others call `follow` (`follower.py`): they receive the settings and then
commands, and need neither corpus nor run folder. All take the same step with the same sums, so parameters stay equal
bit for bit.

Shapes: L layers, B sequences, T time steps, H hidden.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.engines.engine import SPINS, Array, Arrays, Engine, EngineChoice, State, open_engine
from charloom.engines.process_part import MESSAGE, Command, Part, command, open_part, rows_of
from charloom.engines.resume import checked_steps
from charloom.engines.torchrun import process_count
from charloom.errors import CharloomError, DeviceError, Interrupted, ProcessLostError, SettingsError, TrainingError

if TYPE_CHECKING:
    from charloom.engines.torch.processes import Processes

SIGN_OF_LIFE = 10.0
"""Seconds between two signs of life of the first process: far below the time-out of `Processes`."""

NO_UPDATE = math.nan
"""The learning rate in the header if the update is a command of its own."""


@contextmanager
def open_processes() -> Iterator[Processes | None]:
    """The group of processes; None without `torchrun`. At its end the first process tells the others to end too.

    Raises:
        ProcessLostError: if another process ended or does not answer.
    """
    if process_count() == 1:
        yield None
        return
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # torch reads it once, when it is first imported
    from charloom.engines.torch.processes import Processes

    processes, status = Processes(), 1
    ended = Event()
    life = Thread(target=_show_life, args=(processes, ended), daemon=True)
    if not processes.rank:
        life.start()
    try:
        yield processes
        status = 0
    except (CharloomError, KeyboardInterrupt) as error:
        status = error.exit_status if isinstance(error, CharloomError) else Interrupted.exit_status
        raise
    finally:
        if not processes.rank:
            ended.set()
            life.join(SIGN_OF_LIFE)
            if not processes.turn.locked():  # an interrupt in the first moment of a command leaves it so
                with suppress(ProcessLostError), command(processes, Command.END, status):
                    pass
        processes.close()


def _show_life(processes: Processes, ended: Event) -> None:
    """Sends the others a header from time to time: the first process may read, measure or write for a long time."""
    try:
        while not ended.wait(SIGN_OF_LIFE):
            with command(processes, Command.WAIT):
                pass
    except ProcessLostError as error:
        processes.lost = error  # for the next command


def check_processes(processes: Processes | None, choice: EngineChoice, settings: TrainingSettings) -> None:
    """Checks that several processes can train with these settings.

    Raises:
        SettingsError: if there are more processes than rows.
        DeviceError: for Apple's GPU, with which they cannot add their gradients.
    """
    if processes is None:
        return
    if settings.batch_size < processes.count:
        raise SettingsError(
            f"`batch_size` must be at least the number of processes, because each computes some of its sequences; "
            f"found {settings.batch_size} for {processes.count} processes; use fewer processes or a larger `batch_size`"
        )
    if choice.device == "mps":
        raise DeviceError("several processes train on CPUs or with CUDA; found 'mps'; use `device='cpu'`")


def open_for(
    processes: Processes | None, choice: EngineChoice, architecture: Architecture, settings: TrainingSettings
) -> Engine:
    """The engine of the first process, or of the only one. Its parameters must still be loaded.

    Raises:
        CharloomError: if it cannot be opened in a process.
    """
    if processes is None:
        return open_engine(choice, architecture, settings)
    asked = {"choice": asdict(choice), "architecture": architecture.model_dump(), "settings": settings.model_dump()}
    engine = open_part(processes, asked)
    with command(processes, Command.OPEN):
        processes.broadcast_bytes(json.dumps(asked).encode())
        answers = [processes.receive((MESSAGE,), np.uint8, rank) for rank in range(1, processes.count)]
    for rank, answer in enumerate(answers, 1):
        if answer.any():
            why = answer.tobytes().rstrip(bytes(1)).decode(errors="replace")
            raise DeviceError(f"process {rank} cannot train: {why}")
    return ProcessEngine(Part(processes, engine), architecture, settings)


@dataclass(frozen=True)
class SharedState:
    """The state after a step. Each process has that of its rows; only the newest exists.

    batch: the rows of all processes; number: of the step.
    """

    batch: int
    number: int


class ProcessEngine(Engine):
    """The engine of the first process, for the whole batch. See `charloom.engines.engine.Engine` for the contract.

    Only the state of the newest step can be passed in. `score` computes in the first process alone.

    Raises (every method):
        ProcessLostError: if another process ended or does not answer.
    """

    def __init__(self, part: Part, architecture: Architecture, settings: TrainingSettings) -> None:
        self._part, self._processes, self._engine = part, part.processes, part.engine
        self._architecture, self._settings = architecture, settings
        self._newest: SharedState | None = None

    @property
    def description(self) -> str:
        """The engine of the first process, and the number of processes."""
        return f"{self._engine.description} in each of {self._processes.count} processes"

    @property
    def gradient_arrays(self) -> Mapping[str, Any]:
        """The sums over all processes."""
        return self._engine.gradient_arrays

    def step(
        self, inputs_BT: Array, targets_BT: Array, state: SharedState | None, learning_rate: float
    ) -> tuple[float, int, SharedState]:
        """One step of training: (sum of nats over the targets, number of targets, state after the step)."""
        nats, count, after = self._gradients(inputs_BT, targets_BT, state, learning_rate)
        self._engine.update(learning_rate, count)
        return nats, count, after

    def gradients(
        self, inputs_BT: Array, targets_BT: Array, state: SharedState | None, rows: slice | None = None
    ) -> tuple[float, int, SharedState]:
        """The first half of a step: (sum of nats over the targets, number of targets, state after the step)."""
        assert rows is None, "the processes share all rows"
        return self._gradients(inputs_BT, targets_BT, state, NO_UPDATE)

    def _gradients(
        self, inputs_BT: Array, targets_BT: Array, state: SharedState | None, learning_rate: float
    ) -> tuple[float, int, SharedState]:
        assert state is None or state == self._newest, "only the newest state exists"
        carried = state is not None
        with command(self._processes, Command.GRADIENTS, *inputs_BT.shape, carried, learning_rate):
            self._processes.broadcast(np.stack([inputs_BT, targets_BT]).astype(np.int32))
            nats, count = self._part.gradients(inputs_BT, targets_BT, carried)
        return nats, count, self._new_state(len(inputs_BT))

    def update(self, learning_rate: float, count: int) -> None:
        """The second half: one step of gradient descent with the clipped mean over `count` targets."""
        with command(self._processes, Command.UPDATE, learning_rate, count):
            self._engine.update(learning_rate, count)

    def score(
        self, inputs_BT: Array, targets_BT: Array, state: State
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_], State]:
        """Loss without learning, in the first process alone: (nats of each target, hits, state after)."""
        return self._engine.score(inputs_BT, targets_BT, state)

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """A copy of all parameters under their names on disk."""
        return self._engine.parameters()

    def load(self, parameters: Mapping[str, NDArray[Any]]) -> None:
        """Replaces the parameters of all processes."""
        with command(self._processes, Command.LOAD):
            for name in self._architecture.shapes:
                self._processes.broadcast(np.asarray(parameters[name], np.float32))
            self._engine.load(parameters)

    def snapshot(self, state: SharedState | None) -> Arrays:
        """As that of one engine for the whole batch: the states of all processes in the order of their rows.

        Raises:
            TrainingError: if the parameters of two processes differ.
        """
        assert state is None or state == self._newest, "only the newest state exists"
        batch, arrays = state.batch if state else 0, self._part.snapshot(state is not None)
        with command(self._processes, Command.STATE, batch):
            others = [self._received(rank, batch) for rank in range(1, self._processes.count)]
        digest = self._part.digest()
        for rank, (found, _) in enumerate(others, 1):
            if (found != digest).any():
                raise TrainingError(
                    f"all processes must compute the same bits; process {rank} has other parameters than process 0; "
                    "use hosts with equal processors and equal installations, and resume the run"
                )
        joined = {}
        for name in self._state_names if state else ():
            parts_LBH = [arrays[name]] if name in arrays else []  # with no row it may have no state
            joined[name] = np.concatenate([*parts_LBH, *(states[name] for _, states in others)], axis=1)
        return arrays | joined

    @property
    def _state_names(self) -> tuple[str, ...]:
        return ("state.0", "state.1") if self._architecture.cell == "lstm" else ("state.0",)

    def _received(self, rank: int, batch: int) -> tuple[NDArray[np.uint8], Arrays]:
        """What a process sends for `STATE`: the digest of its parameters, and the state of its rows."""
        digest = self._processes.receive((32,), np.uint8, rank)
        rows = rows_of(rank, self._processes.count, batch)
        shape = (self._architecture.layers, rows.stop - rows.start, self._architecture.hidden)
        names = self._state_names if batch else ()
        return digest, {name: self._processes.receive(shape, np.float32, rank) for name in names}

    def restore(self, arrays: Arrays, batch: int) -> SharedState | None:
        """Restores what `snapshot` returned, also with another number of processes, and returns its state.

        Raises:
            ModelError: names an array that is missing, not expected, of another shape, or not finite.
        """
        checked_steps(arrays, self._architecture, self._settings, batch)
        sizes = {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}
        with command(self._processes, Command.RESTORE, batch):
            self._processes.broadcast_bytes(json.dumps(sizes).encode())
            for array in arrays.values():
                self._processes.broadcast(array)
            self._part.restore(arrays, batch)
        return self._new_state(batch) if batch else None

    def _new_state(self, batch: int) -> SharedState:
        self._newest = SharedState(batch, self._newest.number + 1 if self._newest else 0)
        return self._newest
