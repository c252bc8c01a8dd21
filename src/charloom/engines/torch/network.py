"""The network made of stock PyTorch modules, under the parameter names of a model file.

Shapes: B sequences, T time steps, V vocabulary size, E embedding, H hidden, L layers, N targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charloom.architecture import Architecture
from charloom.data.groups import NOTHING
from charloom.engines.masks import dropout_levels, dropout_stream

PARAMETERS = ("weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l")
"""The names of a layer's parameters in PyTorch, without its number."""

TorchState = tuple[Tensor, ...]  # (h_LBH,) or, for an LSTM, (h_LBH, c_LBH)


class BatchPart(NamedTuple):
    """The part of a batch that one process computes: its rows and targets, and how many the whole batch has."""

    rows: slice
    batch: int
    targets: slice
    all_targets: int

    @classmethod
    def of(cls, targets_BT: NDArray[np.int64], rows: slice) -> BatchPart:
        """These rows of the batch with these targets."""
        counts_B = (targets_BT != NOTHING).sum(1)
        before = int(counts_B[: rows.start].sum())
        targets = slice(before, before + int(counts_B[rows].sum()))
        return cls(rows, len(targets_BT), targets, int(counts_B.sum()))


class TorchDropout(nn.Module):
    """Dropout between layers and before the head. On a CPU `masks.py` draws the levels, else the device does.

    Srivastava et al. 2014. The other units are scaled up, so that their mean does not change. A locked mask is the same
    for all time steps of a row (Gal & Ghahramani 2016). PyTorch's own dropout between layers is not used: cuDNN keeps
    its random state, which a CUDA graph cannot set for each step.

    part: the part of the batch that is computed, if not the whole. Masks are drawn for the whole batch, then cut.
    """

    def __init__(self, dropout: float, locked: bool) -> None:
        super().__init__()
        self.dropout, self.locked = dropout, locked
        self.random = dropout_stream(0, 0)
        self.part: BatchPart | None = None

    def between_layers(self, x_BTH: Tensor) -> Tensor:
        """x_BTH with dropped units set to zero, in training only."""
        if not self.training or not self.dropout:
            return x_BTH
        rows, batch = (self.part.rows, self.part.batch) if self.part else (slice(None), len(x_BTH))
        steps = 1 if self.locked else x_BTH.shape[1]
        mask_TBH = self.mask((steps, batch, x_BTH.shape[2]), self.dropout, x_BTH)
        return x_BTH * mask_TBH.transpose(0, 1)[rows]

    def before_head(self, x_BTH: Tensor, positions_N: Tensor | None) -> Tensor:
        """x_NH, the units at these positions of [B, T]; in training with dropped units set to zero.

        positions_N: None for all positions.
        """
        if self.locked or not self.training or not self.dropout:
            return _at(self.between_layers(x_BTH), positions_N)
        x_NH = _at(x_BTH, positions_N)
        targets, count = (self.part.targets, self.part.all_targets) if self.part else (slice(None), len(x_NH))
        return x_NH * self.mask((count, x_NH.shape[1]), self.dropout, x_NH)[targets]

    def mask(self, shape: tuple[int, ...], share: float, like: Tensor) -> Tensor:
        """0 for this share of the units, 1 / (1 - share) for the others."""
        if like.device.type != "cpu":
            return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(1 - share).div_(1 - share)
        dtype = np.float64 if like.dtype == torch.float64 else np.float32
        return torch.from_numpy(dropout_levels(self.random, tuple(shape), share).mask(dtype)).to(like.dtype)


def _at(x_BTH: Tensor, positions_N: Tensor | None) -> Tensor:
    """x_NH at these positions of [B, T]; None for all."""
    x_NH = x_BTH.flatten(0, 1)
    return x_NH if positions_N is None else x_NH.index_select(0, positions_N)


