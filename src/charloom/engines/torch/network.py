"""The network made of stock PyTorch modules, under the parameter names of a model file.

Shapes: B sequences, T time steps, V vocabulary size, E embedding, H hidden, L layers, N targets.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from charloom.architecture import Architecture
from charloom.data.groups import NOTHING
from charloom.engines.masks import dropout_levels, dropout_stream

# With weight drop, a layer's weights are not contiguous. cuDNN copies them in each call, and PyTorch warns of it.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")

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
    """Dropout before the head, and between layers if masks are locked. On a CPU `masks.py` draws the levels.

    Srivastava et al. 2014. The other units are scaled up, so that their mean does not change. A locked mask is the same
    for all time steps of a row (Gal & Ghahramani 2016).

    part: the part of the batch that is computed, if not the whole. Masks are drawn for the whole batch, then cut.
    """

    def __init__(self, dropout: float, locked: bool) -> None:
        super().__init__()
        self.dropout, self.locked = dropout, locked
        self.random = dropout_stream(0, 0)
        self.part: BatchPart | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x with dropped units set to zero, in training only. Any shape; [B, T, H] if locked."""
        if not self.training or not self.dropout:
            return x
        if self.locked:
            whole = self.part.batch if self.part else len(x)
            mask_B1H = self.mask((whole, 1, x.shape[2]), self.dropout, x)
            return x * (mask_B1H[self.part.rows] if self.part else mask_B1H)
        if self.part:  # x is [N, H], or [B, T, H] if every position has a target
            mask_NH = self.mask((self.part.all_targets, x.shape[-1]), self.dropout, x)
            return x * mask_NH[self.part.targets].view_as(x)
        return x * self.mask(x.shape, self.dropout, x)

    def mask(self, shape: tuple[int, ...], share: float, like: Tensor) -> Tensor:
        """0 for this share of the units, 1 / (1 - share) for the others."""
        if like.device.type != "cpu":
            return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(1 - share).div_(1 - share)
        dtype = np.float64 if like.dtype == torch.float64 else np.float32
        return torch.from_numpy(dropout_levels(self.random, tuple(shape), share).mask(dtype)).to(like.dtype)


