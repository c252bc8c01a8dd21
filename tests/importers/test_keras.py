"""Files from Keras: the same logits in every layout, and an error for networks that charloom does not have."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from contextlib import suppress

import numpy as np
import pytest

from charloom.errors import CharloomError, DeviceError, ModelError, SettingsError
from charloom.importers.importing import import_model

h5py = pytest.importorskip("h5py")

CLOSE = 1e-5
V = 10  # alphabet
# Keras 3.15 on NumPy 2.4: its torch tensors have no `copy`.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SUFFIXES = [".keras", ".weights.h5", ".h5"]


@pytest.fixture(autouse=True)
def counted_anew(keras):
    """Restarts Keras's numbering of layers, which otherwise depends on earlier tests."""
    keras.utils.clear_session()


@pytest.fixture
def L(keras):
    return keras.layers


@pytest.fixture
def notices():
    return []


@pytest.fixture
def saved(keras, tmp_path):
    """(file, logits of ids_BT) of a model with random weights and biases; Keras's own biases are zero."""

    def saved(layers, suffix, how="ids", std=0.6):
        model = layers if isinstance(layers, keras.Model) else keras.Sequential(layers)
        random = np.random.default_rng(0)
        model.set_weights([random.normal(0, std, weight.shape) for weight in model.get_weights()])
        path = tmp_path / f"model{suffix}"
        (model.save_weights if suffix == ".weights.h5" else model.save)(path)

        def original(ids_BT):
            x = {"ids": ids_BT, "onehot": np.eye(V)[ids_BT], "scalar": ids_BT[..., None] / V}[how]
            return keras.ops.convert_to_numpy(model(x.astype("int32" if how == "ids" else "float32")))

        return path, original

    return saved


def cells(L, name, *, layers=2, units=6, **options):
    return [getattr(L, name)(units, return_sequences=True, **options) for _ in range(layers)]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
