"""Fixtures for the tests of the NumPy engine: small networks, random arrays, and the check of gradients."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from charloom.architecture import Architecture

CELLS = [("lstm", "tanh"), ("lstm", "capped"), ("gru", "tanh"), ("rnn", "tanh"), ("rnn", "relu")]
WIDTH = 1e-5  # of a central difference: its error and that of rounding are both about 1e-10 for a loss near 1


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with `cell` runs for each cell; a test with `layers` or `input_kind` too, for each combination."""
    values = {"cell": CELLS, "layers": [1, 2, 3], "input_kind": ["embedding", "onehot", "scalar"]}
    names = [name for name in values if name in metafunc.fixturenames]
    if names:
        cases = [*product(*(values[name] for name in names))]
        names_of_cases = [
            "-".join("".join(part) if isinstance(part, tuple) else str(part) for part in case) for case in cases
        ]
        metafunc.parametrize(names, cases, ids=names_of_cases)


@pytest.fixture
def random() -> Callable[..., np.ndarray]:
    """Normal random numbers of a shape in float64: new ones at each call, the same in each run."""
    generator = np.random.default_rng(3)
    return lambda *shape: generator.normal(0, 0.7, shape)


@pytest.fixture
def architecture() -> Callable[..., Architecture]:
    """A small network."""

    def make(cell=("lstm", "tanh"), layers=1, input_kind="embedding", hidden=2, vocabulary_size=5):
        kind, variant = cell
        return Architecture(
            cell=kind,
            nonlinearity="relu" if variant == "relu" else "tanh",
            input_gate="capped" if variant == "capped" else "free",
            layers=layers,
            hidden=hidden,
            input=input_kind,
            embedding=2,
            vocabulary_size=vocabulary_size,
        )

    return make


@pytest.fixture
def weights(random) -> Callable[..., dict[str, np.ndarray]]:
    """Parameters large enough that no gate is linear; with relu, biases that keep units active."""

    def make(shape):
        made = {name: random(*size) for name, size in shape.shapes.items()}
        if shape.nonlinearity == "relu":
            made |= {name: np.abs(value) for name, value in made.items() if name.startswith("rnn.bias")}
        return made

    return make


def slope(value: Callable[[], float], array: np.ndarray) -> np.ndarray:
    """Central differences of what `value` returns, for each number of an array that it uses."""
    found = np.empty_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + WIDTH
        above = value()
        array[index] = kept - WIDTH
        found[index] = (above - value()) / (2 * WIDTH)
        array[index] = kept
    return found


@pytest.fixture
def assert_slope() -> Callable[..., None]:
    """Compares a gradient, as a vector, with central differences. The error may be a millionth of its length."""

    def judge(value, array, gradient, name="", zero=False):
        judged = slope(value, array)
        assert gradient.shape == array.shape, name
        assert judged.any() or zero, f"{name}: a gradient of nothing but zeros proves nothing"
        assert np.linalg.norm(gradient - judged) <= 1e-6 * np.linalg.norm(judged) + 1e-9 * zero, name

    return judge


@pytest.fixture
def judge_layer(random, assert_slope) -> Callable[..., None]:
    """Compares all gradients of a recurrent layer's `backward` with central differences, for T steps of B rows.

    The value is a sum of all outputs and of the state after, each with a weight of its own, so that both ways in count.
    """

    def judge(forward, backward, parts, gates, steps, rows, hidden=3):
        inputs, weight, bias = (
            random(steps, rows, gates * hidden),
            random(gates * hidden, hidden),
            random(gates * hidden),
        )
        state, d_state = ([random(rows, hidden) for _ in range(parts)] for _ in range(2))
        d_out = random(steps, rows, hidden)

        def value():
            out, after, _ = forward(inputs, tuple(state), weight, bias)
            return float((out * d_out).sum() + sum((a * d).sum() for a, d in zip(after, d_state, strict=True)))

        _, _, saved = forward(inputs, tuple(state), weight, bias)
        kept = [array.copy() for array in (d_out, *d_state, *state, inputs)]
        found = backward(d_out, tuple(d_state), saved)
        assert_slope(value, inputs, found.inputs_TBG, "inputs")
        assert_slope(value, weight, found.weight_GH, "weight")
        assert_slope(value, bias, found.bias_G, "bias")
        for part, d_part in zip(state, found.state, strict=True):
            assert_slope(value, part, d_part, "state")
        for array, before in zip((d_out, *d_state, *state, inputs), kept, strict=True):
            np.testing.assert_array_equal(array, before)
        judge_hidden(backward, forward, found, d_out, (inputs, state, weight, bias, d_state))

    def judge_hidden(backward, forward, found, d_out, given):
        """hidden_TBH[t] is the gradient from step t's output and from all later steps, with respect to the state after
        t.
        """
        inputs, state, weight, bias, d_state = given
        for t in range(len(inputs)):
            _, after, _ = forward(inputs[: t + 1], tuple(state), weight, bias)
            later = d_state[0]
            if t + 1 < len(inputs):
                _, _, rest = forward(inputs[t + 1 :], after, weight, bias)
                later = backward(d_out[t + 1 :], tuple(d_state), rest).state[0]
            np.testing.assert_allclose(found.hidden_TBH[t], d_out[t] + later, rtol=1e-12)

    return judge
