"""The architecture of a network: its sizes, and the name and shape of every parameter.

Names and layouts are those of `torch.nn.RNN/LSTM/GRU`, `nn.Embedding` and `nn.Linear`, on disk and in every engine. So
a PyTorch module loads a model file by name. Gate order: LSTM i, f, g, o; GRU r, z, n, with a separate hidden bias of n.

Shapes: V vocabulary size, E embedding, H hidden, G gates (1 rnn, 3 gru, 4 lstm).
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from charloom.config import ModelSettings, Section

GATES = {"rnn": 1, "gru": 3, "lstm": 4}


class Architecture(Section):
    """The settings that determine the shapes, and the vocabulary size."""

    cell: Literal["rnn", "lstm", "gru"]
    nonlinearity: Literal["tanh", "relu"]
    input_gate: Literal["free", "capped"] = "free"
    layers: int = Field(ge=1, le=64)
    hidden: int = Field(ge=1, le=65536)
    input: Literal["embedding", "onehot", "scalar"]
    embedding: int = Field(ge=1, le=65536)
    vocabulary_size: int = Field(ge=1, le=0x110002)

    @classmethod
    def of(cls, settings: ModelSettings, vocabulary_size: int) -> Architecture:
        """The architecture for these settings and this vocabulary size (V)."""
        chosen = {name: getattr(settings, name) for name in cls.model_fields if name != "vocabulary_size"}
        return cls(**chosen, vocabulary_size=vocabulary_size)

    @property
    def variant(self) -> str:
        """Which equations of the cell: an LSTM's input gate, or an RNN's nonlinearity; a GRU has one form."""
        return {"lstm": self.input_gate, "gru": "", "rnn": self.nonlinearity}[self.cell]

    @property
    def cell_name(self) -> str:
        """The cell for people."""
        return "lstm with capped input gates" if self.variant == "capped" else self.cell

    @property
    def input_size(self) -> int:
        """The number of input features of the first layer at each step."""
        return {"embedding": self.embedding, "onehot": self.vocabulary_size, "scalar": 1}[self.input]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The name and shape of every parameter, in a fixed order."""
        rows = GATES[self.cell] * self.hidden
        shapes: dict[str, tuple[int, ...]] = {}
        if self.input == "embedding":
            shapes["embedding.weight"] = (self.vocabulary_size, self.embedding)
        for layer in range(self.layers):
            shapes[f"rnn.weight_ih_l{layer}"] = (rows, self.input_size if layer == 0 else self.hidden)
            shapes[f"rnn.weight_hh_l{layer}"] = (rows, self.hidden)
            shapes[f"rnn.bias_ih_l{layer}"] = (rows,)
            shapes[f"rnn.bias_hh_l{layer}"] = (rows,)
        shapes["head.weight"] = (self.vocabulary_size, self.hidden)
        shapes["head.bias"] = (self.vocabulary_size,)
        return shapes

    @property
    def size(self) -> int:
        """The number of values in all parameters."""
        return sum(map(math.prod, self.shapes.values()))