def test_every_cell_in_every_layout(L, saved, apart, alphabet, characters, name, suffix):
    """Catches gates in Keras's order, a matrix that is not transposed, and a bias lost or added to the
    wrong product.
    """
    path, original = saved([L.Input((None,)), L.Embedding(V, 4), *cells(L, name), L.Dense(V)], suffix)
    model = import_model(path, characters, print)
    assert apart(model, alphabet, original) < CLOSE
    assert model.architecture.cell == {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn"}[name]
    assert model.architecture.layers == 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_lesson_with_a_window(L, saved, apart, alphabet, characters, suffix):
    """Catches one-hot columns in the file's order, and an error for layers without an effect after training."""
    layers = [
        L.Input((13, V)),
        L.LSTM(8, return_sequences=True, dropout=0.1),
        L.Dropout(0.2),
        L.LSTM(8, stateful=False),
    ]
    path, original = saved([*layers, L.Dropout(0.5), L.Dense(V), L.Activation("softmax")], suffix, "onehot")
    model = import_model(path, characters, print)
    assert model.architecture.input == "onehot"
    assert apart(model, alphabet, original, last=True, softmax=True) < CLOSE


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_optimizers_arrays_are_no_layers(L, saved, keras, apart, alphabet, characters, suffix):
    """Catches Adam's moments, which have the shapes of weights, taken for weights."""
    model = keras.Sequential([L.Input((13, V)), L.LSTM(6), L.Dense(V)])
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(np.zeros((2, 13, V)), np.eye(V)[:2], verbose=0)
    path, original = saved(model, suffix, "onehot")
    assert apart(import_model(path, characters, print), alphabet, original, last=True) < CLOSE


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_time_distributed_without_biases(L, saved, apart, alphabet, characters, suffix):
    """Catches a head inside a wrapper that is not found, and a matrix without a bias taken for an embedding."""
    head = [L.TimeDistributed(L.Dense(V, use_bias=False)), L.TimeDistributed(L.Dropout(0.1))]
    path, original = saved([L.Input((None, V)), *cells(L, "LSTM", use_bias=False), *head], suffix, "onehot")
    assert apart(import_model(path, characters, print), alphabet, original) < CLOSE


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_gru_without_bias_whose_configuration_tells(L, saved, apart, alphabet, characters, suffix):
    """Catches a bias of zeros in the shape of the other equation."""
    layers = [L.Input((None, V)), *cells(L, "GRU", use_bias=False), L.Dense(V)]
    path, original = saved(layers, suffix, "onehot")
    assert apart(import_model(path, characters, print), alphabet, original) < CLOSE


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_relu(L, saved, apart, alphabet, characters, suffix):
    """Catches a nonlinearity that is only in the configuration, not in the weights."""
    layers = [L.Input((None, V)), *cells(L, "SimpleRNN", activation="relu"), L.Dense(V)]
    path, original = saved(
        layers, suffix, "onehot", std=0.4
    )  # below 1, because with relu the state can grow without a bound
    model = import_model(path, characters, print)
    assert model.architecture.nonlinearity == "relu"
    assert apart(model, alphabet, original) < CLOSE


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_of_ones_own(L, keras, saved, apart, alphabet, characters, suffix):
    """Catches layers in alphabetical order instead of the order of the model."""
    ids = L.Input((None,), name="in")
    x = L.Embedding(V, 6, name="zz")(ids)
    x = L.GRU(6, return_sequences=True, stateful=False, name="upper_last")(x)
    x = L.GRU(6, return_sequences=True, name="a_top")(x)
    path, original = saved(keras.Model(ids, L.Dense(V, name="logits")(x)), suffix)
    assert apart(import_model(path, characters, print), alphabet, original) < CLOSE


def test_eleven_layers(L, saved, apart, alphabet, characters, notices):
    """Catches simple_rnn_10 before simple_rnn_2."""
    layers = [L.Input((None, V)), *cells(L, "SimpleRNN", layers=11), L.Dense(V)]
    path, original = saved(layers, ".weights.h5", "onehot", std=0.45)
    assert apart(import_model(path, characters, notices.append), alphabet, original) < CLOSE
    assert "the order simple_rnn → simple_rnn_1 → simple_rnn_2 → " in notices[0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_scalar_input(L, saved, apart, alphabet, characters, notices, suffix):
    """Catches numbers that follow charloom's order of characters, and so belong to other characters."""
    path, original = saved([L.Input((None, 1)), *cells(L, "LSTM", layers=1), L.Dense(V)], suffix, "scalar")
    assert apart(import_model(path, characters, notices.append), alphabet, original) < CLOSE
    assert "assumed: the character's index divided by the number of characters" in notices[-1]


def test_tensorflows_tutorial(L, keras, saved, apart, tmp_path, alphabet):
    """Catches an error for a custom model class, of which only the weights can be read, and a vocabulary
    without [UNK].
    """

    class MyModel(keras.Model):
        def __init__(self):
            super().__init__()
            self.embedding = L.Embedding(V, 4)
            self.gru = L.GRU(6, return_sequences=True, return_state=True)
            self.dense = L.Dense(V)

        def call(self, ids):
            return self.dense(self.gru(self.embedding(ids))[0])

    model = MyModel()
    model(np.zeros((1, 3), "int32"))
    path, original = saved(model, ".weights.h5")
    tokens = ("[UNK]", *alphabet[1:])
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    imported = import_model(path, tmp_path / "tokens.json", print)
    assert imported.vocabulary.unknown
    assert apart(imported, tokens, original) < CLOSE


def _bidirectional(L):
    return [L.Input((None, V)), L.Bidirectional(L.LSTM(6)), L.Dense(V)]


def _reset_before(L):
    return [L.Input((None, V)), L.GRU(6, reset_after=False), L.Dense(V)]


def _lambda(L):
    return [L.Input((None, V)), L.LSTM(6), L.Lambda(lambda x: 2 * x), L.Dense(V)]


def _flat(L):
    return [L.Input((5, V)), L.LSTM(6, return_sequences=True), L.Flatten(), L.Dense(V)]


def _two_heads(L):
    return [L.Input((None, V)), L.LSTM(6), L.Dense(6), L.Dense(V)]


def _two_cells(L):
    return [L.Input((None, V)), L.LSTM(6, return_sequences=True), L.GRU(6), L.Dense(V)]


def _narrowing(L):
    return [L.Input((None, V)), L.LSTM(6, return_sequences=True), L.LSTM(5), L.Dense(V)]


def _normed(L):
    return [L.Input((None, V)), L.LSTM(6), L.BatchNormalization(), L.Dense(V)]


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (_bidirectional, "forwards only; .*bidirectional"),
        (_reset_before, "gru must be a GRU with reset_after=True"),
        (_lambda, "lambda is a Lambda layer, which is code; no code is run from a file"),
        (_flat, "flatten is a layer that charloom's networks do not have"),
        (_two_heads, "one Dense|as many as the network predicts"),
        (_two_cells, "every recurrent layer must be like the first, .*: lstm with 6 units; .* is gru with 6"),
        (_narrowing, "every recurrent layer must be like the first, .*: lstm with 6 units; .* is lstm with 5"),
        (_normed, "one Dense|batch_normalization is a layer that charloom's networks do not have"),
    ],
)
def test_other_functions(L, keras, tmp_path, characters, layers, says):
    """Catches a network with other functions that is imported as if it had charloom's."""
    refused(keras, tmp_path, characters, layers(L), says, SUFFIXES)


