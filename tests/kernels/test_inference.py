"""The writer against its plain twin in NumPy: logits, tokens, every choice; and against itself, however it is run."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charloom import kernels
from charloom.architecture import Architecture
from charloom.data.vocabulary import Vocabulary
from charloom.errors import ModelError, SettingsError
from charloom.inference import network as network_module
from charloom.inference.backend import Numbers, NumpyWriter, Rules, writer
from charloom.inference.layers import LAYERS
from charloom.inference.native_backend import NativeWriter, choice, fits
from charloom.inference.network import Network, State
from charloom.inference.sampling import Sampling, choose, probabilities, uniforms
from charloom.model import Model

CELLS = [("lstm", "tanh"), ("gru", "tanh"), ("rnn", "tanh"), ("rnn", "relu")]
BOUNDED = CELLS[:3]
PLAIN = Rules(Sampling())


def architecture(cell="lstm", nonlinearity="tanh", layers=2, hidden=50, entry="embedding", vocabulary_size=37):
    return Architecture(
        cell=cell,
        nonlinearity=nonlinearity,
        layers=layers,
        hidden=hidden,
        input=entry,
        embedding=5,
        vocabulary_size=vocabulary_size,
    )


def random_parameters(made, seed=0, scale=1.0):
    """Small enough that what rounding adds dies away; else two texts would part with no near tie to show for it."""
    generator = np.random.default_rng(seed)
    return {
        name: (scale * generator.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in made.shapes.items()
    }


def random_network(made, seed=0, scale=1.0):
    return Network(made, random_parameters(made, seed, scale))


def random_state(network, batch, seed=1):
    generator = np.random.default_rng(seed)
    like = network.initial_state(batch)
    draw = lambda x: generator.uniform(-1, 1, x.shape).astype(x.dtype)  # noqa: E731
    return State(draw(like.h_LBH), None if like.c_LBH is None else draw(like.c_LBH))


def written(writer, network, batch, steps, pieces=(10**9,), rules=PLAIN, first=0, seed=5, start=0):
    """ids_BS that a writer makes in pieces of these lengths, the last one repeated, and the state after."""
    ids_B, state = np.full(batch, start), network.initial_state(batch)
    made, sequences = np.empty((batch, 0), np.int64), tuple(range(first, first + batch))
    lengths = itertools.chain(pieces, itertools.repeat(pieces[-1]))
    while made.shape[1] < steps:
        numbers = Numbers(seed, sequences, made.shape[1])
        length = min(next(lengths), steps - made.shape[1])
        ids_BS, state = writer.write(ids_B, state, rules, numbers, length, np.inf)
        made, ids_B = np.concatenate([made, ids_BS], axis=1), ids_BS[:, -1]
    return made, state


def states_equal(a, b):
    np.testing.assert_array_equal(a.h_LBH, b.h_LBH)
    if a.c_LBH is not None:
        np.testing.assert_array_equal(a.c_LBH, b.c_LBH)


# ---- the network


@pytest.mark.parametrize("hidden", [1, 7, 50, 64, 100, 256])
@pytest.mark.parametrize(("cell", "nonlinearity"), CELLS)
def test_logits_equal_numpys(variant, cell, nonlinearity, hidden):
    """Catches a swapped gate, a bias on the wrong side of GRU's reset gate, padding that takes part, a lost block."""
    made = architecture(cell, nonlinearity, hidden=hidden)
    network = random_network(made)
    native = NativeWriter(variant, network, "fp32", 2)
    for batch in (1, 2, 9):
        state = random_state(network, batch)
        ids_BT = np.random.default_rng(2).integers(0, made.vocabulary_size, (batch, 12))
        expected, after = network.sequence(ids_BT, state)
        logits, final = native.logits(ids_BT, state)
        np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=0)
        np.testing.assert_allclose(final.h_LBH, after.h_LBH, atol=1e-5, rtol=0)
        if after.c_LBH is not None:
            np.testing.assert_allclose(final.c_LBH, after.c_LBH, atol=1e-5, rtol=0)
    states_equal(
        native.read(ids_BT[0], random_state(network, 1)), native.logits(ids_BT[:1], random_state(network, 1))[1]
    )


