"""Initial values of the parameters. NumPy draws them from the seed, so they are the same in every engine.

Sources:

- recurrent matrices are orthogonal, which keeps the gradient's norm through time (Saxe, McClelland and Ganguli 2014);
- input matrices are uniform within sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010);
- the forget gate's bias is 1, so that a cell remembers by default (Gers, Schmidhuber and Cummins 2000; Jozefowicz,
  Zaremba and Sutskever 2015);
- embeddings are from N(0, 1), as in `nn.Embedding`;
- the head starts small, so that the first prediction is close to uniform.

Shapes: H hidden, G gates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charloom.architecture import GATES, Architecture

Matrix = NDArray[np.float32]


def initial_parameters(architecture: Architecture, seed: int) -> dict[str, Matrix]:
    """Every parameter of the architecture, freshly drawn; float32, C-contiguous."""
    generator = np.random.default_rng(seed)
    return {name: _initial(name, shape, architecture, generator) for name, shape in architecture.shapes.items()}


def _initial(name: str, shape: tuple[int, ...], architecture: Architecture, generator: np.random.Generator) -> Matrix:
    if name.startswith("rnn.bias_ih") and architecture.cell == "lstm":
        hidden = architecture.hidden
        return np.repeat(np.array([0, 1, 0, 0], np.float32), hidden)  # gates i, f, g, o
    if "bias" in name:
        return np.zeros(shape, np.float32)
    if name == "embedding.weight":
        return generator.standard_normal(shape, np.float32)
    gates = GATES[architecture.cell] if name.startswith("rnn.") else 1
    initialize = _orthogonal if "weight_hh" in name else _glorot
    return np.concatenate([initialize(shape[0] // gates, shape[1], generator) for _ in range(gates)])


def _orthogonal(rows: int, columns: int, generator: np.random.Generator) -> Matrix:
    """A random square matrix, uniform over the orthogonal group (Mezzadri 2007: QR, with the signs of R's diagonal)."""
    q, r = np.linalg.qr(generator.standard_normal((rows, columns)))
    return (q * np.sign(np.diag(r))).astype(np.float32)


def _glorot(rows: int, columns: int, generator: np.random.Generator) -> Matrix:
    bound = np.sqrt(6 / (rows + columns))
    return generator.uniform(-bound, bound, (rows, columns)).astype(np.float32)
