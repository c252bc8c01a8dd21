"""Inference on the kernels against NumPy: logits, tokens, choices; and against the kernels in other batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charloom import kernels
from charloom.architecture import Architecture
from charloom.checkpoint import ModelFolder
from charloom.data.vocabulary import Vocabulary
from charloom.errors import SettingsError
from charloom.inference import weights as weights_module
from charloom.inference.backend import open_backend
from charloom.inference.layers import LAYERS
from charloom.inference.native_backend import NativeBackend, fits, native_row
from charloom.inference.network import InferenceNetwork
from charloom.inference.numpy_backend import NumpyBackend
from charloom.inference.rows import Row, State
from charloom.inference.sampling import (
    Sampling,
    choose,
    forbid_ngrams,
    penalise,
    probabilities,
    uniforms,
)
from charloom.inference.weights import InferenceWeights
from charloom.model import Model

CELLS = [("lstm", "tanh"), ("lstm", "capped"), ("gru", "tanh"), ("rnn", "tanh"), ("rnn", "relu")]
BOUNDED = CELLS[:4]
PLAIN = Sampling()


def architecture(cell="lstm", form="tanh", layers=2, hidden=50, input_kind="embedding", vocabulary_size=37):
    return Architecture(
        cell=cell,
        nonlinearity="relu" if form == "relu" else "tanh",
        input_gate="capped" if form == "capped" else "free",
        layers=layers,
        hidden=hidden,
        input=input_kind,
        embedding=5,
        vocabulary_size=vocabulary_size,
    )


def random_parameters(made, seed=0, scale=1.0):
    """Weights so small that rounding errors fade; otherwise two texts could differ without a near tie."""
    generator = np.random.default_rng(seed)
    return {
        name: (scale * generator.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in made.shapes.items()
    }


def random_weights(made, seed=0, scale=1.0, reset_id=None):
    return InferenceWeights(made, random_parameters(made, seed, scale), reset_id)


def network_of(weights):
    return InferenceNetwork(weights)


def random_state(network, batch, seed=1):
    generator = np.random.default_rng(seed)
    like = network.initial_state(batch)
    draw = lambda x: generator.uniform(-1, 1, x.shape).astype(x.dtype)  # noqa: E731
    return State(draw(like.h_LBH), None if like.c_LBH is None else draw(like.c_LBH))


def rows_of(count, sampling=PLAIN, first=0, seed=5, **rules):
    """`count` rows that differ in their random streams."""
    return [Row(sampling, seed, first + k, **rules) for k in range(count)]


def decoded(backend, rows, steps, chunks=(10**9,), start=0):
    """ids_BS that a backend generates in chunks of these lengths, the last one repeated."""
    batch, made = backend.batch(), np.empty((len(rows), 0), np.int64)
    for row in rows:
        batch.join(row, np.array([start]), backend.initial_state())
    lengths = itertools.chain(chunks, itertools.repeat(chunks[-1]))
    while made.shape[1] < steps:
        tokens_BS = batch.decode(min(next(lengths), steps - made.shape[1]), np.inf).tokens_BS
        made = np.concatenate([made, tokens_BS], axis=1)
    return made


def states_equal(a, b):
    np.testing.assert_array_equal(a.h_LBH, b.h_LBH)
    if a.c_LBH is not None:
        np.testing.assert_array_equal(a.c_LBH, b.c_LBH)


# ---- the network


@pytest.mark.parametrize("hidden", [1, 7, 50, 64, 100, 256])
@pytest.mark.parametrize(("cell", "form"), CELLS)
def test_logits_equal_numpys(variant, cell, form, hidden):
    """Catches a swapped gate, a bias on the wrong side of GRU's reset gate, padding that takes part, a lost block."""
    made = architecture(cell, form, hidden=hidden)
    weights = random_weights(made)
    network, native = network_of(weights), NativeBackend(variant, weights, "fp32", 2)
    for batch in (1, 2, 9):
        state = random_state(network, batch)
        ids_BT = np.random.default_rng(2).integers(0, made.vocabulary_size, (batch, 12))
        expected, after = network.sequence(ids_BT, state)
        logits, final = native.logits(ids_BT, state)
        np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=0)
        np.testing.assert_allclose(final.h_LBH, after.h_LBH, atol=1e-5, rtol=0)
        if after.c_LBH is not None:
            np.testing.assert_allclose(final.c_LBH, after.c_LBH, atol=1e-5, rtol=0)
    count, state = native.read(ids_BT[0], random_state(network, 1), np.inf)
    assert count == 12
    states_equal(state, native.logits(ids_BT[:1], random_state(network, 1))[1])


