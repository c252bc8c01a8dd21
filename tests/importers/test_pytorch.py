"""Checkpoints of PyTorch's lessons: the same logits, and nothing in the file is run."""

from __future__ import annotations

import copy
import os
import struct
import sys
import tracemalloc
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from charloom.errors import CharloomError, DeviceError, ModelError, SettingsError
from charloom.importers.importing import import_model

torch = pytest.importorskip("torch")
nn = torch.nn

CLOSE = 1e-5


def draw(module, std):
    """Draws all weights, the same in each run and so large that logits differ."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=std, generator=random)


class CharRNN(nn.Module):
    """The lesson's network and variants of it."""

    def __init__(self, size=10, hidden=7, layers=2, cell=nn.LSTM, embedding=0, width=0, bias=True, std=1.2, **options):
        super().__init__()
        self.size, self.width = size, width
        if embedding:
            self.encoder = nn.Embedding(size, embedding)
        self.lstm = cell(embedding or width or size, hidden, layers, batch_first=True, bias=bias, **options)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(hidden, size, bias=bias)
        draw(self, std)

    def forward(self, ids):
        if hasattr(self, "encoder"):
            x = self.encoder(ids)
        elif self.width:
            x = (ids / self.size).unsqueeze(-1)
        else:
            x = nn.functional.one_hot(ids, self.size).float()
        return self.fc(self.lstm(x.to(self.fc.weight.dtype))[0])

    def logits(self, ids):
        """In float64: deep networks amplify rounding, which could hide a mistake."""
        with torch.no_grad():
            return copy.deepcopy(self).double()(torch.from_numpy(ids)).numpy()

    def plain_logits(self, ids):
        """In float32, as the lesson computes them."""
        with torch.no_grad():
            return self(torch.from_numpy(ids)).numpy()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "rnn.net"


@pytest.fixture
def notices():
    return []


def lesson(net, alphabet) -> dict:
    """The checkpoint that the lesson saves."""
    return {"n_hidden": 7, "n_layers": 2, "state_dict": net.state_dict(), "tokens": alphabet}


@pytest.mark.parametrize("zipped", [True, False])
def test_the_lessons_checkpoint(file, alphabet, apart, notices, zipped):
    """Catches tokens or gates in another order, and a format that only new or only old PyTorch writes."""
    net = CharRNN()
    torch.save(lesson(net, alphabet), file, _use_new_zipfile_serialization=zipped)
    model = import_model(file, None, notices.append)
    assert apart(model, alphabet, net.logits) < CLOSE
    assert apart(model, alphabet, net.plain_logits) < CLOSE
    assert model.vocabulary.characters == tuple(sorted(alphabet))
    assert (model.architecture.cell, model.architecture.input) == ("lstm", "onehot")
    assert notices == []


@pytest.mark.parametrize(
    "options",
    [
        {"cell": nn.GRU},
        {"cell": nn.RNN, "layers": 3, "std": 0.6},
        {"cell": nn.GRU, "embedding": 4},
        {"embedding": 7},
        {"bias": False, "embedding": 10},
        {"cell": nn.GRU, "bias": False, "layers": 1},
        {"hidden": 10, "layers": 12, "std": 2.5},
    ],
    ids=str,
)
def test_other_networks(file, alphabet, apart, options):
    """Catches cells with a wrong number of gates, an embedding taken for the head, and biases that do not exist."""
    net = CharRNN(**options)
    torch.save(lesson(net, alphabet), file)
    assert apart(import_model(file, None, print), alphabet, net.logits) < CLOSE


@pytest.mark.parametrize(
    "tokens",
    [
        list,
        "".join,
        lambda alphabet: dict(enumerate(alphabet)),
        lambda alphabet: {token: index for index, token in reversed([*enumerate(alphabet)])},
    ],
)
def test_tokens_as_people_kept_them(file, alphabet, apart, tokens):
    """Catches a dictionary that is read in the order of the file instead of its indices."""
    net = CharRNN()
    torch.save({"state_dict": net.state_dict(), "chars": tokens(alphabet)}, file)
    assert apart(import_model(file, None, print), alphabet, net.logits) < CLOSE


@pytest.mark.parametrize(
    "renamed",
    [
        lambda key: "module." + key,
        lambda key: "_orig_mod.module." + key,
        lambda key: key.replace("lstm.", "model.rnn.").replace("fc.", "decoder.0."),
        lambda key: key.replace("lstm.", ""),
    ],
)
def test_names_as_people_chose_them(file, alphabet, apart, renamed):
    """Catches layers found by their names instead of their shapes, and 10 before 2."""
    net = CharRNN(layers=12, std=2.5)
    state = {renamed(key): value for key, value in sorted(net.state_dict().items())}
    torch.save({"model_state_dict": state, "tokens": alphabet}, file)
    assert apart(import_model(file, None, print), alphabet, net.logits) < CLOSE


