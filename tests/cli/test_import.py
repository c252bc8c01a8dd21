"""`charloom import`: from an old checkpoint to a model that generates text, through the real command line."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
VOCABULARY = " Tabdefghiklmnoprstuy.,\n'!-"[::-1]


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of the Anna Karenina lesson."""
    lstm, fc = torch.nn.LSTM(len(VOCABULARY), 12, 2, batch_first=True), torch.nn.Linear(12, len(VOCABULARY))
    state = {f"lstm.{name}": value for name, value in lstm.state_dict().items()}
    state |= {f"fc.{name}": value for name, value in fc.state_dict().items()}
    path = tmp_path / "rnn_20_epoch.net"
    torch.save({"n_hidden": 12, "n_layers": 2, "state_dict": state, "tokens": tuple(VOCABULARY)}, path)
    return path


@pytest.fixture
def keras_file(tmp_path):
    """Weights in the layout of Keras 3."""
    h5py = pytest.importorskip("h5py")
    random = np.random.default_rng(0)
    path = tmp_path / "epoch.07.weights.h5"
    with h5py.File(path, "w") as root:
        for number, shape in enumerate([(len(VOCABULARY), 20), (5, 20), (20,)]):
            root[f"layers/lstm/cell/vars/{number}"] = random.normal(size=shape).astype("float32")
        for number, shape in enumerate([(5, len(VOCABULARY)), (len(VOCABULARY),)]):
            root[f"layers/dense/vars/{number}"] = random.normal(size=shape).astype("float32")
    return path


@pytest.fixture
def characters(tmp_path):
    path = tmp_path / "characters.json"
    path.write_text(json.dumps(dict(enumerate(VOCABULARY))))
    return path


def test_an_imported_model_is_a_model(charloom, tmp_path, checkpoint):
    """Catches a folder that another command cannot use."""
    made = charloom("import", "rnn_20_epoch.net")
    assert (made.status, made.out, made.err) == (0, "rnn_20_epoch\n", "")
    facts = json.loads(charloom("info", "rnn_20_epoch", "--json").out)
    assert facts["network"] == "lstm, 2 x 12, onehot input"
    assert facts["vocabulary"] == f"{len(VOCABULARY)} characters"
    assert facts["metadata"]["imported_from"] == "rnn_20_epoch.net"
    assert len(facts["metadata"]["file_sha256"]) == 64
    assert "Imported from `rnn_20_epoch.net` (PyTorch" in (tmp_path / "rnn_20_epoch" / "README.md").read_text()
    generated = charloom("generate", "rnn_20_epoch", "--prompt", "Th", "--length", "40", "--seed", "1")
    assert generated.status == 0
    assert set(generated.out) <= set(VOCABULARY)
    (tmp_path / "text.txt").write_text("Things end. Things begin, then end!\n" * 20)
    assert json.loads(charloom("eval", "rnn_20_epoch", "text.txt", "--json").out)["characters"] == 719
    trained = charloom(
        "train",
        "text.txt",
        "--from",
        "rnn_20_epoch",
        "--steps",
        "2",
        "--out",
        "tuned",
        "--batch-size",
        "4",
        "--seq-length",
        "16",
    )
    assert (trained.status, trained.out) == (0, "tuned/best\n"), trained.err


def test_keras_weights_need_characters(charloom, tmp_path, keras_file, characters):
    """Catches notices that are missing or on stdout, and a folder name with a part of the suffix."""
    ended = charloom("import", keras_file)
    assert ended.status == 2
    assert ended.complaint.startswith(
        "--characters must be given for epoch.07.weights.h5: a file with the network's 27 characters"
    )
    made = charloom("import", keras_file, "--characters", characters)
    assert (made.status, made.out) == (0, "epoch.07\n"), made.err
    assert "assumed: Keras's defaults" in made.err
    assert len(made.err.splitlines()) == 1
    assert charloom("generate", "epoch.07", "--length", "20").status == 0
    made = charloom("import", keras_file, "--characters", characters, "--out", "models/anna")
    assert (made.status, made.out) == (0, "models/anna\n")


def test_nothing_is_overwritten(charloom, tmp_path, checkpoint):
    """Catches a user's folder that is overwritten: NAME, or NAME.new and NAME.old beside it."""
    for name in ("anna.new", "anna.old", "full"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    ended = charloom("import", checkpoint, "--out", "full")
    assert ended.status == 2
    assert "must go to a new or empty folder; full exists" in ended.complaint
    (tmp_path / "anna").mkdir()
    assert charloom("import", checkpoint, "--out", "anna").status == 0
    for name in ("anna.new", "anna.old", "full"):
        assert (tmp_path / name / "mine").read_text() == "mine"
    before = sorted(path.name for path in tmp_path.iterdir())
    assert charloom("import", checkpoint, "--out", "anna").status == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_file_in_the_folders_place(charloom, tmp_path, checkpoint):
    """Catches a checkpoint without a suffix that is replaced by the folder."""
    checkpoint.rename(tmp_path / "model")
    ended = charloom("import", "model")
    assert ended.status == 2
    assert "model exists; choose another name" in ended.complaint
    ended = charloom("import", "model", "--out", "model/inside")
    assert ended.status == 2
    assert "must go to a folder that can be written" in ended.complaint


def test_a_full_disk_leaves_nothing(charloom, tmp_path, checkpoint):
    """Catches a part of a model that stays."""
    ended = charloom("import", checkpoint, "--out", "anna", largest_file=2000)
    assert ended.status == 2
    assert "must go to a folder that can be written" in ended.complaint
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]


@pytest.mark.parametrize("name", ["nowhere.net", ".", "bad\nname"])
def test_files_that_are_not_there(charloom, name):
    """Catches a traceback, and an error of two lines."""
    ended = charloom("import", name)
    assert ended.status == 1
    assert "a checkpoint must be a file that can be read" in ended.complaint


def test_a_trap(charloom, tmp_path):
    """Catches an untrusted checkpoint that runs a command when it is unpickled."""
    made = tmp_path / "made"

    class Trap:
        def __reduce__(self):
            import os

            return os.system, (f"touch {made}",)

    torch.save({"state_dict": Trap(), "tokens": "ab"}, tmp_path / "trap.net")
    ended = charloom("import", "trap.net")
    assert ended.status == 1
    assert "and no code is run from a file" in ended.complaint
    assert not made.exists()
    assert not (tmp_path / "trap").exists()


def test_an_odd_name(charloom, tmp_path, checkpoint):
    """Catches an error for bytes that are not UTF-8 in the file name, which goes into the model card."""
    odd = tmp_path / "anna\udcff.net"
    checkpoint.rename(odd)
    assert charloom("import", odd, "--out", "anna").status == 0
    assert charloom("info", "anna").status == 0


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_only_a_regular_file_is_imported(charloom, tmp_path, keras_file, kind):
    """Catches a FIFO that is waited for and a device without end, as the checkpoint and as its characters."""
    odd = tmp_path / "odd"
    os.mkfifo(odd) if kind == "fifo" else odd.symlink_to("/dev/zero")
    assert (
        charloom("import", "odd", "--out", "new").complaint
        == "a checkpoint must be a file that can be read; odd: not a regular file"
    )
    made = charloom("import", keras_file.name, "--characters", "odd")
    assert made.complaint == "--characters must be a file that can be read; odd: not a regular file"