def test_a_wide_network(variant):
    """Catches sums that are divided wrongly only if they are long; H 700 is no multiple of any block."""
    weights = random_weights(architecture("lstm", layers=1, hidden=700, vocabulary_size=300))
    network = network_of(weights)
    ids_BT = np.random.default_rng(2).integers(0, 300, (7, 3))
    logits, _ = NativeBackend(variant, weights, "fp32", 2).logits(ids_BT, random_state(network, 7))
    np.testing.assert_allclose(logits, network.sequence(ids_BT, random_state(network, 7))[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_wide_network_computes_each_row_as_alone(variant, precision):
    """Catches sums of several rows that are added piece by piece in another order than those of one row."""
    weights = random_weights(architecture("lstm", layers=1, hidden=700, vocabulary_size=300))
    ids_BT, state = np.random.default_rng(2).integers(0, 300, (7, 3)), random_state(network_of(weights), 7)
    native = NativeBackend(variant, weights, precision, 1)
    logits, _ = native.logits(ids_BT, state)
    for row in range(7):
        alone = State(state.h_LBH[:, row : row + 1], state.c_LBH[:, row : row + 1])
        np.testing.assert_array_equal(native.logits(ids_BT[row : row + 1], alone)[0], logits[row : row + 1])


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("vocabulary_size", [1, 2, 16, 17, 129])
@pytest.mark.parametrize("input_kind", ["embedding", "onehot", "scalar"])
@pytest.mark.parametrize("table", [True, False], ids=["table", "product"])
def test_every_input_and_vocabulary(variant, input_kind, vocabulary_size, layers, table, monkeypatch):
    """Catches a first layer that computes its inputs differently from the table."""
    if not table:
        monkeypatch.setattr(weights_module, "TABLE_LIMIT", 0)
    weights = random_weights(
        architecture("gru", layers=layers, hidden=20, input_kind=input_kind, vocabulary_size=vocabulary_size)
    )
    network = network_of(weights)
    ids_BT = np.random.default_rng(2).integers(0, vocabulary_size, (3, 6))
    native = NativeBackend(variant, weights, "fp32", 2)
    logits, _ = native.logits(ids_BT, random_state(network, 3))
    np.testing.assert_allclose(logits, network.sequence(ids_BT, random_state(network, 3))[0], atol=1e-5, rtol=0)
    if table:
        return
    np.testing.assert_array_equal(decoded(native, rows_of(1), 30), decoded(native, rows_of(3), 30)[:1])


def quantised(weights, states):
    """The logits of one step in whole numbers, stored as float64: weights in 63rds of each row's largest, values in
    127ths. A row's scale grows by 2% until the sums of each stage of 16 columns fit 16 bits. There are two sums: of the
    first two of each four columns, and of the last two.
    """

    def whole(row_X):
        scale = np.abs(row_X).max() / np.float32(63) or np.float32(1)
        while True:
            whole_X = np.rint(row_X / scale)
            padded = np.pad(np.abs(whole_X), (0, -len(row_X) % 16))
            if padded.max() <= 63 and padded.reshape(-1, 4, 2, 2).sum(axis=(1, 3)).max() * 127 <= 32767:
                return whole_X * np.float64(scale)
            scale *= np.float32(1.02)

    values_BH = np.rint(states.h_LBH[-1].astype(np.float64) * 127) / 127
    rows_VH = np.array([whole(row) for row in weights.parameters["head.weight"]])
    return values_BH @ rows_VH.T + weights.parameters["head.bias"]


@pytest.mark.parametrize(("cell", "form"), BOUNDED)
@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.03), ("int8", 0.08)])
def test_smaller_precisions_are_near(variant, cell, form, precision, tolerance):
    """Catches the scale of another row, an offset that is not subtracted, and pairs in the wrong order."""
    weights = random_weights(architecture(cell, form, hidden=100))
    network = network_of(weights)
    ids_BT = np.random.default_rng(2).integers(0, 37, (5, 20))
    native = NativeBackend(variant, weights, precision, 1)
    logits, after = native.logits(ids_BT, network.initial_state(5))
    expected, _ = network.sequence(ids_BT, network.initial_state(5))
    error = np.abs(logits - expected)
    assert error.max() < tolerance
    assert error.max() > 1e-5  # it is another precision
    if precision == "int8":  # and exactly the right one
        np.testing.assert_allclose(logits[:, -1], quantised(weights, after), atol=2e-5)