def test_a_wide_network(variant):
    """Catches sums that are cut into pieces wrongly only where there are many; H 700 is no multiple of anything."""
    network = random_network(architecture("lstm", layers=1, hidden=700, vocabulary_size=300))
    ids_BT = np.random.default_rng(2).integers(0, 300, (7, 3))
    logits, _ = NativeWriter(variant, network, "fp32", 2).logits(ids_BT, random_state(network, 7))
    np.testing.assert_allclose(logits, network.sequence(ids_BT, random_state(network, 7))[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("vocabulary_size", [1, 2, 16, 17, 129])
@pytest.mark.parametrize("entry", ["embedding", "onehot", "scalar"])
@pytest.mark.parametrize("table", [True, False], ids=["table", "product"])
def test_every_input_and_vocabulary(variant, entry, vocabulary_size, layers, table, monkeypatch):
    """Catches a first layer whose tokens are gathered and multiplied otherwise than they are looked up."""
    if not table:
        monkeypatch.setattr(network_module, "TABLE_LIMIT", 0)
    network = random_network(
        architecture("gru", layers=layers, hidden=20, entry=entry, vocabulary_size=vocabulary_size)
    )
    ids_BT = np.random.default_rng(2).integers(0, vocabulary_size, (3, 6))
    native = NativeWriter(variant, network, "fp32", 2)
    logits, _ = native.logits(ids_BT, random_state(network, 3))
    np.testing.assert_allclose(logits, network.sequence(ids_BT, random_state(network, 3))[0], atol=1e-5, rtol=0)
    if table:
        return
    one, _ = written(native, network, 1, 30)
    np.testing.assert_array_equal(one, written(native, network, 3, 30)[0][:1])


def quantised(made, network, states):
    """The logits of one step by whole numbers in float64: weights in 127ths of each row's largest, values in 127ths."""

    def times(weight_XG, x_BX):
        rows = weight_XG.T.astype(np.float64)
        scale = np.abs(rows).max(axis=1, keepdims=True) / 127
        return np.rint(x_BX.astype(np.float64) * 127) / 127 @ (np.rint(rows / np.where(scale == 0, 1, scale)) * scale).T

    return times(network.parameters["head.weight"].T, states.h_LBH[-1]) + network.parameters["head.bias"]


@pytest.mark.parametrize(("cell", "nonlinearity"), BOUNDED)
@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.03), ("int8", 0.06)])
def test_smaller_precisions_are_near(variant, cell, nonlinearity, precision, tolerance):
    """Catches a scale of another row, an offset that is not taken away, pairs in the wrong order."""
    network = random_network(architecture(cell, nonlinearity, hidden=100))
    ids_BT = np.random.default_rng(2).integers(0, 37, (5, 20))
    native = NativeWriter(variant, network, precision, 1)
    logits, after = native.logits(ids_BT, network.initial_state(5))
    expected, _ = network.sequence(ids_BT, network.initial_state(5))
    error = np.abs(logits - expected)
    assert error.max() < tolerance
    assert error.max() > 1e-5  # it is another precision indeed
    if precision == "int8":  # and exactly the one that is meant
        np.testing.assert_allclose(logits[:, -1], quantised(network.architecture, network, after), atol=2e-5)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_what_enters_the_first_layer_stays_exact(variant, precision, monkeypatch):
    """Catches embeddings, which have no bound, cut to the range of hidden values."""
    made = architecture("gru", hidden=20)
    parameters = random_parameters(made)
    parameters["embedding.weight"] *= 40
    ids_BT = np.random.default_rng(2).integers(0, 37, (3, 6))
    looked_up = Network(made, parameters)
    expected, _ = NativeWriter(variant, looked_up, precision, 1).logits(ids_BT, looked_up.initial_state(3))
    monkeypatch.setattr(network_module, "TABLE_LIMIT", 0)
    multiplied = Network(made, parameters)
    logits, _ = NativeWriter(variant, multiplied, precision, 1).logits(ids_BT, multiplied.initial_state(3))
    np.testing.assert_allclose(logits, expected, atol=2e-2, rtol=0)


# ---- texts


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize(("cell", "nonlinearity"), BOUNDED)
@pytest.mark.parametrize("hidden", [7, 100])
def test_a_text_is_the_same_however_it_is_made(variant, cell, nonlinearity, hidden, precision):
    """Catches sums whose order depends on the batch or on the threads, and a state that is lost between two pieces."""
    vocabulary_size = 129 if hidden == 100 else 37  # of nine strips, and of three
    network = random_network(
        architecture(cell, nonlinearity, hidden=hidden, vocabulary_size=vocabulary_size), scale=2.0
    )
    one, two, five = (NativeWriter(variant, network, precision, threads) for threads in (1, 2, 5))
    expected, state = written(one, network, 13, 60)
    assert len({tuple(row) for row in expected}) == 13
    for other, batch, pieces in [
        (two, 13, (10**9,)),
        (one, 10, (5,)),
        (two, 8, (1, 2, 9)),
        (five, 5, (4,)),
        (five, 4, (3,)),
        (one, 3, (7,)),
        (two, 2, (10, 1)),
        (two, 1, (1, 20)),
    ]:
        made, after = written(other, network, batch, 60, pieces)
        np.testing.assert_array_equal(made, expected[:batch])
        states_equal(after, state.rows(np.arange(batch)))
    np.testing.assert_array_equal(written(two, network, 1, 60, first=12)[0], expected[12:])


