"""Model folders: complete or missing, checked field by field, and readable by PyTorch alone."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from itertools import count, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from charloom import files
from charloom.architecture import Architecture
from charloom.checkpoint import (
    FORMAT,
    ModelFolder,
    find_model,
    load_model,
    read_arrays,
    read_json,
    save_model,
)
from charloom.config import Cleaning
from charloom.data.vocabulary import Vocabulary
from charloom.errors import CharloomError, ModelError
from charloom.files import LARGEST_TEXT
from charloom.inference.network import InferenceNetwork
from charloom.inference.weights import InferenceWeights

CELLS = [("lstm", "tanh"), ("gru", "tanh"), ("rnn", "tanh"), ("rnn", "relu")]


def model(seed=0, cell="lstm", nonlinearity="tanh", layers=1, **values):
    shape = Architecture(
        cell=cell, nonlinearity=nonlinearity, layers=layers, hidden=6, input="embedding", embedding=3, vocabulary_size=6
    )
    generator = np.random.default_rng(seed)
    weights = {name: generator.normal(0, 1, size).astype(np.float32) for name, size in shape.shapes.items()}
    vocabulary = Vocabulary("characters", ("\n", "a", "é", "\U0001f600"), unknown=True, separator=True)
    return ModelFolder(shape, vocabulary, weights, **{"records": "line", **values})


def same(one, two):
    weights = [{name: value.tobytes() for name, value in made.parameters.items()} for made in (one, two)]
    rest = [dataclasses.replace(made, parameters={}) for made in (one, two)]
    return weights[0] == weights[1] and rest[0] == rest[1]


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "best", model())
    return tmp_path / "best"


def test_a_folder_gives_back_what_was_saved(tmp_path):
    """Catches a field that is not stored, or that is stored with another value."""
    made = model(
        cleaning=Cleaning(lowercase=True, allow="aé\n", normalize="nfc"),
        metadata={"validation_nats": 1.5, "characters": 7, "corpus": "a \U0001f600"},
    )
    save_model(tmp_path / "one", made)
    assert same(load_model(tmp_path / "one"), made)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "vocabulary.json",
    ]
    card = (tmp_path / "one" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: charloom\n")
    assert "1.5000 nats and 2.1640 bits per char" in card


@pytest.mark.parametrize("binary", [False, True])
def test_a_byte_model_keeps_whether_it_is_binary(tmp_path, binary):
    """Catches a model of binary data that would generate U+FFFD, or a model of text that would generate any bytes."""
    shape = Architecture(
        cell="rnn", nonlinearity="tanh", layers=1, hidden=2, input="embedding", embedding=3, vocabulary_size=256
    )
    weights = {name: np.zeros(size, np.float32) for name, size in shape.shapes.items()}
    save_model(tmp_path / "one", ModelFolder(shape, Vocabulary("bytes", binary=binary), weights))
    assert load_model(tmp_path / "one").vocabulary.binary == binary


def test_what_resuming_needs_comes_back_in_its_shape(tmp_path):
    """Catches an optimizer's `step` in another shape: NumPy's ascontiguousarray makes a number an array of one."""
    arrays = {"steps": np.array(3), "step": np.array(2.0, np.float32), "m": np.arange(6.0).reshape(2, 3).T}
    save_model(tmp_path / "last", model(), ({"step": 3}, arrays))
    back = read_arrays(tmp_path / "last" / "resume.safetensors", 100)
    assert {name: (value.shape, value.dtype) for name, value in back.items()} == {
        name: (value.shape, value.dtype) for name, value in arrays.items()
    }
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    progress = read_json(tmp_path / "last" / "resume.json")
    assert (progress.pop("sha256").keys(), progress) == ({"resume.safetensors"}, {"step": 3})


@pytest.mark.parametrize(
    "metadata",
    [{"corpus": "caf\udce9.txt"}, {"characters": "x", "validation_nats": "y"}, {"prompt": 3}, {"prompt": "a\n```\nb"}],
)
def test_a_card_can_be_written_whatever_the_metadata_holds(tmp_path, metadata):
    """Catches a run that ends at its first checkpoint because of a name in Latin-1 or an edited config.json."""
    save_model(tmp_path / "one", model(metadata=metadata))
    assert load_model(tmp_path / "one").metadata == metadata


# Atomic replacement ---------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Imitates a kill: no code catches it, and nothing is cleaned up."""