class TorchNetwork(nn.Module):
    """Input → recurrent layers → dropout → head.

    Dropout is between the layers and before the head (Zaremba, Sutskever and Vinyals 2014). weight_drop is the share of
    recurrent weights that a step drops (Merity, Keskar and Socher 2018).

    layers: those of `rnn` one by one, with the same parameters; empty if `rnn` is called as a whole, which is faster.
    """

    def __init__(
        self,
        architecture: Architecture,
        dropout: float,
        locked: bool = False,
        weight_drop: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.architecture, self.weight_drop = architecture, weight_drop
        if architecture.input == "embedding":
            self.embedding = nn.Embedding(architecture.vocabulary_size, architecture.embedding)
        elif architecture.input == "onehot":
            self.register_buffer("identity", torch.eye(architecture.vocabulary_size), persistent=False)
        self.rnn = _recurrent(architecture, architecture.input_size, architecture.layers)
        self.dropout = TorchDropout(dropout, locked)
        self.head = nn.Linear(architecture.hidden, architecture.vocabulary_size)
        self.to(device, dtype)
        apart = architecture.variant == "capped" or (dropout and architecture.layers > 1)
        self.layers = nn.ModuleList(_layer(architecture, self.rnn, n) for n in range(architecture.layers) if apart)

    def forward(self, inputs_BT: Tensor, positions_N: Tensor | None, state: TorchState) -> tuple[Tensor, TorchState]:
        """(logits_NV, state). The head is computed only at these positions of [B, T]; None for all."""
        out_BTH, state = self._unroll(self._features(inputs_BT), state)
        return self.head(self.dropout.before_head(out_BTH, positions_N)), state

    @contextmanager
    def dropped_weights(self) -> Iterator[None]:
        """Weight drop: in this context, the dropped recurrent weights are zero. At its end, their gradients are too.

        The weights change in place, because cuDNN needs them where they are. It copies all others in each call.
        """
        if not self.weight_drop:
            yield
            return
        weights = [getattr(self.rnn, f"weight_hh_l{n}") for n in range(self.architecture.layers)]
        masks = [self.dropout.mask(weight_GH.shape, self.weight_drop, weight_GH) for weight_GH in weights]
        whole = [weight_GH.detach().clone() for weight_GH in weights]
        try:
            for weight_GH, mask_GH in zip(weights, masks, strict=True):
                weight_GH.detach().mul_(mask_GH)
            yield
        finally:
            for weight_GH, before_GH in zip(weights, whole, strict=True):
                weight_GH.detach().copy_(before_GH)
        for weight_GH, mask_GH in zip(weights, masks, strict=True):
            weight_GH.grad.mul_(mask_GH)

    def _features(self, inputs_BT: Tensor) -> Tensor:
        """x_BTE, the features of each token. One-hot rows are gathered for this batch only: oneDNN and cuDNN need dense
        rows. The other engines never make them.
        """
        if self.architecture.input == "embedding":
            return self.embedding(inputs_BT)  # type: ignore[no-any-return]
        if self.architecture.input == "onehot":
            return nn.functional.embedding(inputs_BT, self.get_buffer("identity"))
        return (inputs_BT.to(self.head.weight.dtype) / self.architecture.vocabulary_size).unsqueeze(-1)

    def _unroll(self, x_BTE: Tensor, state: TorchState) -> tuple[Tensor, TorchState]:
        """(h_BTH of the top layer, state). Dropout between layers and capped gates need the layers one by one."""
        if not self.layers:
            return _called(self.rnn, x_BTE, state)
        states: list[TorchState] = []
        x_BTX = x_BTE
        for n, layer in enumerate(self.layers):
            before = tuple(part_LBH[n : n + 1] for part_LBH in state)
            x_BTX = self.dropout.between_layers(x_BTX) if n else x_BTX
            compute = _capped_lstm if self.architecture.variant == "capped" else _called
            x_BTX, after = compute(layer, x_BTX, before)
            states.append(after)
        return x_BTX, tuple(torch.cat(parts) for parts in zip(*states, strict=True))


def _called(rnn: nn.Module, x_BTX: Tensor, state: TorchState) -> tuple[Tensor, TorchState]:
    """(h_BTH, state) of PyTorch's layers, whose state is a tuple only in an LSTM."""
    if isinstance(rnn, nn.LSTM):
        out_BTH, (h_LBH, c_LBH) = rnn(x_BTX, state)
        return out_BTH, (h_LBH, c_LBH)
    out_BTH, h_LBH = rnn(x_BTX, state[0])
    return out_BTH, (h_LBH,)


def _capped_lstm(layer: nn.Module, x_BTX: Tensor, before: TorchState) -> tuple[Tensor, TorchState]:
    """A layer of LSTM cells with capped input gates (`charloom.cells.cap`), step by step: (h_BTH, state)."""
    weight_GX, weight_GH, input_bias_G, bias_G = (layer.get_parameter(f"{name}0") for name in PARAMETERS)
    sums_BTG = nn.functional.linear(x_BTX, weight_GX, input_bias_G)
    h_BH, c_BH = (part_1BH[0] for part_1BH in before)
    steps: list[Tensor] = []
    for sum_BG in sums_BTG.unbind(1):
        a_BG = (sum_BG + nn.functional.linear(h_BH, weight_GH, bias_G)).to(c_BH.dtype)
        i_BH, f_BH, g_BH, o_BH = a_BG.chunk(4, 1)
        f_BH = f_BH.sigmoid()
        c_BH = f_BH * c_BH + torch.minimum(i_BH.sigmoid(), 1 - f_BH) * g_BH.tanh()
        h_BH = o_BH.sigmoid() * c_BH.tanh()
        steps.append(h_BH)
    return torch.stack(steps, 1), (h_BH[None], c_BH[None])


def _recurrent(
    architecture: Architecture, inputs: int, layers: int, device: Literal["cpu", "meta"] = "cpu"
) -> nn.RNNBase:
    """PyTorch's layers of the architecture's cell."""
    sizes = (inputs, architecture.hidden, layers)
    if architecture.cell == "rnn":
        return nn.RNN(*sizes, nonlinearity=architecture.nonlinearity, batch_first=True, device=device)
    kind = nn.LSTM if architecture.cell == "lstm" else nn.GRU
    return kind(*sizes, batch_first=True, device=device)


def _layer(architecture: Architecture, rnn: nn.RNNBase, n: int) -> nn.RNNBase:
    """Layer n alone, with the parameters of `rnn`. On a GPU they move to where cuDNN needs those of this layer."""
    layer = _recurrent(architecture, architecture.hidden if n else architecture.input_size, 1, "meta")
    for name in PARAMETERS:
        setattr(layer, f"{name}0", getattr(rnn, f"{name}{n}"))
    layer.flatten_parameters()
    return layer