@pytest.mark.parametrize("hidden", [16, 100, 700])
def test_the_largest_sums_of_int8_fit(variant, hidden):
    """Catches sums of 16 bits that are too large, and an instruction that computes other sums than plain C++ does: all
    values are 1 or -1, and the weights of a row nearly equal.
    """
    made = architecture("lstm", layers=1, hidden=hidden)
    parameters = random_parameters(made)
    parameters["rnn.weight_ih_l0"][:] = 0
    parameters["rnn.weight_hh_l0"][:] = 0
    parameters["rnn.bias_ih_l0"][:] = 30  # all gates are open: h = tanh(c + 1)
    generator = np.random.default_rng(0)
    like = parameters["head.weight"]
    like[:] = np.where(np.arange(len(like))[:, None] % 2, 1, -1) * generator.uniform(0.97, 1, like.shape)
    weights = InferenceWeights(made, parameters)
    signs = np.sign(generator.standard_normal((1, 7, hidden))).astype(np.float32)
    signs[:, :2] = [[[1], [-1]]]
    state = State(signs, 20 * signs)
    logits, after = NativeBackend(variant, weights, "int8", 1).logits(np.zeros((7, 1), np.int64), state)
    np.testing.assert_array_equal(np.abs(after.h_LBH), 1)
    np.testing.assert_allclose(logits[:, 0], quantised(weights, after), atol=1e-3)
    plain, _ = NativeBackend(kernels.open_variant("portable"), weights, "int8", 1).logits(np.zeros((7, 1), int), state)
    np.testing.assert_array_equal(logits, plain)


def test_weights_near_zero_are_zero_in_int8(variant):
    """Catches a scale that is too small to grow: packing would not end."""
    parameters = random_parameters(architecture(layers=1, hidden=20))
    parameters["head.weight"][:] = 94 * np.finfo(np.float32).smallest_subnormal
    weights = InferenceWeights(architecture(layers=1, hidden=20), parameters)
    native = NativeBackend(variant, weights, "int8", 1)
    logits, _ = native.logits(np.zeros((1, 1), np.int64), network_of(weights).initial_state(1))
    np.testing.assert_array_equal(logits[0, 0], parameters["head.bias"])


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_what_enters_the_first_layer_stays_exact(variant, precision, monkeypatch):
    """Catches embeddings, which have no bound, that are limited to the range of hidden values."""
    made = architecture("gru", hidden=20)
    parameters = random_parameters(made)
    parameters["embedding.weight"] *= 40
    ids_BT = np.random.default_rng(2).integers(0, 37, (3, 6))
    looked_up = InferenceWeights(made, parameters)
    zero = network_of(looked_up).initial_state(3)
    expected, _ = NativeBackend(variant, looked_up, precision, 1).logits(ids_BT, zero)
    monkeypatch.setattr(weights_module, "TABLE_LIMIT", 0)
    logits, _ = NativeBackend(variant, InferenceWeights(made, parameters), precision, 1).logits(ids_BT, zero)
    np.testing.assert_allclose(logits, expected, atol=2e-2, rtol=0)


