"""The NumPy forward pass against PyTorch's own modules, which load the same parameters by name."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from charloom.architecture import Architecture
from charloom.inference import network as network_module
from charloom.inference import weights as weights_module
from charloom.inference.network import InferenceNetwork
from charloom.inference.weights import InferenceWeights

CELLS = [("lstm", "tanh"), ("lstm", "capped"), ("gru", "tanh"), ("rnn", "tanh"), ("rnn", "relu")]
INPUTS = ["embedding", "onehot", "scalar"]


def architecture(cell="lstm", variant="tanh", layers=1, hidden=7, input_kind="embedding", vocabulary_size=5):
    return Architecture(
        cell=cell,
        nonlinearity="relu" if variant == "relu" else "tanh",
        input_gate="capped" if variant == "capped" else "free",
        layers=layers,
        hidden=hidden,
        input=input_kind,
        embedding=3,
        vocabulary_size=vocabulary_size,
    )


def parameters(made, seed=0, dtype=np.float32, scale=1.0):
    generator = np.random.default_rng(seed)
    return {
        name: (scale * generator.standard_normal(shape) / np.sqrt(shape[-1])).astype(dtype)
        for name, shape in made.shapes.items()
    }


def random_state(network, batch, seed=1):
    state = network.initial_state(batch)
    generator = np.random.default_rng(seed)
    draw = lambda like: generator.uniform(-1, 1, like.shape).astype(like.dtype)  # noqa: E731
    return type(state)(draw(state.h_LBH), None if state.c_LBH is None else draw(state.c_LBH))


def torch_logits(made, weights, ids_BT, state):
    """The reference: nn.Embedding, nn.RNN/LSTM/GRU and nn.Linear with weights loaded by the names on disk."""
    torch = pytest.importorskip("torch")
    kind = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[made.cell]
    options = {"nonlinearity": made.nonlinearity} if made.cell == "rnn" else {}
    stock = torch.nn.Module()
    if made.input == "embedding":
        stock.embedding = torch.nn.Embedding(made.vocabulary_size, made.embedding)
    stock.rnn = kind(made.input_size, made.hidden, made.layers, batch_first=True, **options)
    stock.head = torch.nn.Linear(made.hidden, made.vocabulary_size)
    stock.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    stock.to(torch.tensor(weights["head.bias"]).dtype)
    stock.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    ids, h = torch.tensor(ids_BT), torch.tensor(state.h_LBH)
    x = {
        "embedding": lambda: stock.embedding(ids),
        "onehot": lambda: torch.nn.functional.one_hot(ids, made.vocabulary_size).to(h.dtype),
        "scalar": lambda: (ids.to(h.dtype) / made.vocabulary_size)[..., None],
    }[made.input]()
    with torch.no_grad():
        if made.input_gate == "capped":
            out, after = capped_lstm(stock.rnn, x, h, torch.tensor(state.c_LBH))
        else:
            out, after = stock.rnn(x, h if state.c_LBH is None else (h, torch.tensor(state.c_LBH)))
        return stock.head(out).numpy(), after


def capped_lstm(rnn, x_BTX, h_LBH, c_LBH):
    """The reference for a capped input gate: PyTorch's equations, with min(i, 1 - f) for i."""
    torch = pytest.importorskip("torch")
    for n in range(rnn.num_layers):
        w, u, b, d = (getattr(rnn, f"{name}_l{n}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        outputs = []
        for x_BX in x_BTX.unbind(1):
            i, f, g, o = (x_BX @ w.T + b + h_LBH[n] @ u.T + d).chunk(4, 1)
            f = f.sigmoid()
            c_LBH[n] = f * c_LBH[n] + (1 - f).minimum(i.sigmoid()) * g.tanh()
            h_LBH[n] = o.sigmoid() * c_LBH[n].tanh()
            outputs.append(h_LBH[n].clone())
        x_BTX = torch.stack(outputs, 1)
    return x_BTX, (h_LBH, c_LBH)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("input_kind", INPUTS)
@pytest.mark.parametrize(("cell", "variant"), CELLS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_logits_equal_torch(cell, variant, input_kind, layers, batch, dtype, tolerance):
    """Catches a swapped gate, a bias on the wrong side of GRU's reset gate, a state taken from the wrong layer."""
    made = architecture(cell, variant, layers, input_kind=input_kind)
    weights = parameters(made, dtype=dtype)
    network = InferenceNetwork(InferenceWeights(made, weights))
    state = random_state(network, batch)
    ids_BT = np.random.default_rng(2).integers(0, made.vocabulary_size, (batch, 11))
    expected, after = torch_logits(made, weights, ids_BT, state)
    logits_BTV, final = network.sequence(ids_BT, state)
    assert logits_BTV.dtype == dtype
    np.testing.assert_allclose(logits_BTV, expected, atol=tolerance, rtol=0)
    h, c = after if cell == "lstm" else (after, None)
    np.testing.assert_allclose(final.h_LBH, h.numpy(), atol=tolerance, rtol=0)
    if c is not None:
        np.testing.assert_allclose(final.c_LBH, c.numpy(), atol=tolerance, rtol=0)


@pytest.mark.parametrize("input_kind", INPUTS)
@pytest.mark.parametrize(("cell", "variant"), CELLS)
def test_steps_blocks_and_states_equal_the_sequence(cell, variant, input_kind, monkeypatch):
    """Catches a state that is lost between blocks, and a step that differs from the batched pass."""
    made = architecture(cell, variant, layers=2, input_kind=input_kind)
    network = InferenceNetwork(InferenceWeights(made, parameters(made, dtype=np.float64)))
    state = random_state(network, 3)
    ids_BT = np.random.default_rng(3).integers(0, made.vocabulary_size, (3, 10))
    expected, final = network.sequence(ids_BT, state)
    monkeypatch.setattr(network_module, "BLOCK_LIMIT", 3 * network._widest * 4)
    counts, states = zip(*network.states(ids_BT, state), strict=True)
    assert counts == (4, 4, 2)
    in_blocks, after = network.sequence(ids_BT, state)
    np.testing.assert_allclose(in_blocks, expected, atol=1e-13)
    for each in (after, states[-1]):
        np.testing.assert_allclose(each.h_LBH, final.h_LBH, atol=1e-13)
    for t in range(10):
        logits_BV, state = network.step(ids_BT[:, t], state)
        np.testing.assert_allclose(logits_BV, expected[:, t], atol=1e-13)


@pytest.mark.parametrize("input_kind", ["embedding", "scalar"])
def test_a_vocabulary_too_large_for_the_table(input_kind, monkeypatch):
    """Catches a path for large vocabularies that differs from the table."""
    made = architecture(input_kind=input_kind)
    weights = parameters(made, dtype=np.float64)
    expected, _ = InferenceNetwork(InferenceWeights(made, weights)).step(
        np.array([1, 4]), InferenceNetwork(InferenceWeights(made, weights)).initial_state(2)
    )
    monkeypatch.setattr(weights_module, "TABLE_LIMIT", 1)
    network = InferenceNetwork(InferenceWeights(made, weights))
    np.testing.assert_allclose(network.step(np.array([1, 4]), network.initial_state(2))[0], expected, atol=1e-13)
    sequence, _ = network.sequence(np.array([[1], [4]]), network.initial_state(2))
    np.testing.assert_allclose(sequence[:, 0], expected, atol=1e-13)


@pytest.mark.parametrize("hidden", [1, 7, 50, 128])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_row_is_the_same_in_every_batch(cell, hidden):
    """Catches a matrix product over the batch, whose rounding would make texts differ at near ties."""
    made = architecture(cell, layers=2, hidden=hidden, vocabulary_size=65)
    network = InferenceNetwork(InferenceWeights(made, parameters(made)))
    ids_B = np.arange(17) * 3
    state = random_state(network, 17)
    logits_BV, after = network.step(ids_B, state)
    for row in (0, 8, 16):
        alone, next_state = network.step(ids_B[row : row + 1], state.rows(np.array([row])))
        np.testing.assert_array_equal(alone[0], logits_BV[row])
        np.testing.assert_array_equal(next_state.h_LBH[:, 0], after.h_LBH[:, row])


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_step_changes_neither_state_nor_parameters(cell):
    """Catches in-place arithmetic on a state that the caller still uses, or on the table."""
    made = architecture(cell, layers=2)
    weights = parameters(made)
    network = InferenceNetwork(InferenceWeights(made, weights))
    state = random_state(network, 2)
    before = state.h_LBH.copy()
    first, _ = network.step(np.array([0, 1]), state)
    first_copy = first.copy()
    for weight in weights.values():
        np.add(weight, 1, out=weight)  # an update by the trainer
    second, _ = network.step(np.array([0, 1]), state)
    np.testing.assert_array_equal(state.h_LBH, before)
    np.testing.assert_array_equal(second, first_copy)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_huge_weights_saturate_without_a_warning(cell):
    """Catches 1 / (1 + exp(-x)), which overflows; warnings are errors here."""
    made = architecture(cell)
    network = InferenceNetwork(InferenceWeights(made, parameters(made, scale=1e4)))
    logits_BTV, _ = network.sequence(np.array([[0, 1, 2, 3, 4]]), network.initial_state(1))
    assert np.isfinite(logits_BTV).all()


@pytest.mark.parametrize(("cell", "variant"), CELLS)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_reset_token_is_read_from_the_zero_state(cell, variant, batch, monkeypatch):
    """Catches a record that continues the state of the last one: alone, in a batch, in a step, in a block, at its
    edges.
    """
    made = architecture(cell, variant, layers=2)
    weights = parameters(made)
    plain, resetting = (
        InferenceNetwork(InferenceWeights(made, weights)),
        InferenceNetwork(InferenceWeights(made, weights, reset_id=2)),
    )
    ids_BT = np.random.default_rng(4).integers(0, 5, (batch, 40))
    ids_BT[:, 0] = 1
    expected = np.empty((batch, 40, 5), np.float32)
    for row in range(batch):
        edges = [0, *np.flatnonzero(ids_BT[row] == 2), 40]
        for start, stop in pairwise(edges):
            state = plain.initial_state(1)
            expected[row, start:stop] = plain.sequence(ids_BT[row : row + 1, start:stop], state)[0][0]
    for limit in (network_module.BLOCK_LIMIT, 200):
        monkeypatch.setattr(network_module, "BLOCK_LIMIT", limit)
        logits_BTV, after = resetting.sequence(ids_BT, resetting.initial_state(batch))
        np.testing.assert_allclose(logits_BTV, expected, atol=1e-5)
    state, steps = resetting.initial_state(batch), []
    for ids_B in ids_BT.T:
        logits_BV, state = resetting.step(ids_B, state)
        steps.append(logits_BV)
    np.testing.assert_allclose(np.stack(steps, 1), expected, atol=1e-5)
    np.testing.assert_allclose(state.h_LBH, after.h_LBH, atol=1e-5)
