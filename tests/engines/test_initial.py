"""The initial parameters: the distributions of the papers, and the same values for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from charloom.architecture import GATES, Architecture
from charloom.engines import initial
from charloom.engines.initial import initial_parameters


def architecture(cell="lstm", layers=2, input_kind="embedding"):
    return Architecture(
        cell=cell, nonlinearity="tanh", layers=layers, hidden=16, input=input_kind, embedding=6, vocabulary_size=11
    )


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_each_gate_has_an_orthogonal_recurrent_matrix_of_its_own(cell):
    """Catches one orthogonal matrix cut into gates: its columns are orthogonal, but no gate is."""
    parameters = initial_parameters(architecture(cell), seed=3)
    blocks = [
        block for layer in range(2) for block in np.split(parameters[f"rnn.weight_hh_l{layer}"], GATES[cell], axis=0)
    ]
    for block in blocks:
        np.testing.assert_allclose(block @ block.T, np.eye(16), atol=1e-5)
    distinct = {block.tobytes() for block in blocks}
    assert len(distinct) == len(blocks)


def test_orthogonal_matrices_are_drawn_evenly():
    """Catches QR without the signs of R's diagonal, whose first column is not uniform (Mezzadri 2007)."""
    generator = np.random.default_rng(0)
    corner = [initial._orthogonal(2, 2, generator)[0, 0] for _ in range(2000)]
    assert abs(np.mean(corner)) < 0.08  # standard error 0.016; without the signs -0.64


def test_the_forget_gate_alone_starts_open():
    """Catches a bias of 1 on another gate, on both bias vectors (2 in all), or only in the lower layer."""
    parameters = initial_parameters(architecture("lstm"), seed=0)
    for layer in range(2):
        total = parameters[f"rnn.bias_ih_l{layer}"] + parameters[f"rnn.bias_hh_l{layer}"]
        assert total.reshape(4, 16).tolist() == [[0.0] * 16, [1.0] * 16, [0.0] * 16, [0.0] * 16]
    for cell in ("rnn", "gru"):
        parameters = initial_parameters(architecture(cell), seed=0)
        assert not any(value.any() for name, value in parameters.items() if "bias" in name)


@pytest.mark.parametrize("input_kind", ["embedding", "onehot", "scalar"])
def test_every_parameter_is_there_as_float32_in_its_shape(input_kind):
    made = architecture(input_kind=input_kind)
    parameters = initial_parameters(made, seed=0)
    assert {name: value.shape for name, value in parameters.items()} == made.shapes
    assert all(value.dtype == np.float32 and value.flags.c_contiguous for value in parameters.values())


def test_the_seed_alone_decides():
    """Catches values from NumPy's global generator, or from the order of a set, which differ from call to call."""
    np.random.seed(1)  # noqa: NPY002  what must not matter
    one = initial_parameters(architecture(), seed=5)
    np.random.seed(2)  # noqa: NPY002
    two = initial_parameters(architecture(), seed=5)
    other = initial_parameters(architecture(), seed=6)
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    assert not any(np.array_equal(one[name], other[name]) for name in one if "bias" not in name)


def test_the_input_matrices_are_within_glorot_bounds_gate_by_gate():
    """Catches the fan-out of all gates together, which makes the input weights of an LSTM half as large."""
    weight = initial_parameters(architecture("lstm"), seed=0)["rnn.weight_ih_l1"]
    bound = np.sqrt(6 / (16 + 16))
    assert 0.95 * bound < np.abs(weight).max() <= bound