# ---- sequences


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize(("cell", "form"), BOUNDED)
@pytest.mark.parametrize("hidden", [7, 100])
def test_a_text_is_the_same_however_it_is_made(variant, cell, form, hidden, precision):
    """Catches sums whose order depends on the batch or the threads, and a state that is lost between two chunks."""
    vocabulary_size = 129 if hidden == 100 else 37  # nine strips, and three
    weights = random_weights(architecture(cell, form, hidden=hidden, vocabulary_size=vocabulary_size), scale=2.0)
    one, two, five = (NativeBackend(variant, weights, precision, threads) for threads in (1, 2, 5))
    expected = decoded(one, rows_of(13), 60)
    assert len({tuple(row) for row in expected}) == 13
    for other, count, chunks in [
        (two, 13, (10**9,)),
        (one, 10, (5,)),
        (two, 8, (1, 2, 9)),
        (five, 5, (4,)),
        (five, 4, (3,)),
        (one, 3, (7,)),
        (two, 2, (10, 1)),
        (two, 1, (1, 20)),
    ]:
        np.testing.assert_array_equal(decoded(other, rows_of(count), 60, chunks), expected[:count])
    np.testing.assert_array_equal(decoded(two, rows_of(1, first=12), 60), expected[12:])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize(("cell", "form"), BOUNDED)
def test_rows_join_and_leave(variant, cell, form, precision):
    """Catches a row that takes the state, the parameters or the place of the one that left or that moved."""
    weights = random_weights(architecture(cell, form, hidden=40), scale=2.0)
    backend, generator = NativeBackend(variant, weights, precision, 2), np.random.default_rng(0)
    rows = [Row(Sampling(temperature=0.5 + k / 40, top_k=k + 1), k % 3, k) for k in range(40)]
    expected = [decoded(backend, [row], 60)[0].tolist() for row in rows]
    batch, inside, made = backend.batch(), [], [[] for _ in rows]
    waiting = [*range(40)]
    while waiting or inside:
        for _ in range(min(len(waiting), int(generator.integers(0, 12)))):
            inside.append(waiting.pop())
            batch.join(rows[inside[-1]], np.array([0]), backend.initial_state())
        if not inside:
            continue
        tokens_BS = batch.decode(int(generator.integers(1, 9)), np.inf).tokens_BS
        for place, number in enumerate(inside):
            made[number] += tokens_BS[place].tolist()
        for place in reversed(range(len(inside))):
            if len(made[inside[place]]) >= 60 or generator.random() < 0.05:
                batch.leave(place)
                inside[place] = inside[-1]
                inside.pop()
    assert all(found[:60] == whole[: len(found)] for found, whole in zip(made, expected, strict=True))
    assert sum(map(len, made)) > 1000


@pytest.mark.parametrize(
    ("cell", "layers", "hidden"), [("lstm", 2, 64), ("gru", 1, 128), ("rnn", 1, 192), ("lstm", 1, 80)]
)
@pytest.mark.parametrize("batch", [15, 16, 33, 64])
def test_tiles_give_the_same(tiled, cell, layers, hidden, batch):
    """Catches a tile at a wrong position: rows that are no multiple of it, and heads that end within one."""
    weights = random_weights(architecture(cell, layers=layers, hidden=hidden, vocabulary_size=83), scale=2.0)
    without, tiled = (NativeBackend(tiled, weights, "int8", 2, tiles) for tiles in (False, True))
    expected = decoded(without, rows_of(batch), 40)
    assert len({tuple(row) for row in expected}) == batch
    np.testing.assert_array_equal(decoded(tiled, rows_of(batch), 40), expected)


def near_tie(network, ids_S, at, seed):
    """The distance of the random number from the edge between two tokens, at the first difference from NumPy's text."""
    logits_BTV, _ = network.sequence(np.array([[0, *ids_S[:at]]]), network.initial_state(1))
    share_V = probabilities(logits_BTV[:, -1], Sampling())[0]
    return np.abs(share_V.cumsum() - uniforms(seed, 0, at, 1)[0]).min()