def refused(keras, tmp_path, characters, layers, says, suffixes):
    """Whether a model is refused in one line in every layout."""
    keras.utils.clear_session(free_memory=False)  # restarts the numbering; collecting garbage would take long
    model = layers if isinstance(layers, keras.Model) else keras.Sequential(layers)
    for suffix in suffixes:
        path = tmp_path / f"model{suffix}"
        (model.save_weights if suffix == ".weights.h5" else model.save)(path)
        with pytest.raises(ModelError, match=says) as error:
            import_model(path, characters, print)
        assert str(error.value).startswith(f"{path.name}: ")
        assert "\n" not in str(error.value)


def _branch(keras, L):
    x = L.Input((None, V))
    return keras.Model(x, L.Dense(V)(L.Add()([L.LSTM(V)(x), L.GRU(V)(x)])))


def _initial_state(keras, L):
    x = L.Input((None, V))
    y, *state = L.LSTM(V, return_sequences=True, return_state=True)(x)
    return keras.Model(x, L.Dense(V)(L.LSTM(V)(y, initial_state=state)))


def _beside(keras, L):
    x = L.Input((None, V))
    unused, used = L.LSTM(V)(x), L.LSTM(V)(x)
    return keras.Model(x, [L.Dense(V)(used), unused])


def _cell_state(keras, L):
    x = L.Input((None, V))
    return keras.Model(x, L.Dense(V)(L.LSTM(V, return_state=True)(x)[2]))


def _twice(keras, L):
    x, layer = L.Input((None, V)), L.LSTM(V, return_sequences=True)
    return keras.Model(x, L.Dense(V)(layer(layer(x))))


DENSE = ("Dense", {"units": V})


def _lstm(**options):
    return "LSTM", {"units": 6, **options}


def _chain(*layers):
    """A function that builds a model of these layers; each is a class and its arguments."""

    def build(keras, L):
        built = [getattr(L, kind)(**{**options, **_cell(L, kind)}) for kind, options in layers]
        return [L.Input((None, V)), *built]

    return build


def _cell(L, kind):
    return {"cell": L.LSTMCell(6)} if kind == "RNN" else {}


def _masked(keras, L):
    return [L.Input((None,)), L.Embedding(V, 4, mask_zero=True), L.LSTM(6), L.Dense(V)]


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (_branch, "add is a layer|must be a chain of layers"),
        (_initial_state, "must be a chain of layers; the input of lstm_1 is not"),
        (_beside, "must be a chain of layers; the input of lstm.* is not"),
        (_cell_state, "must be a chain of layers; the input of dense is not"),
        (_twice, "must be a chain of layers; the input of lstm is not"),
        (_chain(_lstm(go_backwards=True), DENSE), "lstm reads backwards"),
        (_chain(_lstm(activation="relu"), DENSE), "lstm: activation must be tanh"),
        (
            _chain(_lstm(recurrent_activation="hard_sigmoid"), DENSE),
            "lstm: recurrent_activation must be sigmoid, as in charloom's networks; found 'hard_sigmoid'",
        ),
        (
            _chain(("GRU", {"units": 6, "recurrent_activation": "relu"}), DENSE),
            "gru: recurrent_activation must be sigm",
        ),
        (_chain(("GRU", {"units": 6, "use_bias": False, "reset_after": False}), DENSE), "gru .* reset_after=True"),
        (_chain(("SimpleRNN", {"units": 6, "activation": "elu"}), DENSE), "activation must be tanh or relu"),
        (
            _chain(
                ("SimpleRNN", {"units": 6, "return_sequences": True}),
                ("SimpleRNN", {"units": 6, "activation": "relu"}),
                DENSE,
            ),
            "all SimpleRNN layers must have the same activation",
        ),
        (_chain(_lstm(), ("Dense", {"units": V, "activation": "relu"})), "dense: activation must be linear or softmax"),
        (_chain(_lstm(), ("Activation", {"activation": "tanh"}), DENSE), "activation: activation must be linear"),
        (_chain(_lstm(), ("Softmax", {}), DENSE), "dense .* must not follow a Softmax"),
        (_chain(_lstm(), ("Dense", {"units": V, "activation": "softmax"}), ("Softmax", {})), "softmax once"),
        (_chain(("RNN", {"cell": None}), DENSE), "rnn is a layer that charloom's networks do not have, RNN"),
        (_chain(_lstm(), ("RepeatVector", {"n": 3}), DENSE), "repeat_vector is a layer that"),
        (_masked, "embedding must read every character; with mask_zero it skips those of index 0"),
    ],
)
def test_what_only_a_configuration_tells(keras, L, tmp_path, characters, build, says):
    """Catches weights of the right shape whose network computes something else."""
    refused(keras, tmp_path, characters, build(keras, L), says, [".keras", ".h5"])