@pytest.mark.parametrize(
    ("cell", "layers", "hidden"), [("lstm", 2, 64), ("gru", 1, 128), ("rnn", 1, 192), ("lstm", 1, 80)]
)
@pytest.mark.parametrize("batch", [15, 16, 33, 64])
def test_tiles_write_the_same(tiled, cell, layers, hidden, batch):
    """Catches a tile in the wrong place: of texts that are no multiple of it, of heads that end within one."""
    network = random_network(architecture(cell, layers=layers, hidden=hidden, vocabulary_size=83), scale=2.0)
    without, tiled = (NativeWriter(tiled, network, "int8", 2, tiles) for tiles in (False, True))
    expected, _ = written(without, network, batch, 40)
    assert len({tuple(row) for row in expected}) == batch
    np.testing.assert_array_equal(written(tiled, network, batch, 40)[0], expected)


def near_tie(network, ids_S, at, seed):
    """How near the random number was to the edge between two tokens, where NumPy's text and another part."""
    logits_BTV, _ = network.sequence(np.array([[0, *ids_S[:at]]]), network.initial_state(1))
    share_V = probabilities(logits_BTV[:, -1], Sampling())[0]
    return np.abs(share_V.cumsum() - uniforms(seed, 0, at, 1)[0]).min()


@pytest.mark.parametrize(("cell", "layers", "hidden"), [("lstm", 2, 64), ("gru", 1, 100), ("rnn", 2, 50)])
def test_ten_thousand_characters_are_numpys(variant, cell, layers, hidden):
    """Catches anything that makes another text of the same seed; but for a draw that falls on an edge, within 1e-5."""
    network = random_network(architecture(cell, layers=layers, hidden=hidden, vocabulary_size=83), scale=1.5)
    expected, _ = written(NumpyWriter(network), network, 1, 10_000)
    made, _ = written(NativeWriter(variant, network, "fp32", 2), network, 1, 10_000)
    parted = np.flatnonzero(made[0] != expected[0])
    if len(parted) > 0:
        tie = near_tie(network, expected[0], parted[0], seed=5)
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
)
UNIFORMS = np.concatenate([np.linspace(0, 1, 40, endpoint=False), [1 - 2**-53]])


@settings(max_examples=300)
@given(st.data(), LOGITS, SAMPLINGS)
@example(None, [0.0] * 4, Sampling(temperature=1, top_p=0.5))  # exactly half is enough
@example(None, [0.0] * 4, Sampling(temperature=1, top_k=2))
@example(None, [-np.inf, 0.0], Sampling())  # a number of 0 draws no token of probability 0
def test_choices_are_numpys(data, logits, sampling):
    """Catches a filter in another order or with another tie rule, and a forbidden token that comes back."""
    tokens = st.integers(0, len(logits) - 1)
    never = () if data is None else tuple(data.draw(st.lists(tokens, max_size=3)))
    before, separator = (0, None) if data is None else (data.draw(tokens), data.draw(st.none() | tokens))
    asked = {**choice(Rules(sampling, never, separator)), "before": before}
    logits_BV = np.repeat(np.array([logits], np.float32), len(UNIFORMS), axis=0)
    if before == separator:
        logits_BV[:, separator] = -np.inf
    try:
        expected_B = choose(logits_BV, UNIFORMS, sampling, never)
        share_V = probabilities(logits_BV[:1], sampling, never)[0]
    except ModelError:
        expected_B, share_V = np.full(len(UNIFORMS), -1), np.ones(1)
    for name in kernels.runnable():
        chooser = kernels.open_variant(name).choose
        for uniform, expected in zip(UNIFORMS.tolist(), expected_B.tolist(), strict=True):
            token = chooser(np.array(logits, np.float32), uniform=uniform, **asked)
            assert share_V[token] > 0, name
            if token != expected:  # then the number must lie on an edge, but for the exponential's last bit
                assert np.abs(share_V.cumsum() - uniform).min() < 1e-12, (name, uniform, token, expected)


