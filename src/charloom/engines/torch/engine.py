"""The engine contract on PyTorch.

Master weights, state and loss are float32. With bf16, the products run under autocast. Dropout at step s is drawn from
(seed, s), so there is no random state to save: a resumed run draws the same masks.

Both halves of a step are functions of tensors without any wait for the device, so CUDA can replay them as graphs. On
other devices the same functions are called.

Shapes: B sequences, T time steps, V vocabulary size, N targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.data.groups import NOTHING
from charloom.engines.engine import Array, Engine, EngineChoice
from charloom.engines.masks import dropout_stream
from charloom.engines.resume import checked_steps, state_parts
from charloom.engines.torch.device import describe_products, to_device, use_plain_fp32
from charloom.engines.torch.graph import Captured, captures
from charloom.engines.torch.network import BatchPart, TorchNetwork, TorchState
from charloom.kernels import cores, thread_count


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turns PyTorch's RuntimeError for full memory into Python's MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if "memory" in str(error):
            raise MemoryError(str(error)) from None
        raise


class TorchEngine(Engine):
    """Trains and measures one network. See `charloom.engines.engine.Engine` for the contract.

    dtype: float32, or float64 for checks of gradients.
    """

    @_memory_errors()
    def __init__(
        self,
        choice: EngineChoice,
        architecture: Architecture,
        settings: TrainingSettings,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        asked = settings.threads
        torch.set_num_threads(thread_count(asked) if asked else min(torch.get_num_threads(), cores()))
        self._settings, self._dtype = settings, dtype
        self._device = torch.device(choice.device)
        self._products = torch.bfloat16 if choice.precision == "bf16" else dtype
        if self._device.type == "cuda" and choice.precision == "fp32":
            use_plain_fp32()
        locked = settings.dropout_mask == "locked"
        self.network = TorchNetwork(architecture, settings.dropout, locked, settings.weight_drop, self._device, dtype)
        for parameter in self.network.parameters():
            parameter.grad = torch.zeros_like(parameter)  # stays where it is: a graph writes and reads it there
        self._optimizer = _optimizer(self.network, settings, self._device)
        self._captured_gradients = Captured(self._compute_gradients, captures(self._device))
        self._captured_update = self._new_update()
        self._steps = 0

    def _new_update(self) -> Captured:
        """The second half of a step. PyTorch's Adagrad counts its steps on the CPU, where a graph cannot."""
        return Captured(self._compute_update, captures(self._device) and self._settings.optimizer != "adagrad")

    @property
    def description(self) -> str:
        """Engine, device, precision and threads in a few words."""
        return f"torch {torch.__version__} on {describe_products(self._device, self._products)}"

    @property
    def gradient_arrays(self) -> Mapping[str, Tensor]:
        """The sums of the last `gradients`, which `update` reads: the parameters' `grad`."""
        named = self.network.named_parameters()
        return {name: parameter.grad for name, parameter in named if parameter.grad is not None}

    @_memory_errors()
    def step(
        self, inputs_BT: Array, targets_BT: Array, state: TorchState | None, learning_rate: float
    ) -> tuple[float, int, TorchState]:
        """One step of training: (sum of nats over the targets, number of targets, state after the step).

        Waits for the loss only when the device has the work of both halves.
        """
        loss, count, state = self._first_half(inputs_BT, targets_BT, state)
        self.update(learning_rate, count)
        return loss.item(), count, state

    @_memory_errors()
    def gradients(
        self, inputs_BT: Array, targets_BT: Array, state: TorchState | None, rows: slice | None = None
    ) -> tuple[float, int, TorchState]:
        """The first half of a step: (sum of nats over the targets, number of targets, state after the step).

        rows: the only rows to compute; see `Engine.gradients`.
        """
        loss, count, state = self._first_half(inputs_BT, targets_BT, state, rows)
        return loss.item(), count, state

    def _first_half(
        self, inputs_BT: Array, targets_BT: Array, state: TorchState | None, rows: slice | None = None
    ) -> tuple[Tensor, int, TorchState]:
        """Like `gradients`, with the loss still on the device."""
        part = BatchPart.of(targets_BT, rows) if rows else None
        if rows:
            inputs_BT, targets_BT = inputs_BT[rows], targets_BT[rows]
        if not len(inputs_BT):
            self._optimizer.zero_grad(set_to_none=False)
            return torch.zeros(()), 0, self._zero_state(0)
        self.network.train()
        self.network.dropout.part = part
        self._seed_dropout()
        batch = self._on_device(inputs_BT, targets_BT, state)
        loss, *after = self._captured_gradients(batch, part)
        return loss, len(batch[1]), tuple(after)

    def _compute_gradients(
        self, inputs_BT: Tensor, targets_N: Tensor, positions_N: Tensor | None, *state: Tensor
    ) -> tuple[Tensor, ...]:
        """Writes the gradients of the sum of nats: (the sum, and the parts of the state after the step)."""
        self._optimizer.zero_grad(set_to_none=False)
        with self.network.dropped_weights():
            logits_NV, after = self._forward(inputs_BT, positions_N, state)
            loss = nn.functional.cross_entropy(logits_NV, targets_N, reduction="sum")
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), *after

    @_memory_errors()
    def update(self, learning_rate: float, count: int) -> None:
        """The second half: one step of gradient descent with the clipped mean over `count` targets."""
        rate = torch.full((), learning_rate, device=self._device) if self._captured_update.enabled else learning_rate
        self._captured_update((rate, torch.full((), max(1, count), dtype=self._dtype, device=self._device)))
        self._steps += 1

    @torch.no_grad()
    def _compute_update(self, learning_rate: Tensor | float, count: Tensor) -> tuple[Tensor, ...]:
        """Divides sums over `count` targets to get their mean, clips it as `engines/numpy/clip.py`, and descends."""
        sums = list(self.gradient_arrays.values())
        if self._settings.clip_value:
            limit = self._settings.clip_value * count
            for array in sums:
                array.clamp_(-limit, limit)
        factor = 1 / count
        if self._settings.clip:
            norm = nn.utils.get_total_norm(sums) / count
            factor = factor * (self._settings.clip / (norm + 1e-6)).clamp(max=1)
        for array in sums:
            array.mul_(factor)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        return ()

    def _seed_dropout(self) -> None:
        """Makes the dropout of this step a function of (seed, step). A graph reads the device's seed at each replay."""
        if self._settings.dropout or self._settings.weight_drop:
            self.network.dropout.random = dropout_stream(self._settings.seed, self._steps)
            if self._device.type != "cpu":
                torch.manual_seed(int(np.random.SeedSequence([self._settings.seed, self._steps]).generate_state(1)[0]))

    @_memory_errors()
    @torch.no_grad()
    def score(
        self, inputs_BT: Array, targets_BT: Array, state: TorchState | None
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_], TorchState]:
        """Loss without learning: (nats of each target, whether it was the top guess, state after the step)."""
        self.network.eval()
        inputs, targets_N, positions_N, *before = self._on_device(inputs_BT, targets_BT, state)
        logits_NV, after = self._forward(inputs, positions_N, tuple(before))
        nats_N = nn.functional.cross_entropy(logits_NV, targets_N, reduction="none")
        correct_N = logits_NV.argmax(1) == targets_N
        return nats_N.cpu().numpy(), correct_N.cpu().numpy(), after

    def _forward(self, inputs_BT: Tensor, positions_N: Tensor | None, state: TorchState) -> tuple[Tensor, TorchState]:
        """(logits_NV in master precision, state detached from this step's autograd graph)."""
        with torch.autocast(self._device.type, self._products, enabled=self._products == torch.bfloat16):
            logits_NV, state = self.network(inputs_BT, positions_N, state)
        return logits_NV.to(self._dtype), tuple(part.detach().to(self._dtype) for part in state)

    def _on_device(
        self, inputs_BT: Array, targets_BT: Array, state: TorchState | None
    ) -> tuple[Tensor, Tensor, Tensor | None, *TorchState]:
        """(inputs_BT, targets_N, positions_N, and the parts of the state) as tensors.

        positions_N: where the targets are in [B, T], flattened; None if every position has one.
        """
        positions_N, targets_N = np.flatnonzero(targets_BT != NOTHING), targets_BT.reshape(-1)
        every = len(positions_N) == len(targets_N)
        return (
            to_device(inputs_BT, self._device),
            to_device(targets_N if every else targets_N[positions_N], self._device),
            None if every else to_device(positions_N, self._device),
            *(self._zero_state(len(inputs_BT)) if state is None else state),
        )

    def _zero_state(self, batch: int) -> TorchState:
        """The state at the start of a sequence."""
        sizes = self.network.architecture
        parts = 2 if sizes.cell == "lstm" else 1
        zeros = torch.zeros(sizes.layers, batch, sizes.hidden, dtype=self._dtype, device=self._device)
        return (zeros,) * parts

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """A copy of all parameters under their names on disk."""
        named = self.network.named_parameters()
        return {name: value.detach().float().cpu().numpy().copy() for name, value in named}

    @torch.no_grad()
    def load(self, parameters: Mapping[str, NDArray[Any]]) -> None:
        """Replaces the parameters. The optimizer's memory does not change."""
        for name, value in self.network.named_parameters():
            value.copy_(torch.from_numpy(np.ascontiguousarray(parameters[name])))

    def snapshot(self, state: TorchState | None) -> dict[str, NDArray[Any]]:
        """The optimizer's memory of each parameter, the number of steps, and the state."""
        arrays: dict[str, NDArray[Any]] = {"steps": np.array(self._steps)}
        for name, parameter in self.network.named_parameters():
            for key, value in self._optimizer.state[parameter].items():
                if value is not None:
                    arrays[f"optimizer.{name}.{key}"] = value.detach().cpu().numpy().copy()
        for index, part in enumerate(state or ()):
            arrays[f"state.{index}"] = part.cpu().numpy().copy()
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]], batch: int) -> TorchState | None:
        """Restores what `snapshot` returned, and returns its state.

        batch: rows of the next step, which must equal those of the state; 0 if that step begins from the zero state.

        Raises:
            ModelError: names an array that is missing, not expected, of another shape, or not finite.
        """
        self._steps = checked_steps(arrays, self.network.architecture, self._settings, batch)
        self._restore_optimizer(arrays)
        return tuple(torch.from_numpy(part.copy()).to(self._device) for part in state_parts(arrays, batch)) or None

    def _restore_optimizer(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Uses `load_state_dict`, which puts each array on the device where the optimizer needs it."""
        names = {parameter: name for name, parameter in self.network.named_parameters()}
        ordered = [names[parameter] for group in self._optimizer.param_groups for parameter in group["params"]]
        states = {}
        for index, name in enumerate(ordered):
            prefix = f"optimizer.{name}."
            mine = {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}
            if mine:
                states[index] = {key: torch.from_numpy(value.copy()) for key, value in mine.items()}
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": states})
        self._captured_update = self._new_update()  # the old graph writes the memory that was replaced


def _optimizer(network: TorchNetwork, settings: TrainingSettings, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer of the settings. Weight decay applies to matrices only: biases do not need it."""
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    lr, graphs = settings.lr, captures(device)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr, settings.momentum, nesterov=settings.nesterov, fused=graphs or None)
    if settings.optimizer == "adagrad":
        return torch.optim.Adagrad(groups, lr)
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr, settings.beta2, capturable=graphs)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    betas = settings.beta1, settings.beta2
    return kind(groups, lr, betas=betas, fused=device.type != "mps", capturable=graphs)