@pytest.mark.parametrize(("cell", "layers", "hidden"), [("lstm", 2, 64), ("gru", 1, 100), ("rnn", 2, 50)])
def test_ten_thousand_characters_are_numpys(variant, cell, layers, hidden):
    """Catches another text for the same seed, except if a random number is within 1e-5 of an edge."""
    weights = random_weights(architecture(cell, layers=layers, hidden=hidden, vocabulary_size=83), scale=1.5)
    expected = decoded(NumpyBackend(weights), rows_of(1), 10_000)
    made = decoded(NativeBackend(variant, weights, "fp32", 2), rows_of(1), 10_000)
    parted = np.flatnonzero(made[0] != expected[0])
    if len(parted) > 0:
        tie = near_tie(network_of(weights), expected[0], parted[0], seed=5)
        print(f"{cell}: NumPy's text parts at {parted[0]}, where the draw was {tie:.1e} from an edge")
        assert tie < 1e-5


# ---- choices

EQUALS = st.lists(st.sampled_from([-2.0, 0.0, 0.0, 0.0, 1.0]), min_size=2, max_size=20)
LOGITS = EQUALS | st.lists(st.floats(-100, 100, width=32) | st.just(-np.inf), min_size=1, max_size=40)
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 1e-3, 0.5, 1.0, 1.0, 100.0]),
    top_k=st.none() | st.integers(1, 20),
    top_p=st.none() | st.sampled_from([0.25, 0.5, 0.75, 1.0]) | st.floats(0.001, 1),
    min_p=st.none() | st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1),
    greedy=st.sampled_from([False, False, False, True]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 0.5, 1.3, 4.0]),
    repetition_window=st.integers(1, 8),
    no_repeat_ngram_size=st.none() | st.integers(1, 4),
)
UNIFORMS = np.concatenate([np.linspace(0, 1, 40, endpoint=False), [1 - 2**-53]])


@settings(max_examples=300)
@given(st.data(), LOGITS, SAMPLINGS)
@example(None, [0.0] * 4, Sampling(temperature=1, top_p=0.5))  # exactly half is enough
@example(None, [0.0] * 4, Sampling(temperature=1, top_k=2))
@example(None, [-np.inf, 0.0], Sampling())  # a random number of 0 draws no token of probability 0
def test_choices_are_numpys(data, logits, sampling):
    """Catches a filter in another order or with another rule for ties, and a suppressed token that is drawn."""
    tokens = st.integers(0, len(logits) - 1)
    suppressed = () if data is None else tuple(data.draw(st.lists(tokens, max_size=3)))
    last, separator = (0, None) if data is None else (data.draw(tokens), data.draw(st.none() | tokens))
    recent = [] if data is None else data.draw(st.lists(tokens, max_size=12))
    row, filtered_V = Row(sampling, 0, 0, 0, suppressed, separator), np.array(logits, np.float32)
    with np.errstate(all="ignore"):
        if sampling.penalised:
            penalise(filtered_V, recent[-sampling.penalised :], sampling.repetition_penalty)
    if sampling.no_repeat_ngram_size:
        forbid_ngrams(filtered_V, recent, sampling.no_repeat_ngram_size)
    filtered_V[[*suppressed, *([separator] if last == separator else [])]] = -np.inf
    logits_BV = np.repeat(filtered_V[None], len(UNIFORMS), axis=0)
    expected_B = choose(logits_BV, UNIFORMS, sampling)
    share_V = np.ones(1) if expected_B[0] < 0 else probabilities(logits_BV[:1], sampling)[0]
    for name in kernels.runnable():
        module = kernels.open_variant(name)
        asked = native_row(module, row, 0).sampling
        for uniform, expected in zip(UNIFORMS.tolist(), expected_B.tolist(), strict=True):
            token = module.choose(np.array(logits, np.float32), asked, recent, last, uniform)
            assert share_V[token] > 0, name
            if (
                token != expected
            ):  # then the random number must be at an edge, apart from the last bit of the exponential
                assert np.abs(share_V.cumsum() - uniform).min() < 1e-12, (name, uniform, token, expected)


