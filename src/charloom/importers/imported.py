"""The network in an imported file, and its conversion to charloom's parameters.

The readers convert weights to PyTorch's layouts, with tokens in the order of the file. This module converts to
charloom's names and token order, and checks every shape.

Shapes: V vocabulary size, E embedding, X a layer's input size, H hidden, G gates times H (1 rnn, 3 gru, 4 lstm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from charloom.architecture import GATES, Architecture
from charloom.cells import Floats
from charloom.checkpoint import ModelFolder
from charloom.data.reading import Notify
from charloom.errors import ModelError, SettingsError, in_a_file
from charloom.importers.tokens import check_tokens, renumber
from charloom.validation import validated


@dataclass(frozen=True, eq=False)
class ImportedLayer:
    """One recurrent layer in PyTorch's layout and gate order. name: its name in the file, for errors."""

    name: str
    weight_ih_GX: Floats
    weight_hh_GH: Floats
    bias_ih_G: Floats
    bias_hh_G: Floats

    @property
    def hidden(self) -> int:
        """H."""
        return int(self.weight_hh_GH.shape[1])

    @property
    def cell(self) -> str:
        """The cell, from the number of its gates."""
        rows = len(self.weight_hh_GH)
        for cell, gates in GATES.items():
            if rows == gates * self.hidden:
                return cell
        raise ModelError(f"{self.name} must have 1, 3 or 4 gates of {self.hidden} units; found {rows} rows")


@dataclass(frozen=True, eq=False)
class ImportedModel:
    """A network in PyTorch's layouts, with tokens in the order of the file.

    format: the file's format, for people; nonlinearity: of an rnn cell; tokens: the characters in the file, if any.
    """

    format: str
    layers: tuple[ImportedLayer, ...]
    head_VH: Floats
    head_V: Floats
    embedding_VE: Floats | None = None
    nonlinearity: Literal["tanh", "relu"] = "tanh"
    tokens: tuple[str, ...] | None = None


def to_model(imported: ImportedModel, tokens: tuple[str, ...], notice: Notify) -> ModelFolder:
    """The charloom model with the same logits.

    Args:
        imported: the network that was read.
        tokens: in the order of the file.
        notice: called with one line for each assumption.

    Raises:
        ModelError: if the shapes do not fit each other, or values are NaN or infinite.
    """
    check_tokens(tokens, len(imported.head_VH))
    vocabulary, order = renumber(tokens)
    if left_out := len(tokens) - len(order):
        notice(f"padding tokens are left out, as if they had probability 0: {left_out}")
    parameters, kind = _parameters(imported), _input(imported)
    if kind == "scalar":
        notice("the first layer takes one number; assumed: the character's index divided by the number of characters")
        if order != [*range(len(tokens))]:
            kind, parameters["embedding.weight"] = "embedding", _scalar_embedding(len(tokens))
    _check(parameters, _architecture(imported, kind, len(tokens)))
    return ModelFolder(_architecture(imported, kind, len(order)), vocabulary, _renumbered(parameters, order, kind))


def _scalar_embedding(count: int) -> Floats:
    """Scalar input as an embedding of size 1: each token keeps its index / V of the file when ids change."""
    return (np.arange(count) / count)[:, None]


def _parameters(imported: ImportedModel) -> dict[str, Floats]:
    """Every array under charloom's name."""
    found = {"head.weight": imported.head_VH, "head.bias": imported.head_V}
    for number, layer in enumerate(imported.layers):
        found[f"rnn.weight_ih_l{number}"] = layer.weight_ih_GX
        found[f"rnn.weight_hh_l{number}"] = layer.weight_hh_GH
        found[f"rnn.bias_ih_l{number}"] = layer.bias_ih_G
        found[f"rnn.bias_hh_l{number}"] = layer.bias_hh_G
    return found if imported.embedding_VE is None else {"embedding.weight": imported.embedding_VE, **found}


def _input(imported: ImportedModel) -> str:
    """The kind of input, from the input size of the first layer."""
    size, vocabulary_size = imported.layers[0].weight_ih_GX.shape[1], len(imported.head_VH)
    if imported.embedding_VE is not None:
        return "embedding"
    if size in (vocabulary_size, 1):
        return "onehot" if size == vocabulary_size else "scalar"
    raise ModelError(
        f"without an embedding, {imported.layers[0].name} must take {vocabulary_size} numbers (one-hot) or 1 (the "
        f"index); it takes {size}"
    )


def _architecture(imported: ImportedModel, kind: str, vocabulary_size: int) -> Architecture:
    """The architecture with this vocabulary size; all layers must have the same cell and size."""
    first = imported.layers[0]
    for layer in imported.layers:
        if (layer.cell, layer.hidden) != (first.cell, first.hidden):
            raise ModelError(
                f"every recurrent layer must be like the first, {first.name}: {first.cell} with {first.hidden} units; "
                f"{layer.name} is {layer.cell} with {layer.hidden}"
            )
    embedding = 1 if imported.embedding_VE is None else imported.embedding_VE.shape[1]
    values = {"cell": first.cell, "nonlinearity": imported.nonlinearity, "layers": len(imported.layers)}
    values |= {"hidden": first.hidden, "input": kind, "embedding": embedding, "vocabulary_size": vocabulary_size}
    try:
        return validated(Architecture, values)
    except SettingsError as error:
        raise ModelError(f"the network must be one that charloom can compute: {in_a_file(error)}") from None


def _check(parameters: dict[str, Floats], architecture: Architecture) -> None:
    for name, shape in architecture.shapes.items():
        if parameters[name].shape != shape:
            raise ModelError(f"the file's {name} must be {shape} in this network; found {parameters[name].shape}")
        if not np.isfinite(parameters[name].astype(np.float32)).all():
            raise ModelError(f"the file's {name} must be finite in float32; it holds NaN or infinity")


def _renumbered(parameters: dict[str, Floats], order: list[int], kind: str) -> dict[str, NDArray[np.float32]]:
    """float32 parameters, with the rows and one-hot columns of tokens in charloom's order.

    Arrays are contiguous, because safetensors writes memory unchanged.
    """
    result = dict(parameters)
    for name in {"embedding.weight", "head.weight", "head.bias"} & result.keys():
        result[name] = result[name][order]
    if kind == "onehot":
        result["rnn.weight_ih_l0"] = result["rnn.weight_ih_l0"][:, order]
    return {name: np.ascontiguousarray(value, np.float32) for name, value in result.items()}