def test_two_recurrent_modules(file, alphabet, apart, notices):
    """Catches a second module that is lost, or whose order is assumed without a notice."""

    class Two(CharRNN):
        def __init__(self):
            super().__init__(layers=1)
            self.above = nn.LSTM(7, 7, 2, batch_first=True)
            self.fc = self._modules.pop("fc")
            draw(self, std=1.2)

        def forward(self, ids):
            x = nn.functional.one_hot(ids, self.size).to(self.fc.weight.dtype)
            return self.fc(self.above(self.lstm(x)[0])[0])

    net = Two()
    torch.save(lesson(net, alphabet), file)
    assert apart(import_model(file, None, notices.append), alphabet, net.logits) < CLOSE
    assert notices == ["the file does not say how its recurrent layers are connected; assumed: lstm → above"]


@pytest.mark.parametrize("order", [tuple, sorted])
def test_scalar_input(file, alphabet, apart, notices, order):
    """Catches numbers that follow charloom's order of characters, and so belong to other characters."""
    alphabet, net = order(alphabet), CharRNN(width=1, std=2.5)
    torch.save(lesson(net, alphabet), file)
    model = import_model(file, None, notices.append)
    assert apart(model, alphabet, net.logits) < CLOSE
    assert model.architecture.input == ("scalar" if order is sorted else "embedding")
    assert len(notices) == 1
    assert "index divided by" in notices[0]


def test_half_and_double_precision(file, alphabet, apart):
    """Catches weights that are not float32 in the folder."""
    net = CharRNN().double()
    torch.save(lesson(net, alphabet), file)
    model = import_model(file, None, print)
    assert {array.dtype for array in model.parameters.values()} == {np.dtype(np.float32)}
    assert all(array.flags.c_contiguous for array in model.parameters.values())
    assert apart(model, alphabet, net.logits) < CLOSE


@pytest.mark.parametrize("zipped", [True, False])
def test_a_gpus_checkpoint(file, alphabet, apart, monkeypatch, zipped):
    """Catches tensors that need a GPU that this machine does not have."""
    net = CharRNN()
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    torch.save(lesson(net, alphabet), file, _use_new_zipfile_serialization=zipped)
    assert b"cuda:0" in (zipfile.ZipFile(file).read("rnn/data.pkl") if zipped else file.read_bytes())
    assert apart(import_model(file, None, print), alphabet, net.logits) < CLOSE


def test_a_bare_state_dict_takes_its_characters_from_a_file(file, alphabet, characters, apart):
    """Catches characters that are ignored, or required although they are given."""
    net = CharRNN()
    torch.save(net.state_dict(), file)
    assert apart(import_model(file, characters, print), alphabet, net.logits) < CLOSE
    with pytest.raises(
        SettingsError, match=r"`characters` must be given for rnn\.net: a file with the network's 10 characters"
    ):
        import_model(file, None, print)


def test_characters_are_refused_where_the_file_has_its_own(file, alphabet, characters):
    """Catches characters from a file for a checkpoint that has its own."""
    torch.save(lesson(CharRNN(), alphabet), file)
    with pytest.raises(SettingsError, match="`characters` must be left out"):
        import_model(file, characters, print)


def test_plain_rnn_is_said_to_be_tanh(file, alphabet, notices):
    """Catches a missing notice about tanh: a relu network has the same weights."""
    torch.save(lesson(CharRNN(cell=nn.RNN), alphabet), file)
    assert import_model(file, None, notices.append).architecture.nonlinearity == "tanh"
    assert notices == ["the file does not say which nonlinearity the rnn has; assumed: tanh, PyTorch's default"]


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Command(Trap):
    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("trap", [Trap, Command])
def test_a_trap_is_not_sprung(file, tmp_path, alphabet, trap, zipped):
    """Catches a loader that runs code in the file."""
    made = tmp_path / "made"
    checkpoint = {**lesson(CharRNN(), alphabet), "extra": trap(made)}
    torch.save(checkpoint, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"rnn.net: .* it also needs .*, and no code is run from a file") as error:
        import_model(file, None, print)
    assert not made.exists()
    assert "\n" not in str(error.value)
    torch.load(file, weights_only=False)
    assert made.exists(), "the trap must be a real one"


@pytest.mark.parametrize(
    ("checkpoint", "code"),
    [
        (lambda net, alphabet: net, "CharRNN"),
        (lambda net, alphabet: {**lesson(net, alphabet), "tokens": np.array(alphabet)}, "numpy"),
    ],
)
def test_what_only_code_can_read(file, alphabet, checkpoint, code):
    """Catches PyTorch's page of advice for a pickled module or NumPy arrays, in place of one line with a solution."""
    torch.save(checkpoint(CharRNN(), alphabet), file)
    with pytest.raises(ModelError, match=rf"it also needs .*{code}.*; save .*net.state_dict") as error:
        import_model(file, None, print)
    assert "add_safe_globals" not in str(error.value)