@pytest.mark.parametrize("row", [[np.nan, 0.0], [0.0] * 40 + [np.nan], [-np.inf, -np.inf], [np.inf, 0.0]])
@pytest.mark.parametrize("greedy", [True, False])
def test_logits_without_a_choice(variant, row, greedy):
    """Catches a NaN that looks like an improbable token, because no comparison with it is true."""
    asked = native_row(variant, Row(Sampling(greedy=greedy), 0, 0), 0).sampling
    assert variant.choose(np.array(row, np.float32), asked, [], 0, 0.5) == -1


def test_random_numbers_are_numpys(variant):
    """Catches another key, counter or conversion: all seeded texts would change."""
    for seed, index in [(0, 0), (7, 2), (2**63 - 1, 2**63 - 1)]:
        expected = uniforms(seed, index, 0, 50)
        assert [variant.uniform(seed, index, position) for position in range(50)] == expected.tolist()


@pytest.mark.parametrize("threads", [1, 2])
def test_rules_hold_in_a_text(variant, threads):
    """Catches rules that apply to a single row but not to a batch, and a separator after a separator."""
    weights = random_weights(architecture("gru", hidden=60))
    native, numpy = NativeBackend(variant, weights, "fp32", threads), NumpyBackend(weights)
    for sampling in (
        Sampling(top_k=5),
        Sampling(top_p=0.5),
        Sampling(min_p=0.1, temperature=1.0),
        Sampling(greedy=True),
        Sampling(repetition_penalty=1.5, repetition_window=6),
        Sampling(no_repeat_ngram_size=3),
    ):
        for batch in (1, 4):
            rows = rows_of(batch, sampling, suppressed=(3, 4), separator_id=5)
            made = decoded(native, rows, 200, (7,))
            assert not {3, 4} & set(made.ravel().tolist())
            assert not (made[:, 1:] == 5)[made[:, :-1] == 5].any()
            np.testing.assert_array_equal(made, decoded(numpy, rows, 200))


def test_every_row_has_its_own_rules(variant):
    """Catches parameters of one row that are taken for all."""
    weights = random_weights(architecture("lstm", hidden=60))
    native, numpy = NativeBackend(variant, weights, "fp32", 2), NumpyBackend(weights)
    samplings = [Sampling(), Sampling(greedy=True), Sampling(top_k=2), Sampling(temperature=3.0), Sampling(top_p=0.2)]
    rows = [Row(sampling, 9, 1, suppressed=(k,)) for k, sampling in enumerate(samplings)]
    made = decoded(native, rows, 100)
    np.testing.assert_array_equal(made, decoded(numpy, rows, 100))
    for k, row in enumerate(rows):
        np.testing.assert_array_equal(made[k], decoded(native, [row], 100)[0])


def test_log_probabilities_are_numpys(variant):
    """Catches log-probabilities of filtered logits, of another row, and equals in another order."""
    weights = random_weights(architecture("lstm", hidden=60))
    both = []
    for backend in (NativeBackend(variant, weights, "fp32", 2), NumpyBackend(weights)):
        batch = backend.batch()
        for k, logprobs in enumerate((None, 0, 5)):
            batch.join(Row(Sampling(top_k=3), 2, k, logprobs=logprobs), np.array([1]), backend.initial_state())
        both.append(batch.decode(50, np.inf))
    np.testing.assert_array_equal(both[0].tokens_BS, both[1].tokens_BS)
    for row, asked in ((1, 0), (2, 5)):
        np.testing.assert_allclose(*(each.logprobs[row, :, : 1 + asked] for each in both), atol=1e-5)
        np.testing.assert_array_equal(*(each.top_ids_BSN[row, :, :asked] for each in both))