def test_custom_code(keras, L, tmp_path, characters, alphabet, notices):
    """Catches a custom class or function: only running its code would show what it computes."""

    @keras.saving.register_keras_serializable("mine")
    class LSTM(L.LSTM):
        pass

    class Whole(keras.Model):
        def call(self, x):
            return x

    def act(x):
        return x

    LSTM.__module__ = "__main__"  # as in a notebook; then Keras writes no module
    path = tmp_path / "model.keras"
    keras.Sequential([L.Input((None, V)), LSTM(6), L.Dense(V)]).save(path)
    with pytest.raises(ModelError, match="is of a custom class, mine>LSTM; no code is run from a file"):
        import_model(path, characters, print)
    keras.Sequential([L.Input((None, V)), L.LSTM(6, activation=act), L.Dense(V)]).save(path)
    with pytest.raises(ModelError, match=r"activation must be tanh, as in charloom's networks; found {"):
        import_model(path, characters, print)
    whole = Whole()
    whole(np.zeros((1, 2)))
    whole.save(path)
    with pytest.raises(ModelError, match=r"the model is of a custom class, .*Whole; no code"):
        import_model(path, characters, print)


def test_a_gru_without_bias_and_configuration(L, saved, characters):
    """Catches a choice between two equations with the same weights without information."""
    path, _ = saved([L.Input((None, V)), L.GRU(6, use_bias=False), L.Dense(V)], ".weights.h5", "onehot")
    with pytest.raises(ModelError, match=r"only a whole model has its reset_after; use model.save\(\)"):
        import_model(path, characters, print)


@pytest.fixture
def keras_2(tmp_path):
    """Writes a file like tf.keras 2, by hand, without TensorFlow: byte strings as names that end with `:0`."""

    def written(layers, model_config=None):
        path = tmp_path / "old.h5"
        with h5py.File(path, "w") as root:
            group = root if model_config is None else root.create_group("model_weights")
            group.attrs["layer_names"] = np.array([name.encode() for name in layers])
            group.attrs["backend"] = b"tensorflow"
            group.attrs["keras_version"] = b"2.4.0"
            for layer, weights in layers.items():
                below = group.create_group(layer)
                below.attrs["weight_names"] = np.array([name.encode() for name in weights])
                for name, array in weights.items():
                    below.create_dataset(name, data=array.astype("float32"))
            if model_config is not None:
                root.attrs["model_config"] = json.dumps(model_config).encode()
        return path

    return written


@pytest.fixture
def arrays():
    """Random weights for the layers of the old files, by the shape of each."""
    random = np.random.default_rng(2)
    return lambda *shape: random.normal(0, 0.6, shape)


