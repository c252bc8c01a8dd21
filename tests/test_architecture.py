"""Names, shapes and sizes, compared with PyTorch's own modules."""

from __future__ import annotations

import itertools

import pydantic
import pytest

from charloom.architecture import Architecture
from charloom.config import ModelSettings

CASES = [*itertools.product(["rnn", "lstm", "gru"], [1, 2, 3], ["embedding", "onehot", "scalar"])]
V, E, H = 7, 3, 5


def architecture(cell: str, layers: int, inputs: str) -> Architecture:
    return Architecture.of(ModelSettings(cell=cell, layers=layers, input=inputs, embedding=E, hidden=H), V)


@pytest.mark.parametrize(("cell", "layers", "inputs"), CASES)
def test_shapes_are_those_of_stock_modules(cell: str, layers: int, inputs: str):
    """Catches a name, an order or a shape that nn.RNN/LSTM/GRU, nn.Embedding or nn.Linear would not load."""
    nn = pytest.importorskip("torch").nn
    stock = nn.Module()
    if inputs == "embedding":
        stock.embedding = nn.Embedding(V, E)
    width = {"embedding": E, "onehot": V, "scalar": 1}[inputs]
    stock.rnn = getattr(nn, cell.upper())(width, H, layers)
    stock.head = nn.Linear(H, V)
    made = architecture(cell, layers, inputs)
    assert [*made.shapes.items()] == [(name, tuple(value.shape)) for name, value in stock.state_dict().items()]
    assert made.size == sum(value.numel() for value in stock.parameters())


def test_size_by_hand():
    """Catches a bias counted as a matrix, and a layer left out."""
    # GRU: 3 gates of 5 units; layer 0 reads 3 numbers, layer 1 reads 5; then the embedding and the head.
    expected = 3 * 5 * (3 + 5 + 2) + 3 * 5 * (5 + 5 + 2) + 7 * 3 + 7 * (5 + 1)
    assert architecture("gru", 2, "embedding").size == expected


def test_every_choice_that_shapes_a_network_is_taken_over():
    """Catches a setting of the network that is missing in a model folder."""
    settings = ModelSettings(cell="rnn", nonlinearity="relu", layers=2, hidden=4, input="scalar", embedding=9)
    made = Architecture.of(settings, V).model_dump()
    assert made.pop("vocabulary_size") == V
    assert made == settings.model_dump()


@pytest.mark.parametrize("vocabulary_size", [0, -1, 0x110003])
def test_impossible_vocabularies(vocabulary_size: int):
    """Catches a damaged config.json with a vocabulary of size 0, or one that needs terabytes."""
    with pytest.raises(pydantic.ValidationError, match="vocabulary_size"):
        Architecture.of(ModelSettings(), vocabulary_size)
