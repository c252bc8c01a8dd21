"""The network as stock PyTorch modules, under the parameter names of a model file.

Shapes: B texts side by side, T characters, V symbols, E embedding, H hidden, L layers, N targets.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from charloom.architecture import Architecture
from charloom.text.batches import NOTHING

State = tuple[Tensor, ...]  # (h_LBH,) or, for an LSTM, (h_LBH, c_LBH)


class Dropout(nn.Module):
    """Dropout before the head. On a CPU NumPy draws the mask: PyTorch's own draw took a quarter of a training step.

    Srivastava et al. 2014; what is kept is scaled up, so that its mean stays.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.draw = np.random.Generator(np.random.Philox(0))

    def forward(self, x: Tensor) -> Tensor:
        """x, with units zeroed while training; any shape."""
        if not self.training or not self.dropout:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.dropout)
        kept = round((1 - self.dropout) * 2**16)
        mask = torch.from_numpy(self.draw.integers(0, 2**16, x.shape, np.uint16) < kept)
        return x * (mask.to(x.dtype) * (2**16 / kept))


class Network(nn.Module):
    """Input → recurrent layers → dropout → head.

    Dropout stands between the layers and before the head (Zaremba, Sutskever and Vinyals 2014).
    """

    def __init__(self, architecture: Architecture, dropout: float) -> None:
        super().__init__()
        self.architecture = architecture
        if architecture.input == "embedding":
            self.embedding = nn.Embedding(architecture.symbols, architecture.embedding)
        elif architecture.input == "onehot":
            self.register_buffer("identity", torch.eye(architecture.symbols), persistent=False)
        self.rnn = self._recurrent(architecture, dropout if architecture.layers > 1 else 0.0)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(architecture.hidden, architecture.symbols)

    @staticmethod
    def _recurrent(architecture: Architecture, dropout: float) -> nn.RNNBase:
        sizes = (architecture.input_size, architecture.hidden, architecture.layers)
        if architecture.cell == "rnn":
            return nn.RNN(*sizes, nonlinearity=architecture.nonlinearity, batch_first=True, dropout=dropout)
        kind = nn.LSTM if architecture.cell == "lstm" else nn.GRU
        return kind(*sizes, batch_first=True, dropout=dropout)

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor, state: State | None) -> tuple[Tensor, Tensor, State]:
        """(logits_NV, targets_N, state) for the positions that have a target: the head is computed nowhere else."""
        out_BTH, state = self._unroll(self._enter(inputs_BT), state)
        wanted_BT = targets_BT != NOTHING
        if bool(wanted_BT.all()):
            return self.head(self.dropout(out_BTH)).flatten(0, 1), targets_BT.flatten(), state
        return self.head(self.dropout(out_BTH[wanted_BT])), targets_BT[wanted_BT], state

    def _enter(self, inputs_BT: Tensor) -> Tensor:
        """x_BTE, what the first layer is fed. One-hot rows are gathered for this batch only: oneDNN and cuDNN want them
        dense; where layers are written by hand they are never made.
        """
        if self.architecture.input == "embedding":
            return self.embedding(inputs_BT)  # type: ignore[no-any-return]
        if self.architecture.input == "onehot":
            return nn.functional.embedding(inputs_BT, self.get_buffer("identity"))
        return (inputs_BT.to(self.head.weight.dtype) / self.architecture.symbols).unsqueeze(-1)

    def _unroll(self, x_BTE: Tensor, state: State | None) -> tuple[Tensor, State]:
        if self.architecture.cell == "lstm":
            out_BTH, (h_LBH, c_LBH) = self.rnn(x_BTE, state)
            return out_BTH, (h_LBH, c_LBH)
        out_BTH, h_LBH = self.rnn(x_BTE, None if state is None else state[0])
        return out_BTH, (h_LBH,)