def test_a_row_that_asks_for_no_log_probabilities_takes_no_time_for_them(variant):
    """Catches one request that makes a step several times as slow for all rows."""
    backend = NativeBackend(variant, random_weights(architecture("lstm", hidden=60)), "fp32", 2)
    batch, logprobs, top_ids = backend.batch(), np.full((3, 9, 6), np.nan), np.full((3, 9, 5), -1, np.int32)
    for k, asked in enumerate((None, 0, 5)):
        batch.join(Row(PLAIN, 2, k, logprobs=asked), np.array([1]), backend.initial_state())
    batch._batch.decode(np.empty((3, 9), np.int64), np.inf, logprobs, top_ids)
    assert np.isfinite(logprobs).sum(axis=2).tolist() == [[0] * 9, [1] * 9, [6] * 9]
    assert (top_ids >= 0).sum(axis=2).tolist() == [[0] * 9, [0] * 9, [5] * 9]


# ---- what can go wrong


@pytest.mark.parametrize("batch", [1, 3])
def test_an_output_that_is_not_finite(variant, batch):
    """Catches a text that continues with token 0, that loses earlier tokens, or whose error is one token early."""
    made = architecture("rnn", "relu", layers=1, hidden=16)
    parameters = random_parameters(made)
    parameters["rnn.weight_hh_l0"][...] = 1e3 * np.eye(16)  # overflows float32 in a dozen steps
    parameters["head.weight"][...] = np.abs(parameters["head.weight"])
    weights = InferenceWeights(made, parameters)
    results = []
    for backend in (NumpyBackend(weights), NativeBackend(variant, weights, "fp32", 2)):
        rows = backend.batch()
        for row in rows_of(batch, Sampling(greedy=True)):
            rows.join(row, np.array([0]), backend.initial_state())
        with np.errstate(all="ignore"):
            results.append(rows.decode(40, np.inf).tokens_BS)
    assert 5 < results[0].shape[1] < 40
    assert (results[0][:, -1] == -1).all()
    np.testing.assert_array_equal(*results)


def test_networks_that_are_left_to_numpy(monkeypatch):
    """Catches a diverged network for which the kernels' bounded functions give a text, and float64 that is rounded."""
    made = architecture("lstm")
    parameters = random_parameters(made)
    assert fits(InferenceWeights(made, parameters))
    assert not fits(InferenceWeights(made, {name: value.astype(np.float64) for name, value in parameters.items()}))
    parameters["rnn.weight_hh_l1"][3, 4] = np.nan
    weights = InferenceWeights(made, parameters)
    assert not fits(weights)
    assert isinstance(open_backend(weights, "auto"), NumpyBackend)
    with pytest.raises(SettingsError, match="`precision` must be 'fp32'"):
        open_backend(weights, "int8")
    with pytest.raises(SettingsError, match="relu"):
        open_backend(random_weights(architecture("rnn", "relu")), "int8")


def test_wrong_arguments_are_refused(variant):
    """Catches memory that is read or written out of bounds: C++ checks all its arguments."""
    weights = random_weights(architecture())
    native = NativeBackend(variant, weights, "fp32", 1)
    state = network_of(weights).initial_state(2)
    with pytest.raises(ValueError, match="ids must be in"):
        native.logits(np.array([[0, 37], [0, 0]]), state)
    with pytest.raises(ValueError, match="ids must be"):
        native.logits(np.array([[0]]), state)
    with pytest.raises(ValueError, match="h must be"):
        native.logits(np.array([[0]]), State(state.h_LBH[:1], state.c_LBH))
    batch, zero = native.batch(), native.initial_state()
    for wrong in (Row(PLAIN, 0, 0, suppressed=(37,)), Row(PLAIN, 0, 0, suppressed=(-1,))):
        with pytest.raises(ValueError, match="ids must be in"):
            batch.join(wrong, np.array([0]), zero)
    for recent in ([-1], [37], [37, 0]):
        with pytest.raises(ValueError, match="ids must be in"):
            batch.join(Row(PLAIN, 0, 0), np.array(recent), zero)
    with pytest.raises(ValueError, match="separator"):
        batch.join(Row(PLAIN, 0, 0, separator_id=37), np.array([0]), zero)
    for row in (-1, 0):
        with pytest.raises(ValueError, match="a row must be"):
            batch._batch.leave(row)
    batch.join(Row(PLAIN, 0, 0, logprobs=38), np.array([0]), zero)
    with pytest.raises(ValueError, match="logprobs"):
        batch.decode(3, 1.0)
    for shape in ((2, 3), (0, 3)):
        with pytest.raises(ValueError, match="tokens must be"):
            batch._batch.decode(np.empty(shape, np.int64), 1.0, None, None)