def test_keras_2_weights(keras_2, arrays, apart, alphabet, characters, notices):
    """Catches names of the old layout, and layers without weights. The reference is Keras's LSTM in NumPy."""
    kernels = [(arrays(V, 24), arrays(6, 24), arrays(24)), (arrays(6, 24), arrays(6, 24), arrays(24))]
    head = arrays(6, V), arrays(V)
    names = ("lstm_cell/kernel:0", "lstm_cell/recurrent_kernel:0", "lstm_cell/bias:0")
    layers = {
        "lstm_4": {f"lstm_4/{name}": array for name, array in zip(names, kernels[0], strict=True)},
        "dropout_1": {},
        "lstm_3": {f"lstm_3/{name}": array for name, array in zip(names, kernels[1], strict=True)},
        "dense_1": {"dense_1/kernel:0": head[0], "dense_1/bias:0": head[1]},
    }

    def original(ids_BT):
        x_BTX = np.eye(V)[ids_BT]
        for kernel, recurrent, bias in kernels:
            x_BTX = lstm_of_keras(x_BTX, kernel, recurrent, bias)
        return x_BTX @ head[0] + head[1]

    model = import_model(keras_2(layers), characters, notices.append)
    assert apart(model, alphabet, original) < CLOSE
    assert model.metadata["format"] == "Keras HDF5 weights"
    assert "layers in the order lstm_4 → lstm_3" in notices[0]


def lstm_of_keras(x_BTX, kernel, recurrent, bias):
    """Keras's documentation in NumPy; gates i, f, c, o."""

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    h_BH = c_BH = np.zeros((len(x_BTX), len(recurrent)))
    out = []
    for x_BX in x_BTX.swapaxes(0, 1):
        i, f, c, o = np.split(x_BX @ kernel + h_BH @ recurrent + bias, 4, axis=1)
        c_BH = sigmoid(f) * c_BH + sigmoid(i) * np.tanh(c)
        h_BH = sigmoid(o) * np.tanh(c_BH)
        out.append(h_BH)
    return np.stack(out, 1)


def lstm_file(keras_2, arrays, config=None, **options):
    """One LSTM and a Dense layer, with the configuration that Keras 2 wrote."""
    bias = options.pop("bias", arrays(24))
    layers = {
        "lstm_1": dict(zip(("k:0", "r:0", "b:0"), (arrays(V, 24), arrays(6, 24), bias), strict=True)),
        "dense_1": {"k:0": arrays(6, V), "b:0": arrays(V)},
    }
    lstm = {"name": "lstm_1", "activation": "tanh", "recurrent_activation": "sigmoid", **options}
    entries = [
        {"class_name": "LSTM", "config": lstm},
        {"class_name": "Dense", "config": {"name": "dense_1", "activation": "softmax"}},
    ]
    return keras_2(layers, config or {"class_name": "Sequential", "config": entries})


def test_keras_2_weights_with_code(keras_2, arrays, characters):
    """Catches a layer without weights that is dropped although it has an effect."""
    with pytest.raises(ModelError, match="lambda_1 is a Lambda layer, which is code"):
        import_model(keras_2({"lambda_1": {}, "dense_1": {"k:0": arrays(6, V)}}), characters, print)


def test_keras_2_models(keras_2, arrays, characters, notices):
    """Catches a configuration of Keras 2.2 that is refused: a list of layers."""
    model = import_model(lstm_file(keras_2, arrays), characters, notices.append)
    assert model.metadata["format"] == "Keras HDF5 model"
    assert notices == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"recurrent_activation": "hard_sigmoid"}, "recurrent_activation must be sigmoid, .* found 'hard_sigmoid'"),
        (
            {"config": {"class_name": "MyModel", "config": {}}},
            r"'MyModel', which is code; .*save_weights\('x.weights.h5'\)",
        ),
        ({"config": {"class_name": "Sequential", "config": [7]}}, "old.h5: the file must be whole; it is damaged"),
        ({"config": [1, 2]}, "old.h5: the file must be whole; it is damaged"),
        (
            {"config": {"class_name": "Sequential", "config": {"layers": [{"class_name": "X", "config": {}}]}}},
            "X is a layer",
        ),
        ({"bias": np.zeros(48)}, r"unknown shape \(48,\); layers of CuDNN cannot be imported"),
        ({"bias": np.full(24, np.inf)}, "rnn.bias_ih_l0 must be finite"),
    ],
)
def test_keras_2_models_that_are_not_ours(keras_2, arrays, characters, options, says):
    """Catches the default of old Keras, whose cell has another function, and damaged or strange configurations."""
    with pytest.raises(ModelError, match=says):
        import_model(lstm_file(keras_2, arrays, **options), characters, print)


def test_a_configuration_of_another_model(keras_2, arrays, characters):
    """Catches a configuration with two recurrent layers for one in the file."""
    entry = {"class_name": "LSTM", "config": {"name": "a", "activation": "tanh", "recurrent_activation": "sigmoid"}}
    config = {"class_name": "Sequential", "config": {"layers": [entry, entry]}}
    with pytest.raises(ModelError, match="the configuration has 2 recurrent layers, the weights 1"):
        import_model(lstm_file(keras_2, arrays, config), characters, print)


