"""Half a step of training as a CUDA graph: one call replays all its kernels, without the time to start each.

A graph reads and writes memory that stays where it is. So its function has tensors as arguments and results, and its
other tensors (parameters, gradients, the optimizer's memory) must not be replaced.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from charloom.errors import DeviceError

SWITCH = "CHARLOOM_CUDA_GRAPHS"  # the environment variable that is `off` to train without graphs

WARM_UP = 2
"""Equal calls before the capture. The first of all calls makes what a capture cannot: the optimizer's memory, cuDNN's
and cuBLAS's workspaces.
"""

Arguments = tuple[Any, ...]  # tensors, and None


def captures(device: torch.device) -> bool:
    """Whether steps on this device become graphs: on NVIDIA's GPUs. PyTorch calls AMD's `cuda` too; none was tried."""
    return device.type == "cuda" and torch.version.cuda is not None and os.environ.get(SWITCH) != "off"


class Captured:
    """A function of tensors, which becomes a graph as soon as it is called more than `WARM_UP` times with one shape.

    Every other shape (the end of an epoch, records) is computed without a graph. It does so too if not enabled.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], enabled: bool) -> None:
        self._function, self.enabled = function, enabled
        self._stream = torch.cuda.Stream() if enabled else None  # type: ignore[no-untyped-call]
        self._graph: _Graph | None = None
        self._shape: object = None
        self._calls = 0  # in a row, with this shape

    def __call__(self, arguments: Arguments, kind: object = None) -> tuple[Tensor, ...]:
        """The function's results. Calls of another `kind` count as another shape."""
        if self._stream is None:
            return self._function(*arguments)
        shape = kind, [None if each is None else each.shape for each in arguments]
        if self._graph is None:
            self._calls = self._calls + 1 if shape == self._shape else 1
            self._shape = shape
            if self._calls > WARM_UP:
                self._graph = _Graph(self._function, arguments, self._stream)
        if self._graph is not None and shape == self._shape:
            return self._graph(arguments)
        return self._called_on(self._stream, arguments)

    def _called_on(self, stream: torch.cuda.Stream, arguments: Arguments) -> tuple[Tensor, ...]:
        """A call without a graph, on the stream of the capture: autograd and the libraries must know it before."""
        here = torch.cuda.current_stream()
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            results = self._function(*arguments)
        here.wait_stream(stream)
        return results


class _Graph:
    """A function, captured with copies of these arguments. The capture records its kernels and runs none of them.

    Raises:
        DeviceError: if PyTorch or a library does in it what a graph cannot hold.
    """

    def __init__(
        self, function: Callable[..., tuple[Tensor, ...]], arguments: Arguments, stream: torch.cuda.Stream
    ) -> None:
        self._arguments = [None if each is None else each.clone() for each in arguments]
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self._graph, stream=stream):
                self._results = function(*self._arguments)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise DeviceError(
                f"PyTorch must capture a step as a CUDA graph; it could not: {reason}; set {SWITCH}=off"
            ) from error

    def __call__(self, arguments: Arguments) -> tuple[Tensor, ...]:
        """The results for other arguments of the same shapes: copies, because the next call overwrites them."""
        for mine, each in zip(self._arguments, arguments, strict=True):
            if mine is not None:
                mine.copy_(each)
        self._graph.replay()
        return tuple(result.clone() for result in self._results)