# ---- models


@pytest.mark.parametrize("cell", sorted(LAYERS))
def test_a_model_generates_the_same_with_and_without_kernels(cell, monkeypatch):
    """Catches a prompt, a stop string, a record or a first token that one of the two handles differently."""
    vocabulary = Vocabulary("characters", tuple("\n abcdefgh"))
    made = architecture(cell, vocabulary_size=vocabulary.size)
    parameters = random_parameters(made)
    texts = []
    for module in (None, *map(kernels.open_variant, kernels.runnable())):
        monkeypatch.setattr(kernels, "chosen", lambda module=module: kernels.KernelChoice("x", module, "a test"))
        model = Model(ModelFolder(made, vocabulary, parameters))
        texts.append(
            [*model.generate_many(3, "abc", 150, seed=1, stop=["ab"]), model.generate("", 50, seed=2, top_k=3)]
        )
    assert all(text == texts[0] for text in texts[1:])


def test_precisions_and_threads_are_options():
    """Catches an option that is taken and does nothing."""
    vocabulary = Vocabulary("characters", tuple("\n abcdefgh"))
    made = architecture("lstm", vocabulary_size=vocabulary.size)
    model = Model(ModelFolder(made, vocabulary, random_parameters(made, scale=3.0)))
    if kernels.chosen().module is None:
        pytest.skip("no kernels are built here")
    texts = {p: model.generate("abc", 1000, seed=1, precision=p) for p in ("auto", "fp32", "bf16", "int8")}
    assert texts["auto"] == texts["fp32"] == model.generate("abc", 1000, seed=1, threads=1)
    assert len(set(texts.values())) == 3


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("batch", [1, 3, 40])
@pytest.mark.parametrize(("cell", "form"), BOUNDED)
def test_the_reset_token_is_read_from_the_zero_state(variant, cell, form, batch, precision):
    """Catches recurrent sums, hidden values or an LSTM's c from the last record, also in sums computed in advance."""
    made = architecture(cell, form, hidden=40, vocabulary_size=6)
    weights = random_parameters(made)
    plain = NativeBackend(variant, InferenceWeights(made, weights), precision)
    resetting = NativeBackend(variant, InferenceWeights(made, weights, reset_id=2), precision)
    ids_BS = np.random.default_rng(4).integers(0, 6, (batch, 30))
    ids_BS[:, 0] = 1
    network = InferenceNetwork(InferenceWeights(made, weights))
    logits_BSV, after = resetting.logits(ids_BS, network.initial_state(batch))
    for row in range(batch):
        for start, stop in itertools.pairwise([0, *np.flatnonzero(ids_BS[row] == 2), 30]):
            expected, state = plain.logits(ids_BS[row : row + 1, start:stop], network.initial_state(1))
            np.testing.assert_array_equal(logits_BSV[row, start:stop], expected[0])
        np.testing.assert_array_equal(after.h_LBH[:, row], state.h_LBH[:, 0])


@pytest.mark.parametrize("batch", [1, 2, 30])
@pytest.mark.parametrize(("cell", "form"), CELLS)
def test_generated_records_begin_anew(variant, cell, form, batch):
    """The same for generated records: the tokens after a separator are those of a separate text."""
    weights = random_weights(architecture(cell, form, hidden=40, vocabulary_size=6), reset_id=2)
    slow, fast = NumpyBackend(weights), NativeBackend(variant, weights, "fp32")
    for chunks in ((10**9,), (1,), (5, 2)):
        expected = decoded(slow, rows_of(batch), 60, chunks, start=2)
        assert (expected == 2).any()
        np.testing.assert_array_equal(decoded(fast, rows_of(batch), 60, chunks, start=2), expected)