def fail_at(patch, number, error):
    """Lets the n-th operation on the disk fail; returns the list of all operations."""
    touches = []

    def failing(name, original):
        def touch(*arguments, **options):
            touches.append(name)
            if len(touches) == number:
                raise error
            return original(*arguments, **options)

        return touch

    for owner, name in (
        (os, "fsync"),
        (Path, "rename"),
        (Path, "open"),
        (Path, "mkdir"),
        (Path, "replace"),
        (files.shutil, "rmtree"),
    ):
        patch.setattr(owner, name, failing(name, getattr(owner, name)))
    return touches


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Killed()], ids=["full", "killed"])
@pytest.mark.parametrize("before", [True, False], ids=["replaced", "first"])
def test_a_failure_at_any_moment_leaves_the_old_or_the_new_model_whole(tmp_path, error, before):
    """Catches a file written in place, an old folder removed before the new one exists, and a reader without `.old`."""
    old, new, later = model(seed=1), model(seed=2), model(seed=3)
    seen = set()
    for number in count(1):
        run = tmp_path / str(number)
        run.mkdir()
        if before:
            save_model(run / "best", old)
        with pytest.MonkeyPatch.context() as patch:
            touches = fail_at(patch, number, error)
            try:
                save_model(run / "best", new, ({"step": 1}, {"m": np.ones(3)}))
                failed = False
            except (OSError, Killed):
                failed = True
        if len(touches) < number:
            assert not failed
            break
        if not before and not (run / "best").exists():
            with pytest.raises(ModelError, match="does not exist"):
                load_model(run / "best")
        else:
            found = load_model(run / "best")
            seen.add("old" if same(found, old) else "new")
            assert same(found, old) or same(found, new)
            assert same(load_model(run), found), "the run's own path must lead to the same model"
        files.remove_leftovers(run)
        save_model(run / "best", later)
        assert same(load_model(run / "best"), later)
        assert [path.name for path in run.iterdir()] == ["best"], "leftovers"
    assert number > 12, "touches were not seen"
    assert seen == ({"old", "new"} if before else {"new"})


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    """Catches a `.new` folder that keeps the disk full."""
    save_model(tmp_path / "best", model())
    with pytest.MonkeyPatch.context() as patch:
        fail_at(patch, 5, OSError(28, "No space left on device"))
        with pytest.raises(OSError, match="No space"):
            save_model(tmp_path / "best", model(seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_every_byte_is_on_the_disk_before_the_old_folder_goes(tmp_path, monkeypatch):
    """Catches a rename that survives a power cut without its files: sync each file, the folder, then its parent."""
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("no /proc to see which file is synced")
    done = []
    sync, rename, rmtree = os.fsync, Path.rename, shutil.rmtree

    def plain(path):
        return re.sub("-[0-9a-f]{8}$", "", os.path.basename(path))

    monkeypatch.setattr(
        os, "fsync", lambda handle: (done.append(plain(os.readlink(f"/proc/self/fd/{handle}"))), sync(handle))
    )
    monkeypatch.setattr(Path, "rename", lambda self, to: (done.append(f"{plain(self)} > {to.name}"), rename(self, to)))
    monkeypatch.setattr(
        shutil, "rmtree", lambda path, **options: (done.append(f"rm {plain(path)}"), rmtree(path, **options))
    )
    run = tmp_path / "run"
    run.mkdir()
    save_model(run / "best", model())
    done.clear()
    save_model(run / "best", model())
    names = ["config.json", "vocabulary.json", "README.md", "model.safetensors"]
    assert done == [*names, "best.new", "best > best.old", "best.new > best", "run", "rm best.old"]


# Finding --------------------------------------------------------------------------------------------------------------


def test_a_run_folder_means_its_best_model_even_while_that_is_replaced(tmp_path):
    """Catches `last` taken for the best model: between two renames, `best` is only there as `best.old`."""
    save_model(tmp_path / "last", model(seed=1))
    assert find_model(tmp_path) == tmp_path / "last"
    save_model(tmp_path / "best", model(seed=2))
    assert find_model(tmp_path) == tmp_path / "best"
    (tmp_path / "best").rename(tmp_path / "best.old")
    assert find_model(tmp_path) == tmp_path / "best.old"
    assert find_model(tmp_path / "best") == tmp_path / "best.old"


def test_a_neighbour_called_old_is_not_the_model_asked_for(tmp_path):
    """Catches `mine.old`, a user's copy, that is used although the run `mine` is there."""
    (tmp_path / "mine").mkdir()
    save_model(tmp_path / "mine" / "best", model())
    save_model(tmp_path / "mine.old", model(seed=1))
    assert find_model(tmp_path / "mine") == tmp_path / "mine" / "best"
    (tmp_path / "empty").mkdir()
    save_model(tmp_path / "empty.old", model(seed=1))
    with pytest.raises(ModelError, match=r"with a config\.json"):
        find_model(tmp_path / "empty")


@pytest.mark.parametrize("kind", ["folder", "fifo", "device"])
def test_a_config_that_is_no_file_is_one_error_at_once(folder, kind):
    """Catches a FIFO that is waited for, and a device without an end."""
    path = folder / "config.json"
    path.unlink()
    {"folder": path.mkdir, "fifo": lambda: os.mkfifo(path), "device": lambda: path.symlink_to("/dev/zero")}[kind]()
    with pytest.raises(ModelError, match=r"a model must be a folder with a config\.json"):
        load_model(folder)


@pytest.mark.parametrize("path", [".", "/", "..", "", "no such", "x" * 5000, "nul\0byte", "file", "half"])
def test_what_is_no_model_is_one_clear_error(tmp_path, monkeypatch, path):
    """Catches another exception than ours for odd paths, files, other folders and incomplete model folders."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").write_text("{}")
    save_model(tmp_path / "here" / "half.new", model())
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ModelError, match=r"^a model must be a folder"):
        load_model(path)


# Damage ---------------------------------------------------------------------------------------------------------------


def edit(name, change):
    def damage(folder):
        data = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(change(data)), encoding="utf-8")

    return damage


def put(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def cut(name, size):
    return lambda folder: os.truncate(folder / name, size)


def device(name):
    return lambda folder: ((folder / name).unlink(), (folder / name).symlink_to("/dev/zero"))


def flip(name, place, value=0xFF):
    def damage(folder):
        data = bytearray((folder / name).read_bytes())
        data[place] ^= value
        (folder / name).write_bytes(data)

    return damage


def weights(change):
    def damage(folder):
        arrays = load_file(folder / "model.safetensors")
        save_file(change(arrays), folder / "model.safetensors")

    return damage


def spoil(value):
    def change(arrays):
        arrays["head.bias"][2] = value
        return arrays

    return weights(change)


def section(name, drop=None, **fields):
    def change(data):
        return data | {name: {key: value for key, value in (data[name] | fields).items() if key != drop}}

    return edit("config.json", change)


def typed(name, size):
    """Weights in a type of `size` bytes a number, which NumPy may not have."""

    def damage(folder):
        header, end = {}, 0
        for key, array in load_file(folder / "model.safetensors").items():
            begin, end = end, end + array.size * size
            header[key] = {"dtype": name, "shape": array.shape, "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))

    return damage


DAMAGE = {
    **{f"weights of {name}": (typed(name, size), "model.safetensors.* float32")
       for name, size in {"F8_E4M3": 1, "F8_E5M2": 1, "BF16": 2}.items()},
    **{f"{number} in metadata": (
        lambda folder, number=number: (folder / "config.json").write_text(
            (folder / "config.json").read_text().replace('"metadata": {', f'"metadata": {{"odd": {number}, ')),
        "config.json must be JSON; it is damaged: numbers must be finite") for number in ("NaN", "-Infinity", "1e400")},
    **{f"{name} missing": (lambda folder, name=name: (folder / name).unlink(), name)
       for name in ("vocabulary.json", "model.safetensors")},
    **{f"weights cut at {size}": (cut("model.safetensors", size), "model.safetensors must be a whole")
       for size in (0, 1, 7, 8, 40, 500, 1500)},
    "weights cut by a byte": (lambda folder: os.truncate(folder / "model.safetensors",
                              (folder / "model.safetensors").stat().st_size - 1), "model.safetensors must be a whole"),
    **{f"header flipped at {place}": (flip("model.safetensors", place), "model.safetensors")
       for place in (0, 3, 7, 8, 9, 20, 60)},
    "header says exabytes": (put("model.safetensors", b"\xff" * 8 + b"{}"), "model.safetensors must be a whole"),
    "weights a folder": (lambda folder: ((folder / "model.safetensors").unlink(),
                                         (folder / "model.safetensors").mkdir()), "model.safetensors must be"),
    **{f"{name} a device": (device(name), f"{name} must be readable; not a regular file")
       for name in ("vocabulary.json", "model.safetensors")},
    "vocabulary huge": (cut("vocabulary.json", LARGEST_TEXT + 1), "vocabulary.json must have at most"),
    "oversized weights": (lambda folder: os.truncate(folder / "model.safetensors", 5 << 20),
                          "model.safetensors must have at most .* bytes; it has 5242880"),
    "extra array": (weights(lambda a: a | {"odd": np.ones(2)}), "model.safetensors: odd is not expected"),
    "missing array": (weights(lambda a: {n: v for n, v in a.items() if n != "head.bias"}),
                      "model.safetensors: head.bias is missing"),
    "wrong shape": (weights(lambda a: a | {"head.bias": np.ones(7, np.float32)}),
                    r"model.safetensors: head.bias must be float32 \(6,\); found float32 \(7,\)"),
    "transposed": (weights(lambda a: a | {"head.weight": np.ascontiguousarray(a["rnn.weight_ih_l0"].T)}),
                   "model.safetensors: head.weight must be float32"),
    "half precision": (weights(lambda a: a | {"head.bias": a["head.bias"].astype(np.float16)}), "found float16"),
    "double precision": (weights(lambda a: a | {"head.bias": a["head.bias"].astype(np.float64)}), "found float64"),
    "NaN": (spoil(np.nan), "model.safetensors: head.bias must be finite"),
    "infinity": (spoil(-np.inf), "model.safetensors: head.bias must be finite"),
    "vocabulary of another model": (edit("vocabulary.json", lambda d: d | {"separator": False}),
                                    "vocabulary.json has 5 tokens, config.json says vocabulary_size 6"),
    "vocabulary not in order": (edit("vocabulary.json", lambda d: d | {"characters": d["characters"][::-1]}),
                                "vocabulary.json: characters must be in code point order"),
    "vocabulary of words": (edit("vocabulary.json", lambda d: d | {"characters": ["ab"]}), "vocabulary.json: char"),
    "vocabulary kind": (edit("vocabulary.json", lambda d: d | {"kind": "words"}), "vocabulary.json: kind"),
    "vocabulary a list": (edit("vocabulary.json", list), "vocabulary.json must hold an object; found list"),
    "keep_order": (edit("config.json", lambda d: d | {"keep_order": 1}), "config.json: keep_order must be true or"),
    "from the future": (edit("config.json", lambda d: d | {"format": FORMAT + 1}),
                        f"config.json: format must be at most {FORMAT}; found {FORMAT + 1}; update charloom"),
    **{f"format {value!r}": (edit("config.json", lambda d, v=value: d | {"format": v}), "config.json: format must be")
       for value in (0, -1, "1", 1.0, True, None)},
    "no format": (edit("config.json", lambda d: {n: v for n, v in d.items() if n != "format"}), "format .* found None"),
    "checksums a word": (edit("config.json", lambda d: d | {"sha256": "x"}), "config.json: sha256 must hold the check"),
    "no checksum of the weights": (section("sha256", drop="model.safetensors"),
                                   "config.json: sha256 must hold the checksum of model.safetensors"),
    "checksum a number": (section("sha256", **{"model.safetensors": 3}), "model.safetensors must have the SHA-256"),
    "config not JSON": (put("config.json", b"{"), "config.json must be JSON"),
    "config empty": (put("config.json", b""), "config.json must be JSON"),
    "config not UTF-8": (put("config.json", b'{"format": "\xff"}'), "config.json must be JSON"),
    "config a list": (put("config.json", b"[1]"), "config.json must hold an object; found list"),
    "config very deep": (put("config.json", b"[" * 200_000), "config.json must be JSON"),
    "config a huge number": (put("config.json", b'{"format": ' + b"9" * 10_000 + b"}"), "config.json must be JSON"),
    "config huge": (cut("config.json", LARGEST_TEXT + 1), "config.json must have at most"),
    **{f"no {name}": (edit("config.json", lambda d, n=name: d | {n: [1]}), f"config.json: {name} must be an object")
       for name in ("architecture", "cleaning", "metadata")},
    "unknown cell": (section("architecture", cell="transformer"), "config.json: cell must be .*got 'transformer'"),
    "negative hidden": (section("architecture", hidden=-1), "config.json: hidden must be at least 1; got -1"),
    "hidden beyond reason": (section("architecture", hidden=10**9), "config.json: hidden must be"),
    "other hidden": (section("architecture", hidden=7), "model.safetensors: .* must be float32"),
    "field from elsewhere": (section("architecture", heads=8), "config.json: heads is an unknown name"),
    "unknown cleaning": (section("cleaning", shout=True), "config.json: shout is an unknown name"),
    "cleaning of another type": (section("cleaning", allow=3), "config.json: allow must"),
    "unknown records": (edit("config.json", lambda d: d | {"records": "page"}), "config.json: records must"),
    "no records": (edit("config.json", lambda d: d | {"records": None}), "config.json: records must"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_one_error_that_names_the_file_and_the_field(folder, damage):
    change, message = DAMAGE[damage]
    change(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder)
    assert str(caught.value).startswith(f"{folder}: ")
    assert str(caught.value).count(str(folder)) == 1
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.json"])
def test_every_flipped_bit_is_seen(folder, name):
    """Catches weights that a damaged disk or memory changed: 149 of 150 flipped bits gave another model without an
    error.
    """
    whole = (folder / name).read_bytes()
    places = np.random.default_rng(4).integers(0, len(whole), 150)
    for number, place in enumerate(places):
        flip(name, place, 1 << number % 8)(folder)
        with pytest.raises(ModelError, match=name.replace(".", r"\.")) as caught:
            load_model(folder)
        assert len(str(caught.value).splitlines()) == 1
        (folder / name).write_bytes(whole)
    assert same(load_model(folder), model())


def test_another_word_for_word_valid_vocabulary_is_seen(folder):
    """Catches a changed character of the vocabulary: every prompt would be read as another text."""
    edit("vocabulary.json", lambda data: data | {"characters": ["\n", "b", "é", "\U0001f600"]})(folder)
    said = (
        r"vocabulary\.json must have the SHA-256 that config\.json gives; found another; .* remove sha256 from config"
    )
    with pytest.raises(ModelError, match=said):
        load_model(folder)
    edit("config.json", lambda data: {name: value for name, value in data.items() if name != "sha256"})(folder)
    assert load_model(folder).vocabulary.characters[1] == "b"


def test_a_folder_of_an_older_version_has_no_checksums(folder):
    """Catches models without checksums that are refused, and model cards that users may not edit."""
    edit("config.json", lambda data: {name: value for name, value in data.items() if name != "sha256"})(folder)
    (folder / "README.md").write_text("mine")
    assert same(load_model(folder), model())


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged") / "best"
    save_model(folder, model(metadata={"validation_nats": 1.5, "characters": 7}))
    return folder, {path.name: path.read_bytes() for path in folder.iterdir()}


EDITS = st.one_of(
    st.tuples(st.just("flip"), st.integers(0), st.integers(1, 255)),
    st.tuples(st.just("set"), st.integers(0), st.sampled_from(b'0123456789-.eE"[]{},:ntf \x00\xff')),
    st.tuples(st.just("cut"), st.integers(0), st.just(0)),
    st.tuples(st.just("insert"), st.integers(0), st.integers(0, 255)),
    st.tuples(st.just("drop"), st.integers(0), st.integers(1, 40)),
)


def damaged(data, edits):
    data = bytearray(data)
    for kind, where, value in edits:
        place = where % max(1, min(len(data), 700))  # the structure; the rest of a weights file is numbers
        if kind == "cut":
            del data[place:]
        elif kind == "insert":
            data.insert(place, value)
        elif kind == "drop":
            del data[place : place + value]
        elif data:
            data[place] = value if kind == "set" else data[place] ^ value
    return bytes(data)


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["config.json", "vocabulary.json", "model.safetensors"]),
    edits=st.lists(EDITS, min_size=1, max_size=3),
)
def test_damage_anywhere_gives_a_valid_model_or_our_error(originals, name, edits):
    """Catches a panic of the safetensors library, a recursion, and types that the checks do not expect."""
    folder, files = originals
    (folder / name).write_bytes(damaged(files[name], edits))
    try:
        found = load_model(folder)
    except CharloomError:
        pass
    else:
        assert found.vocabulary.size == found.architecture.vocabulary_size
        assert {n: value.shape for n, value in found.parameters.items()} == found.architecture.shapes
        assert all(np.isfinite(value).all() for value in found.parameters.values())
        InferenceNetwork(InferenceWeights(found.architecture, found.parameters))
    finally:
        (folder / name).write_bytes(files[name])


# The judge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "layers"), [*product(CELLS, [1, 2])])
def test_stock_pytorch_loads_the_file_by_name_and_gives_the_same_logits(tmp_path, cell, layers):
    """Catches gates in another order, a merged GRU bias, a transposed matrix, and a name that PyTorch does not know."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as load_tensors

    save_model(tmp_path / "best", model(0, *cell, layers))
    found = load_model(tmp_path / "best")
    shape = found.architecture
    kind = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[shape.cell]
    options = {"nonlinearity": shape.nonlinearity} if shape.cell == "rnn" else {}
    stock = torch.nn.Module()
    stock.embedding = torch.nn.Embedding(shape.vocabulary_size, shape.embedding)
    stock.rnn = kind(shape.embedding, shape.hidden, shape.layers, batch_first=True, **options)
    stock.head = torch.nn.Linear(shape.hidden, shape.vocabulary_size)
    stock.load_state_dict(load_tensors(tmp_path / "best" / "model.safetensors"), strict=True)
    ids_BT = np.random.default_rng(1).integers(0, shape.vocabulary_size, (2, 9))
    with torch.no_grad():
        expected = stock.head(stock.rnn(stock.embedding(torch.tensor(ids_BT)))[0]).numpy()
    network = InferenceNetwork(InferenceWeights(shape, found.parameters))
    logits_BTV, _ = network.sequence(ids_BT, network.initial_state(2))
    scale = max(1.0, np.abs(expected).max())  # a relu network's logits grow far beyond 1
    np.testing.assert_allclose(logits_BTV, expected, rtol=0, atol=1e-5 * scale)


def test_formats_1_and_2_are_read_by_their_own_names(tmp_path):
    """Catches a folder of an earlier version that no longer loads, or that loses its order of records."""
    save_model(tmp_path / "model", model(keep_order=False))
    now = load_model(tmp_path / "model")

    def earlier(config):
        del config["architecture"]["input_gate"]
        made = {("symbols" if name == "vocabulary_size" else name): x for name, x in config.pop("architecture").items()}
        del config["sha256"]
        return config | {"format": 2, "architecture": made, "provenance": config.pop("metadata")}

    edit("config.json", earlier)(tmp_path / "model")
    edit("vocabulary.json", lambda d: d | {"boundary": d.pop("separator")})(tmp_path / "model")
    then = load_model(tmp_path / "model")
    assert (then.architecture, then.vocabulary, then.metadata) == (now.architecture, now.vocabulary, now.metadata)
    assert not then.keep_order
    edit("config.json", lambda d: {name: x for name, x in d.items() if name != "keep_order"})(tmp_path / "model")
    assert load_model(tmp_path / "model").keep_order  # format 1 has no such field: records were read in their order


def test_a_path_that_is_no_model(tmp_path):
    """Catches an error for an empty path that names `.`, and one for a folder of runs that names none of them."""
    with pytest.raises(ModelError, match="the path is empty"):
        load_model("")
    with pytest.raises(ModelError, match=f"{tmp_path} is neither$"):
        load_model(tmp_path)
    (tmp_path / "my-1").mkdir()
    save_model(tmp_path / "my-1" / "best", model())
    with pytest.raises(ModelError, match=f"{tmp_path} is neither; did you mean {tmp_path}/my-1"):
        load_model(tmp_path)
