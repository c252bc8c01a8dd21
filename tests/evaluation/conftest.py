"""Model folders with random weights, large enough that each prediction depends on all earlier tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from charloom.architecture import Architecture
from charloom.checkpoint import ModelFolder
from charloom.data.vocabulary import Vocabulary

RandomFolder = Callable[..., ModelFolder]


@pytest.fixture
def random_folder() -> RandomFolder:
    """`random_folder(vocabulary, cell, **fields of ModelFolder)`."""

    def make(vocabulary: Vocabulary, cell: str = "lstm", **fields) -> ModelFolder:
        made = Architecture(
            cell=cell,
            nonlinearity="tanh",
            layers=2,
            hidden=12,
            input="embedding",
            embedding=4,
            vocabulary_size=vocabulary.size,
        )
        random = np.random.default_rng(0)
        parameters = {
            name: (2 * random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
            for name, shape in made.shapes.items()
        }
        return ModelFolder(made, vocabulary, parameters, **fields)

    return make