@pytest.mark.parametrize("row", [[np.nan, 0.0], [0.0] * 40 + [np.nan], [-np.inf, -np.inf], [np.inf, 0.0]])
@pytest.mark.parametrize("greedy", [True, False])
def test_logits_without_a_choice(variant, row, greedy):
    """Catches a NaN that loses every comparison, and so looks like a token that is merely unlikely."""
    asked = choice(Rules(Sampling(greedy=greedy)))
    assert variant.choose(np.array(row, np.float32), before=0, uniform=0.5, **asked) == -1


def test_random_numbers_are_numpys(variant):
    """Catches another key, counter or conversion: all seeded texts would change."""
    for seed, sequence in [(0, 0), (7, 2), (2**63 - 1, 2**63 - 1)]:
        expected = uniforms(seed, sequence, 0, 50)
        assert [variant.uniform(seed, sequence, position) for position in range(50)] == expected.tolist()


@pytest.mark.parametrize("threads", [1, 2])
def test_rules_hold_in_a_text(variant, threads):
    """Catches rules that reach the choice of one text and not of a batch, and a separator that follows itself."""
    network = random_network(architecture("gru", hidden=60))
    native, numpy = NativeWriter(variant, network, "fp32", threads), NumpyWriter(network)
    for sampling in (
        Sampling(top_k=5),
        Sampling(top_p=0.5),
        Sampling(min_p=0.1, temperature=1.0),
        Sampling(greedy=True),
    ):
        rules = Rules(sampling, never=(3, 4), separator=5)
        for batch in (1, 4):
            made, _ = written(native, network, batch, 200, rules=rules)
            assert not {3, 4} & set(made.ravel().tolist())
            assert not (made[:, 1:] == 5)[made[:, :-1] == 5].any()
            np.testing.assert_array_equal(made, written(numpy, network, batch, 200, rules=rules)[0])


# ---- what can go wrong


@pytest.mark.parametrize("batch", [1, 3])
def test_an_output_that_is_not_finite(variant, batch):
    """Catches a text that goes on with token 0, one that loses what was good, and an error one token early."""
    made = architecture("rnn", "relu", layers=1, hidden=16)
    parameters = random_parameters(made)
    parameters["rnn.weight_hh_l0"][...] = 1e3 * np.eye(16)  # grows past float32 in a dozen steps
    parameters["head.weight"][...] = np.abs(parameters["head.weight"])
    network = Network(made, parameters)
    rules = Rules(Sampling(greedy=True))
    results = []
    for each in (NumpyWriter(network), NativeWriter(variant, network, "fp32", 2)):
        with np.errstate(all="ignore"):
            ids_BS, state = each.write(
                np.zeros(batch, np.int64),
                network.initial_state(batch),
                rules,
                Numbers(0, tuple(range(batch))),
                40,
                np.inf,
            )
            results.append(ids_BS)
            with pytest.raises(ModelError, match="finite"):
                each.write(ids_BS[:, -1], state, rules, Numbers(0, tuple(range(batch)), ids_BS.shape[1]), 40, np.inf)
    assert 5 < results[0].shape[1] < 40
    np.testing.assert_array_equal(*results)


def test_networks_that_are_left_to_numpy(monkeypatch):
    """Catches a diverged network that the kernels' bounded functions would make sense of, and float64 cut short."""
    made = architecture("lstm")
    parameters = random_parameters(made)
    assert fits(Network(made, parameters))
    assert not fits(Network(made, {name: value.astype(np.float64) for name, value in parameters.items()}))
    parameters["rnn.weight_hh_l1"][3, 4] = np.nan
    network = Network(made, parameters)
    assert not fits(network)
    assert isinstance(writer(network, "auto"), NumpyWriter)
    with pytest.raises(SettingsError, match="precision must be fp32"):
        writer(network, "int8")
    with pytest.raises(SettingsError, match="relu"):
        writer(random_network(architecture("rnn", "relu")), "int8")