def test_nothing_outside_the_file_is_read(keras_2, arrays, characters, tmp_path):
    """Catches an untrusted file that reads another file as weights, or fills the memory."""
    path = lstm_file(keras_2, arrays)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(4 * V))
    bias = "model_weights/dense_1/b:0"
    with h5py.File(path, "a") as root:
        del root[bias]
        root.create_dataset(bias, (V,), "float32", external=[(str(secret), 0, 4 * V)])
    with pytest.raises(ModelError, match="must be floats in the file itself"):
        import_model(path, characters, print)
    with h5py.File(path, "a") as root:
        del root[bias]
        root[bias] = h5py.ExternalLink(str(tmp_path / "other.h5"), "b")
    with pytest.raises(ModelError, match="damaged: KeyError"):
        import_model(path, characters, print)
    path.rename(tmp_path / "other.h5")
    with h5py.File(path, "w") as root:
        root["model_weights"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "model_weights")
    with pytest.raises(ModelError, match="model_weights must be in the file itself"):
        import_model(path, characters, print)
    path = (tmp_path / "other.h5").rename(path)
    with h5py.File(path, "a") as root:
        del root[bias]
        root.create_dataset(bias, (2**36,), "float32", chunks=True)
    with pytest.raises(ModelError, match=r"found 274,877,9.*: it is damaged or malicious"):
        import_model(path, characters, print)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files(L, saved, characters, suffix):
    """Catches a traceback for an incomplete download or a flipped bit."""
    path, _ = saved([L.Input((None, V)), L.LSTM(6), L.Dense(V)], suffix, "onehot")
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for size in (9, 50, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match="damaged"):
            import_model(path, characters, print)
    for place in random.integers(0, len(whole), 40).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with suppress(CharloomError):
            import_model(path, characters, print)


def test_an_embedding_that_is_no_matrix(keras_2, arrays, characters):
    """Catches an IndexError: an embedding is told by its name, so its array may have any shape."""
    cell = {"k:0": arrays(4, 24), "r:0": arrays(6, 24), "b:0": arrays(24)}
    layers = {"embedding": {"e:0": arrays(V)}, "lstm": cell, "dense": {"k:0": arrays(6, V), "b:0": arrays(V)}}
    with pytest.raises(ModelError, match=r"embedding must be an Embedding, a matrix; found \(10,\)"):
        import_model(keras_2(layers), characters, print)


def test_a_zip_bomb(tmp_path, characters):
    """Catches a few bytes that unpack to gigabytes in memory."""
    with zipfile.ZipFile(tmp_path / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(2**25))
    with pytest.raises(ModelError, match="found 33,554,434: it is damaged or malicious"):
        import_model(tmp_path / "model.keras", characters, print)


def test_a_kind_is_told_by_content(L, saved, apart, alphabet, characters, tmp_path):
    """Catches a format that is detected by the file's name."""
    path, original = saved([L.Input((None, V)), *cells(L, "LSTM"), L.Dense(V)], ".keras", "onehot")
    path = path.rename(tmp_path / "model.pt")
    assert apart(import_model(path, characters, print), alphabet, original) < CLOSE


def test_without_characters(keras_2, arrays):
    """Catches a model without known characters."""
    with pytest.raises(
        SettingsError, match=r"`characters` must be given for old\.h5: a file with the network's 10 characters"
    ):
        import_model(lstm_file(keras_2, arrays), None, print)


def test_without_h5py(keras_2, arrays, characters, monkeypatch):
    """Catches a traceback in the base install."""
    path = lstm_file(keras_2, arrays)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DeviceError, match=r"not installed; run: pip install h5py"):
        import_model(path, characters, print)


def test_neither_keras_nor_torch_is_loaded(keras_2, arrays, characters):
    """Catches imports of packages that take seconds, that reading does not need, and that may be missing."""
    code = (
        "import sys; from pathlib import Path; from charloom.importers.importing import import_model; "
        f"import_model(Path({str(lstm_file(keras_2, arrays))!r}), Path({str(characters)!r}), print); "
        "print({'keras', 'torch', 'tensorflow'} & {*sys.modules})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "set()\n", ended.stderr
