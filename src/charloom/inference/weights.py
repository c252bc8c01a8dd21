"""The parameters of a network for a backend, and values that follow from them alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from charloom.architecture import GATES, Architecture
from charloom.cells import Floats, input_features

TABLE_LIMIT = 2**22
"""Most numbers in the input table: 16 MiB in float32. Above it, a product in each step costs less than the memory."""


@dataclass(frozen=True, eq=False)
class InferenceWeights:
    """A network's parameters. Nothing in it changes, so backends and threads share it.

    architecture: sizes and kinds; parameters: by the names of `architecture.shapes`, all of one dtype, which is also
    the dtype of all computations. They are copied, so a trainer can pass arrays that it changes later. reset_id: the
    token that is always read from the zero state, or None.
    """

    architecture: Architecture
    parameters: Mapping[str, Floats]
    reset_id: int | None = None

    def __post_init__(self) -> None:
        copies = {name: parameter.copy() for name, parameter in self.parameters.items()}
        object.__setattr__(self, "parameters", copies)  # a frozen dataclass sets its own fields in this way

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of every parameter."""
        return self.parameters["head.bias"].dtype

    @cached_property
    def features_VE(self) -> Floats | None:
        """The input features of each token: see `charloom.cells.input_features`."""
        return input_features(self.architecture, self.parameters)

    @property
    def tabled(self) -> bool:
        """Whether a table replaces the first layer's input product; always for one-hot input."""
        sizes = self.architecture
        return self.features_VE is None or sizes.vocabulary_size * GATES[sizes.cell] * sizes.hidden <= TABLE_LIMIT
