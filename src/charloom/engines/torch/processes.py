"""The processes that train one network together: a thin layer over PyTorch's `torch.distributed` with gloo.

`torchrun` starts the processes and says in the environment how many there are and where they meet. All data is arrays
of numbers and bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as group
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from charloom.errors import ProcessLostError

TIMEOUT = timedelta(minutes=30)
"""The longest wait for another process. The first process reads and counts the text alone while the others wait: some
minutes for 10 GB. A process that ends is noticed at once, so the wait only matters for a host that is cut off.
"""

Numbers = NDArray[Any]


class Processes:
    """The group of processes. Each has a rank from 0 to count - 1. Every method but `send` and `receive` is for all.

    Raises (every method):
        ProcessLostError: if another process ended or does not answer.
    """

    def __init__(self) -> None:
        with _lost():
            group.init_process_group("gloo", timeout=TIMEOUT)
        self.rank, self.count = group.get_rank(), group.get_world_size()
        self.local_count = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # on this machine
        self.stop_asked = False  # whether a signal asked another process to stop
        self.ready = True  # whether all others wait for a command; see `engines/shared.py`

    def add(self, arrays: Iterable[Numbers | Tensor]) -> None:
        """Replaces arrays of one dtype by their sums over all processes, the same bits in each process."""
        tensors = [array if isinstance(array, Tensor) else torch.from_numpy(array) for array in arrays]
        with _lost():
            flat = torch.cat([tensor.detach().reshape(-1).cpu() for tensor in tensors])
            group.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

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


@contextmanager
def _lost() -> Iterator[None]:
    """Turns PyTorch's RuntimeError into an error of one line."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            f"every process of a run must answer; one ended or cannot be reached ({_reason(error)}); resume the run "
            "with `resume`, which goes on from its last checkpoint"
        ) from None


def _reason(error: RuntimeError) -> str:
    """The end of the message of gloo, which begins with a file of its source code."""
    return str(error).splitlines()[0].rpartition("] ")[2].rstrip(". ")