def test_wrong_arguments_are_refused(variant):
    """Catches memory read or written out of bounds: all that crosses into C++ is checked there."""
    network = random_network(architecture())
    native = NativeWriter(variant, network, "fp32", 1)
    state = network.initial_state(2)
    with pytest.raises(ValueError, match="ids must be in"):
        native.logits(np.array([[0, 37], [0, 0]]), state)
    with pytest.raises(ValueError, match="ids must be in"):
        native.write(np.array([0, -1]), state, PLAIN, Numbers(0, (0, 1)), 3, 1.0)
    with pytest.raises(ValueError, match="sequences"):
        native.write(np.array([0, 1]), state, PLAIN, Numbers(0, (0,)), 3, 1.0)
    with pytest.raises(ValueError, match="h must be"):
        native.logits(np.array([[0]]), State(state.h_LBH[:1], state.c_LBH))
    with pytest.raises(ValueError, match="never"):
        native.write(np.array([0, 1]), state, Rules(Sampling(), (37,)), Numbers(0, (0, 1)), 3, 1.0)


# ---- what a person meets


@pytest.mark.parametrize("cell", sorted(LAYERS))
def test_a_model_writes_the_same_with_and_without_kernels(cell, monkeypatch):
    """Catches a prompt, a stop string, a record or a first token that one of the two treats otherwise."""
    vocabulary = Vocabulary("characters", tuple("\n abcdefgh"))
    made = architecture(cell, vocabulary_size=vocabulary.size)
    parameters = random_parameters(made)
    texts = []
    for module in (None, *map(kernels.open_variant, kernels.runnable())):
        monkeypatch.setattr(kernels, "chosen", lambda module=module: kernels.KernelChoice("x", module, "a test"))
        model = Model(made, vocabulary, parameters)
        texts.append(
            [*model.generate_many(3, "abc", 150, seed=1, stop=["ab"]), model.generate("", 50, seed=2, top_k=3)]
        )
    assert all(text == texts[0] for text in texts[1:])


def test_precisions_and_threads_are_options():
    """Catches an option that is taken and does nothing."""
    vocabulary = Vocabulary("characters", tuple("\n abcdefgh"))
    made = architecture("lstm", vocabulary_size=vocabulary.size)
    model = Model(made, vocabulary, random_parameters(made, scale=3.0))
    if kernels.chosen().module is None:
        pytest.skip("no kernels are built here")
    texts = {p: model.generate("abc", 1000, seed=1, precision=p) for p in ("auto", "fp32", "bf16", "int8")}
    assert texts["auto"] == texts["fp32"] == model.generate("abc", 1000, seed=1, threads=1)
    assert len(set(texts.values())) == 3


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("batch", [1, 3, 40])
@pytest.mark.parametrize(("cell", "nonlinearity"), BOUNDED)
def test_the_reset_symbol_is_read_from_the_zero_state(variant, cell, nonlinearity, batch, precision):
    """Catches recurrent sums, hidden values or an LSTM's c that a record has from the one before; made ahead, too."""
    made = architecture(cell, nonlinearity, hidden=40, vocabulary_size=6)
    weights = random_parameters(made)
    plain = NativeWriter(variant, Network(made, weights), precision)
    resetting = NativeWriter(variant, Network(made, weights, reset_id=2), precision)
    ids_BS = np.random.default_rng(4).integers(0, 6, (batch, 30))
    ids_BS[:, 0] = 1
    network = random_network(made)
    logits_BSV, after = resetting.logits(ids_BS, network.initial_state(batch))
    for row in range(batch):
        for start, stop in itertools.pairwise([0, *np.flatnonzero(ids_BS[row] == 2), 30]):
            expected, state = plain.logits(ids_BS[row : row + 1, start:stop], network.initial_state(1))
            np.testing.assert_array_equal(logits_BSV[row, start:stop], expected[0])
        np.testing.assert_array_equal(after.h_LBH[:, row], state.h_LBH[:, 0])


@pytest.mark.parametrize("batch", [1, 2, 30])
@pytest.mark.parametrize(("cell", "nonlinearity"), CELLS)
def test_records_that_are_written_begin_anew(variant, cell, nonlinearity, batch):
    """The same where the tokens are chosen: what follows a separator is what follows it in a text of its own."""
    made = architecture(cell, nonlinearity, hidden=40, vocabulary_size=6)
    weights = random_parameters(made)
    slow, fast = (
        kind(*arguments)
        for kind, arguments in (
            (NumpyWriter, (Network(made, weights, reset_id=2),)),
            (NativeWriter, (variant, Network(made, weights, reset_id=2), "fp32")),
        )
    )
    network = Network(made, weights, reset_id=2)
    for pieces in ((10**9,), (1,), (5, 2)):
        expected, state = written(slow, network, batch, 60, pieces, start=2)
        found, after = written(fast, network, batch, 60, pieces, start=2)
        assert (expected == 2).any()
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(after.h_LBH, state.h_LBH, atol=1e-5)