class TorchNetwork(nn.Module):
    """Input → recurrent layers → dropout → head.

    Dropout is between the layers and before the head (Zaremba, Sutskever and Vinyals 2014). weight_drop is the share of
    recurrent weights that a step drops (Merity, Keskar and Socher 2018).
    """

    def __init__(
        self, architecture: Architecture, dropout: float, locked: bool = False, weight_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.architecture, self.weight_drop = architecture, weight_drop
        if architecture.input == "embedding":
            self.embedding = nn.Embedding(architecture.vocabulary_size, architecture.embedding)
        elif architecture.input == "onehot":
            self.register_buffer("identity", torch.eye(architecture.vocabulary_size), persistent=False)
        self.rnn = self._recurrent(architecture, dropout if architecture.layers > 1 else 0.0)
        self.dropout = TorchDropout(dropout, locked)
        self._shells = [_shell(self.rnn, n) for n in range(architecture.layers)]
        self.head = nn.Linear(architecture.hidden, architecture.vocabulary_size)

    @staticmethod
    def _recurrent(architecture: Architecture, dropout: float) -> nn.RNNBase:
        sizes = (architecture.input_size, architecture.hidden, architecture.layers)
        if architecture.cell == "rnn":
            return nn.RNN(*sizes, nonlinearity=architecture.nonlinearity, batch_first=True, dropout=dropout)
        kind = nn.LSTM if architecture.cell == "lstm" else nn.GRU
        return kind(*sizes, batch_first=True, dropout=dropout)

    def forward(
        self, inputs_BT: Tensor, targets_BT: Tensor, state: TorchState | None
    ) -> tuple[Tensor, Tensor, TorchState]:
        """(logits_NV, targets_N, state). The head is computed only at positions that have a target."""
        out_BTH, state = self._unroll(self._features(inputs_BT), state)
        wanted_BT = targets_BT != NOTHING
        if bool(wanted_BT.all()):
            return self.head(self.dropout(out_BTH)).flatten(0, 1), targets_BT.flatten(), state
        if self.dropout.locked:
            return self.head(self.dropout(out_BTH)[wanted_BT]), targets_BT[wanted_BT], state
        return self.head(self.dropout(out_BTH[wanted_BT])), targets_BT[wanted_BT], state

    def _features(self, inputs_BT: Tensor) -> Tensor:
        """x_BTE, the features of each token. One-hot rows are gathered for this batch only: oneDNN and cuDNN need dense
        rows. The other engines never make them.
        """
        if self.architecture.input == "embedding":
            return self.embedding(inputs_BT)  # type: ignore[no-any-return]
        if self.architecture.input == "onehot":
            return nn.functional.embedding(inputs_BT, self.get_buffer("identity"))
        return (inputs_BT.to(self.head.weight.dtype) / self.architecture.vocabulary_size).unsqueeze(-1)

    def _unroll(self, x_BTE: Tensor, state: TorchState | None) -> tuple[Tensor, TorchState]:
        dropped = self.training and (self.weight_drop or (self.dropout.locked and self.rnn.dropout))
        if dropped or self.architecture.variant == "capped":
            return self._layer_by_layer(x_BTE, state)
        if self.architecture.cell == "lstm":
            out_BTH, (h_LBH, c_LBH) = self.rnn(x_BTE, state)
            return out_BTH, (h_LBH, c_LBH)
        out_BTH, h_LBH = self.rnn(x_BTE, None if state is None else state[0])
        return out_BTH, (h_LBH,)

    def _layer_by_layer(self, x_BTX: Tensor, state: TorchState | None) -> tuple[Tensor, TorchState]:
        """Like `_unroll`, with what PyTorch's layers lack: weight drop, masks between layers, capped input gates."""
        layers = [_weights_of(self.rnn, n) for n in range(self.architecture.layers)]
        for weights in layers if self.weight_drop and self.training else []:
            past_GH = weights["weight_hh_l0"]
            weights["weight_hh_l0"] = past_GH * self.dropout.mask(past_GH.shape, self.weight_drop, past_GH)
        states: list[TorchState] = []
        for n, weights in enumerate(layers):
            before = None if state is None else tuple(part_LBH[n : n + 1] for part_LBH in state)
            if self.architecture.variant == "capped":
                x_BTX, after = _capped_lstm(weights, x_BTX, before)
            elif self.architecture.cell == "lstm":
                x_BTX, after = functional_call(self._shells[n], weights, (x_BTX, before))
            else:
                x_BTX, h_1BH = functional_call(self._shells[n], weights, (x_BTX, None if before is None else before[0]))
                after = (h_1BH,)
            states.append(after)
            if n + 1 < len(layers):
                x_BTX = self.dropout(x_BTX)
        return x_BTX, tuple(torch.cat(parts) for parts in zip(*states, strict=True))


def _capped_lstm(weights: dict[str, Tensor], x_BTX: Tensor, before: TorchState | None) -> tuple[Tensor, TorchState]:
    """A layer of LSTM cells with capped input gates (`charloom.cells.cap`), step by step: (h_BTH, state)."""
    weight_GH, bias_G = weights["weight_hh_l0"], weights["bias_hh_l0"]
    sums_BTG = nn.functional.linear(x_BTX, weights["weight_ih_l0"], weights["bias_ih_l0"])
    start_BH = x_BTX.new_zeros(len(x_BTX), weight_GH.shape[1])
    h_BH, c_BH = (start_BH, start_BH) if before is None else (part_1BH[0] for part_1BH in before)
    steps: list[Tensor] = []
    for sum_BG in sums_BTG.unbind(1):
        a_BG = (sum_BG + nn.functional.linear(h_BH, weight_GH, bias_G)).to(c_BH.dtype)
        i_BH, f_BH, g_BH, o_BH = a_BG.chunk(4, 1)
        f_BH = f_BH.sigmoid()
        c_BH = f_BH * c_BH + torch.minimum(i_BH.sigmoid(), 1 - f_BH) * g_BH.tanh()
        h_BH = o_BH.sigmoid() * c_BH.tanh()
        steps.append(h_BH)
    return torch.stack(steps, 1), (h_BH[None], c_BH[None])


def _weights_of(rnn: nn.RNNBase, layer: int) -> dict[str, Tensor]:
    """A layer's parameters, under the names that they have in a network of one layer."""
    names = ("weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l")
    return {f"{name}0": getattr(rnn, f"{name}{layer}") for name in names}


def _shell(rnn: nn.RNNBase, layer: int) -> nn.RNNBase:
    """A network of this layer alone, without its own parameters."""
    size = rnn.input_size if layer == 0 else rnn.hidden_size
    kind = {"nonlinearity": rnn.nonlinearity} if isinstance(rnn, nn.RNN) else {}
    return type(rnn)(size, rnn.hidden_size, batch_first=True, device="meta", **kind)  # type: ignore[arg-type]