def _with(**changes):
    return lambda net, alphabet: {**lesson(net, alphabet), **changes}


def _state(**changes):
    return lambda net, alphabet: {"state_dict": {**net.state_dict(), **changes}, "tokens": alphabet}


def _without(key):
    return lambda net, alphabet: {
        "state_dict": {name: value for name, value in net.state_dict().items() if name != key},
        "tokens": alphabet,
    }


@pytest.mark.parametrize(
    ("checkpoint", "says"),
    [
        (
            _with(tokens=["the", *"bcdefghij"]),
            "every token must be one character; found 'the'; charloom has no word-level models",
        ),
        (_with(tokens=tuple("abcdefghi")), "the characters must be as many as the network predicts, 10; found 9"),
        (_with(tokens=tuple("aacdefghij")), "must all be different, .*; found 'a' again"),
        (_with(tokens="abcdefghi\ud800"), "none U\\+D800"),
        (_with(tokens=set("abcdefghij")), "a list, a string, or a mapping to or from their index; found a set"),
        (_with(tokens=[1, *"bcdefghij"]), "found a list with a int"),
        (_with(tokens={"a": 0, "b": 2}), "indices must be 0 … 1, each once; 1 is missing"),
        (_with(tokens={"a": 0, "b": 0}), "indices must be 0 … "),
        (_with(state_dict={}), "must hold a recurrent network"),
        (lambda net, alphabet: [1, 2], "must hold a dictionary with a state_dict; found a list"),
        (_state(**{"fc2.weight": torch.ones(10, 10), "fc2.bias": torch.ones(10)}), "one linear layer, .*found fc, fc2"),
        (_state(**{"norm.weight": torch.ones(7)}), "norm is neither: weight"),
        (_state(**{"bn.running_mean": torch.ones(7)}), "bn is neither: running_mean"),
        (_state(**{"lstm.weight_hh_l0_raw": torch.ones(28, 7)}), "lstm is neither: weight_hh_l0_raw"),
        (_state(**{"fc.weight": torch.ones(10, 8)}), r"head.weight must be \(10, 7\) in this network; found \(10, 8\)"),
        (_state(**{"fc.weight": torch.full((10, 7), float("nan"))}), "head.weight must be finite"),
        (_state(**{"fc.bias": torch.full((10,), 1e300, dtype=torch.float64)}), "head.bias must be finite in float32"),
        (
            _state(**{"fc.bias": torch.ones(10, dtype=torch.int64)}),
            "fc.bias must be a tensor of floats; found torch.int64",
        ),
        (_state(**{"fc.bias": "ten"}), "fc.bias must be a tensor of floats; found str"),
        (_state(**{"fc.bias": torch.ones(1).expand(10**12)}), "fc.bias must have all its 1,000,000,000,000 numbers"),
        (_state(**{"lstm.weight_hh_l1": torch.ones(28)}), "lstm.weight_hh_l1 must be a matrix"),
        (
            _state(**{"lstm.weight_hh_l1": torch.ones(21, 7)}),
            "every recurrent layer must be like the first, .*lstm with 7",
        ),
        (_state(**{"lstm.weight_hh_l1": torch.ones(14, 7)}), "must have 1, 3 or 4 gates of 7 units; found 14 rows"),
        (
            _state(**{"lstm.weight_hh_l1": torch.ones(0, 0)}),
            "charloom has: hidden|like the first|found 0 rows",
        ),
        (_state(**{"lstm.weight_ih_l0": torch.ones(28, 3)}), r"must take 10 numbers \(one-hot\) or 1"),
        (_without("lstm.weight_hh_l1"), "lstm layer 1 must have a weight_hh"),
        (_without("fc.weight"), "fc is neither: bias"),
    ],
)
def test_networks_that_are_not_ours(file, alphabet, checkpoint, says):
    """Catches a traceback or a wrong model for a network that charloom does not have; the error is one line."""
    torch.save(checkpoint(CharRNN(), alphabet), file)
    with pytest.raises(ModelError, match=says) as error:
        import_model(file, None, print)
    assert str(error.value).startswith("rnn.net: ")
    assert "damaged" not in str(error.value)


