"""One network, trained by several processes: each computes some rows of every batch, and their gradients are added.

The first process has the corpus, the run folder and the training loop. Its engine is a `ProcessEngine`, which looks
like an engine for the whole batch. The other processes call `follow`: they receive the settings and then commands, and
need neither corpus nor run folder. All take the same step with the same sums, so parameters stay equal bit for bit.

A command is a header of numbers, then its data. Shapes: L layers, B sequences, T time steps, H hidden.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.engines.engine import SPINS, Array, Arrays, Engine, EngineChoice, State, open_engine
from charloom.engines.resume import checked_steps
from charloom.engines.torchrun import process_count
from charloom.errors import CharloomError, DeviceError, Interrupted, ProcessLostError, SettingsError, TrainingError
from charloom.kernels import cores

if TYPE_CHECKING:
    from charloom.engines.torch.processes import Processes

MESSAGE = 1000
"""Bytes of the message of a process that cannot open its engine."""

SIGN_OF_LIFE = 60.0
"""Seconds between two signs of life while the first process measures: far below the time-out of `Processes`."""

NO_UPDATE = math.nan
"""The learning rate in the header if the update is a command of its own."""


class Command(IntEnum):
    """What the first process asks of the others. `_Follower` has the method for each."""

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
    try:
        yield processes
        status = 0
    except (CharloomError, KeyboardInterrupt) as error:
        status = error.exit_status if isinstance(error, CharloomError) else Interrupted.exit_status
        raise
    finally:
        if not processes.rank:
            _end(processes, status)
        processes.close()


@contextmanager
def _command(processes: Processes, command: Command, *numbers: float) -> Iterator[None]:
    """Sends a header. In this context its data is sent; after an error there, the others wait for the rest of it."""
    processes.ready = False
    processes.broadcast(np.array([command, *numbers, *[0] * (HEADER - 1 - len(numbers))], np.float64))
    yield
    processes.ready = True


def _end(processes: Processes, status: int) -> None:
    """Tells the others to end with this status, if they can be reached."""
    if processes.ready:
        with suppress(ProcessLostError), _command(processes, Command.END, status):
            pass


def check_processes(processes: Processes | None, choice: EngineChoice, settings: TrainingSettings) -> None:
    """Checks that several processes can train with these settings.

    Raises:
        SettingsError: if there are more processes than rows.
        DeviceError: for a GPU.
    """
    if processes is None:
        return
    if settings.batch_size < processes.count:
        raise SettingsError(
            f"`batch_size` must be at least the number of processes, because each computes some of its sequences; "
            f"found {settings.batch_size} for {processes.count} processes; use fewer processes or a larger `batch_size`"
        )
    if choice.device != "cpu":
        raise DeviceError(f"several processes train on the CPU only; found {choice.device!r}; use `device='cpu'`")


def open_for(
    processes: Processes | None, choice: EngineChoice, architecture: Architecture, settings: TrainingSettings
) -> Engine:
    """The engine of the first process, or of the only one. Its parameters must still be loaded.

    Raises:
        CharloomError: if it cannot be opened in a process.
    """
    if processes is None:
        return open_engine(choice, architecture, settings)
    if choice.engine == "torch" and settings.dropout and settings.dropout_mask == "fresh" and architecture.layers > 1:
        raise SettingsError(
            "`dropout_mask` must be 'locked' if several processes train layers with `engine='torch'`: PyTorch draws "
            "fresh masks between layers for each process alone; use `dropout_mask='locked'` or `engine='native'`"
        )
    asked = {"choice": asdict(choice), "architecture": architecture.model_dump(), "settings": settings.model_dump()}
    engine = _open(processes, asked)
    with _command(processes, Command.OPEN):
        processes.broadcast_bytes(json.dumps(asked).encode())
        answers = [processes.receive((MESSAGE,), np.uint8, rank) for rank in range(1, processes.count)]
    for rank, answer in enumerate(answers, 1):
        if answer.any():
            why = answer.tobytes().rstrip(bytes(1)).decode(errors="replace")
            raise DeviceError(f"process {rank} cannot train: {why}")
    return ProcessEngine(_Part(processes, engine), architecture, settings)


def _open(processes: Processes, asked: Mapping[str, Any]) -> Engine:
    """The engine of one process. By default, the processes of a machine share its cores."""
    settings = TrainingSettings(**asked["settings"])
    if settings.threads is None:
        settings = settings.model_copy(update={"threads": max(1, cores() // processes.local_count)})
    return open_engine(EngineChoice(**asked["choice"]), Architecture(**asked["architecture"]), settings)


def rows_of(rank: int, count: int, batch: int) -> slice:
    """The rows of a batch that a process computes; there may be none."""
    return slice(rank * batch // count, (rank + 1) * batch // count)


class _Part:
    """The part of one process: its engine, and the state of its rows."""

    def __init__(self, processes: Processes, engine: Engine) -> None:
        self.processes, self.engine = processes, engine
        self._state: State = None

    def rows(self, batch: int) -> slice:
        """Its rows of a batch."""
        return rows_of(self.processes.rank, self.processes.count, batch)

    def gradients(self, inputs_BT: Array, targets_BT: Array, carried: bool, asked: bool = False) -> tuple[float, int]:
        """Leaves the sums over all processes in the engine: (sum of nats, number of targets) of the whole batch.

        carried: whether the batch continues from the state. asked: whether a signal asked this process to stop.
        """
        state = self._state if carried else None
        rows = self.rows(len(inputs_BT))
        nats, count, self._state = self.engine.gradients(inputs_BT, targets_BT, state, rows)
        self.processes.add(self.engine.gradient_arrays.values())
        numbers = np.array([nats, count, asked], np.float64)
        self.processes.add([numbers])
        self.processes.stop_asked |= bool(numbers[2])
        return float(numbers[0]), int(numbers[1])

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

    def __init__(self, part: _Part, architecture: Architecture, settings: TrainingSettings) -> None:
        self._part, self._processes, self._engine = part, part.processes, part.engine
        self._architecture, self._settings = architecture, settings
        self._newest: SharedState | None = None
        self._called = time.monotonic()

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
        with self._command(Command.GRADIENTS, *inputs_BT.shape, carried, learning_rate):
            self._processes.broadcast(np.stack([inputs_BT, targets_BT]).astype(np.int32))
            nats, count = self._part.gradients(inputs_BT, targets_BT, carried)
        return nats, count, self._new_state(len(inputs_BT))

    def update(self, learning_rate: float, count: int) -> None:
        """The second half: one step of gradient descent with the clipped mean over `count` targets."""
        with self._command(Command.UPDATE, learning_rate, count):
            self._engine.update(learning_rate, count)

    def score(
        self, inputs_BT: Array, targets_BT: Array, state: State
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_], State]:
        """Loss without learning, in the first process alone: (nats of each target, hits, state after).

        The others receive a sign of life, because measuring a large text can take longer than they wait.
        """
        if time.monotonic() - self._called > SIGN_OF_LIFE:
            with self._command(Command.WAIT):
                pass
        return self._engine.score(inputs_BT, targets_BT, state)

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """A copy of all parameters under their names on disk."""
        return self._engine.parameters()

    def load(self, parameters: Mapping[str, NDArray[Any]]) -> None:
        """Replaces the parameters of all processes."""
        with self._command(Command.LOAD):
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
        with self._command(Command.STATE, batch):
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
        with self._command(Command.RESTORE, batch):
            self._processes.broadcast_bytes(json.dumps(sizes).encode())
            for array in arrays.values():
                self._processes.broadcast(array)
            self._part.restore(arrays, batch)
        return self._new_state(batch) if batch else None

    def _new_state(self, batch: int) -> SharedState:
        self._newest = SharedState(batch, self._newest.number + 1 if self._newest else 0)
        return self._newest

    @contextmanager
    def _command(self, command: Command, *numbers: float) -> Iterator[None]:
        with _command(self._processes, command, *numbers):
            yield
        self._called = time.monotonic()


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
        self._opened: _Part | None = None
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
    def _part(self) -> _Part:
        assert self._opened is not None
        return self._opened

    def _open(self, *_: float) -> None:
        asked = json.loads(self._processes.broadcast_bytes())
        message = b""
        try:
            self._opened = _Part(self._processes, _open(self._processes, asked))
            self._shapes = Architecture(**asked["architecture"]).shapes
        except CharloomError as error:
            message = str(error).encode()[:MESSAGE]
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
