"""The processes that train one network together: a thin layer over PyTorch's `torch.distributed`.

`torchrun` starts the processes and says in the environment how many there are and where they meet. All data is arrays
of numbers and bytes. gloo sends them; NCCL adds tensors that are on GPUs.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from threading import Lock
from typing import Any

import numpy as np
import torch
import torch.distributed as group
from numpy.typing import DTypeLike, NDArray
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from charloom.errors import DeviceError, ProcessLostError

START_TIMEOUT = timedelta(minutes=10)
"""The longest wait for the other processes to start. They import PyTorch first, perhaps from a slow disk."""

TIMEOUT = timedelta(minutes=2)
"""The longest wait for a process that started. The first process gives signs of life while the others wait for it. A
process that ends is noticed at once, so the wait only matters for a host that is cut off, or a process that is stopped.
"""

POLL = 0.02  # seconds between two looks for the first process

Numbers = NDArray[Any]


class Processes:
    """The group of processes. Each has a rank from 0 to count - 1. Every method but `send` and `receive` is for all.

    Raises (every method):
        ProcessLostError: if another process ended or does not answer.
    """

    def __init__(self) -> None:
        with _lost():
            store, self.rank, self.count = next(rendezvous("env://", timeout=START_TIMEOUT))
            place = PrefixStore(_meeting(store, self.rank, self.count), store)
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with _lost("all machines must reach each other: see GLOO_SOCKET_IFNAME in docs/clusters.md"):
            group.init_process_group(backend, store=place, rank=self.rank, world_size=self.count, timeout=TIMEOUT)
        self.local_count = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # on this machine
        self.stop_asked = False  # whether a signal asked another process to stop
        self.turn = Lock()  # held from the first to the last message of a command
        self._sum = torch.empty(0)  # of the last addition; new memory in each step would take as long as the sum
        self.ready = True  # whether all others wait for a command; see `process_part.command`
        self.lost: ProcessLostError | None = None  # what ended the signs of life

    def add(self, arrays: Iterable[Numbers | Tensor], numbers: Sequence[float] = ()) -> list[float]:
        """Replaces arrays of one dtype and device by their sums over all processes, the same bits in each process.

        numbers: of each process. Returns their sums, in the arrays' dtype. One message has all, which saves time.
        """
        tensors = [array if isinstance(array, Tensor) else torch.from_numpy(array) for array in arrays]
        with _lost():
            parts = [*(tensor.detach().reshape(-1) for tensor in tensors), tensors[0].new_tensor(numbers)]
            self._sum = torch.cat(parts, out=self._sum.to(parts[0]).resize_(0))
            group.all_reduce(self._sum)
        *parts, sums = torch.split(self._sum, [*(tensor.numel() for tensor in tensors), len(numbers)])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))
        return sums.tolist()

    def take_gpu(self) -> None:
        """Makes `cuda` another GPU in each process of this machine.

        Raises:
            DeviceError: if there are fewer GPUs than processes.
        """
        gpus = torch.cuda.device_count()
        if gpus < self.local_count:
            raise DeviceError(
                f"each process needs a GPU of its own; found {gpus} for {self.local_count} processes on this machine; "
                "start fewer of them"
            )
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))

    def broadcast(self, array: Numbers) -> Numbers:
        """The first process's array, in all; the others pass one of the same shape and dtype, which is filled."""
        array = np.array(array, order="C")
        with _lost():
            group.broadcast(torch.from_numpy(array.reshape(-1)), 0)
        return array

    def broadcast_bytes(self, data: bytes = b"") -> bytes:
        """The first process's bytes, in all."""
        size = int(self.broadcast(np.array([len(data)]))[0])
        return self.broadcast(np.frombuffer(data, np.uint8) if data else np.zeros(size, np.uint8)).tobytes()

    def send(self, array: Numbers) -> None:
        """Sends an array to the first process, which calls `receive`."""
        if array.size:
            with _lost():
                group.send(torch.from_numpy(np.array(array).reshape(-1)), 0)

    def receive(self, shape: tuple[int, ...], dtype: DTypeLike, rank: int) -> Numbers:
        """What the process with this rank sends."""
        array = np.zeros(shape, dtype)
        if array.size:
            with _lost():
                group.recv(torch.from_numpy(array.reshape(-1)), rank)
        return array

    def close(self) -> None:
        """Leaves the group."""
        group.destroy_process_group()


def _meeting(store: Store, rank: int, count: int) -> str:
    """A name for this start of the group, the same in all its processes.

    torchrun keeps its store when it starts processes again, and then it has the addresses of dead ones. So the first
    process chooses a new name. The others answer under it, each with a word of its own. A name is of this start if the
    first process repeats that word.
    """
    name: str
    if rank == 0:
        name = secrets.token_hex(8)
        store.set("meeting", name)
        words = [store.get(f"{name}/{other}").decode() for other in range(1, count)]  # waits for each
        store.set(f"{name}/words", " ".join(words))
        return name
    word, deadline = secrets.token_hex(8), time.monotonic() + START_TIMEOUT.total_seconds()
    while time.monotonic() < deadline:
        name = store.get("meeting").decode()
        store.set(f"{name}/{rank}", word)
        if store.check([f"{name}/words"]) and word in store.get(f"{name}/words").decode().split():
            return name
        time.sleep(POLL)
    raise ProcessLostError("the first one did not start")


@contextmanager
def _lost(advice: str = ProcessLostError.START_AGAIN) -> Iterator[None]:
    """Turns PyTorch's RuntimeError into an error of one line."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(_reason(error), advice) from None


def _reason(error: RuntimeError) -> str:
    """The first sentence of gloo's message, without files of its source code and without advice."""
    line = str(error).splitlines()[0]
    return re.sub(r"\[[^\]]*\.cc:\d+\] ", "", line).partition(". ")[0]