def test_a_missing_layer(file, alphabet):
    """Catches layers 0 and 2 that are read as 0 and 1."""
    net = CharRNN(layers=3)
    state = {key: value for key, value in net.state_dict().items() if not key.endswith("_l1")}
    torch.save({"state_dict": state, "tokens": alphabet}, file)
    with pytest.raises(ModelError, match="lstm must have all its layers; number 1 is missing"):
        import_model(file, None, print)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bidirectional": True}, "forwards only; lstm.weight_ih_l0_reverse belongs to"),
        ({"proj_size": 5}, "lstm.weight_hr_l0 shows a projection"),
    ],
)
def test_other_equations(file, alphabet, options, says):
    """Catches a network with other equations that is imported as if it had charloom's."""
    torch.save({"state_dict": CharRNN(**options).state_dict(), "tokens": alphabet}, file)
    with pytest.raises(ModelError, match=says):
        import_model(file, None, print)


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files(file, alphabet, zipped):
    """Catches a traceback, or an error of another class, for an incomplete download or a flipped bit."""
    torch.save(lesson(CharRNN(), alphabet), file, _use_new_zipfile_serialization=zipped)
    whole, random = file.read_bytes(), np.random.default_rng(0)
    for size in (0, 1, 7, 50, 300, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"rnn\.net: .*damaged"):
            import_model(file, None, print)
    for place in random.integers(0, len(whole), 40).tolist():
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with suppress(CharloomError):
            import_model(file, None, print)


@pytest.mark.parametrize("content", [b"Call me Ishmael.", b"PK\x03\x04", b"\x80\x04N.", b"\x80\x02}q\x00."])
def test_files_of_another_kind(file, content):
    """Catches a traceback for a text, a broken zip and bare pickles."""
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"rnn\.net: the file must"):
        import_model(file, None, print)


@pytest.mark.parametrize("options", [{}, {"embedding": 3}, {"width": 1}], ids=["onehot", "embedding", "scalar"])
def test_padding_is_left_out(file, alphabet, apart, notices, options):
    """Catches rows of another token in place of the first, and scalar input that counts only the remaining
    characters.
    """
    net = CharRNN(**options)
    torch.save(lesson(net, ("<pad>", *alphabet[1:])), file)
    model = import_model(file, None, notices.append)
    assert model.architecture.vocabulary_size == len(alphabet) - 1
    assert apart(model, alphabet[1:], lambda ids: net.logits(ids + 1)[..., 1:]) < CLOSE
    assert notices[0] == "padding tokens are left out, as if they had probability 0: 1"


@pytest.mark.parametrize("name", ["itos", "stoi", "vocab"])
def test_indices_by_their_usual_names(file, alphabet, name):
    """Catches an error about missing characters for a checkpoint that has them."""
    stoi = {token: index for index, token in enumerate(alphabet)}
    found = {"itos": dict(enumerate(alphabet)), "stoi": stoi, "vocab": {"stoi": stoi, "itos": [*alphabet]}}[name]
    torch.save({"state_dict": CharRNN().state_dict(), name: found}, file)
    assert import_model(file, None, print).vocabulary.characters == tuple(sorted(alphabet))


@pytest.mark.parametrize(
    "begin",
    [struct.pack("<iii", 3, 1, 2), struct.pack("<iii", 4, 1, 3) + b"V 1", b"4\n1\n3\nV 1\n13\nnn.Sequential\n"],
    ids=["table", "object", "text"],
)
def test_a_file_of_torch7(file, begin):
    """Catches `it is damaged, or has another format` for files of char-rnn from 2015."""
    file.write_bytes(begin + bytes(99))
    with pytest.raises(ModelError, match=r"rnn\.net: .* it is one of Torch7 \(Lua\)"):
        import_model(file, None, print)


def test_a_zip_bomb(file):
    """Catches a few bytes that unpack to gigabytes in memory."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rnn/data.pkl", bytes(2**25))
    with pytest.raises(ModelError, match="found 33,554,432: it is damaged or malicious"):
        import_model(file, None, print)


def test_without_pytorch(file, alphabet, monkeypatch):
    """Catches a traceback in the base install."""
    torch.save(lesson(CharRNN(), alphabet), file)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DeviceError, match=r"not installed; run: pip install torch"):
        import_model(file, None, print)


def test_an_ordered_dict_with_hidden_cells(file, alphabet, apart):
    """Catches LSTMCell, whose parameter names have no layer number."""
    net = CharRNN(layers=1)
    state = OrderedDict((key.replace("_l0", ""), value) for key, value in net.state_dict().items())
    torch.save({"state_dict": state, "tokens": alphabet}, file)
    assert apart(import_model(file, None, print), alphabet, net.logits) < CLOSE


def test_metadata(file, alphabet):
    """Catches a model whose metadata does not name its file."""
    import hashlib

    torch.save(lesson(CharRNN(), alphabet), file)
    assert import_model(file, None, print).metadata == {
        "imported_from": "rnn.net",
        "format": "PyTorch",
        "file_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }


def test_a_pickle_that_claims_a_string_of_gigabytes(file):
    """Catches memory that is allocated for a string that the file does not contain."""
    file.write_bytes(b"\x80\x02X" + (3 << 30).to_bytes(4, "little") + b"only a few bytes.")
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="damaged, or has another format"):
            import_model(file, None, print)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
