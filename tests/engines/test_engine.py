"""The choice of an engine, and what each refuses."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.engines.bptt.engine import NumpyEngine
from charloom.engines.engine import check_engine, chosen_engine, open_engine
from charloom.errors import DeviceError

SHAPE = Architecture(cell="lstm", nonlinearity="tanh", layers=1, hidden=3, input="onehot", embedding=2, symbols=5)
INSTALL = "PyTorch, which is not installed; run: pip install 'charloom[torch]'"


def settings(**values):
    return TrainingSettings(steps=1, **values)


@pytest.fixture
def without_torch(monkeypatch):
    """An installation without PyTorch."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))


def test_auto_is_torch_where_it_is_installed(monkeypatch):
    """The slower engine for everyone, or the other one than the one asked for."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert chosen_engine(settings()) == chosen_engine(settings(engine="torch")) == "torch"
    assert chosen_engine(settings(engine="numpy")) == "numpy"


def test_auto_is_numpy_where_torch_is_not(without_torch):
    """Training that ends where it could go on, only slower."""
    assert chosen_engine(settings()) == "numpy"
    check_engine(settings())
    assert isinstance(open_engine(SHAPE, settings(), 0.0), NumpyEngine)
    assert isinstance(open_engine(SHAPE, settings(device="cpu", precision="fp32"), 0.0), NumpyEngine)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"engine": "torch"}, f"--engine torch needs {INSTALL}"),
        ({"device": "cuda"}, f"--device cuda needs {INSTALL}"),
        ({"device": "mps"}, f"--device mps needs {INSTALL}"),
        ({"precision": "bf16"}, f"--precision bf16 needs {INSTALL}"),
    ],
)
def test_what_needs_torch_says_what_to_install(without_torch, asked, message):
    """A GPU that was asked for and a CPU that is used in silence; a traceback."""
    for refused in (check_engine, lambda asked: open_engine(SHAPE, asked, 0.0)):
        with pytest.raises(DeviceError) as error:
            refused(settings(**asked))
        assert str(error.value) == message


@pytest.mark.parametrize(("name", "value"), [("device", "cuda"), ("device", "mps"), ("precision", "bf16")])
def test_numpy_refuses_what_it_cannot_do(name, value):
    """A flag that is taken and does nothing."""
    with pytest.raises(DeviceError) as error:
        check_engine(settings(engine="numpy", **{name: value}))
    assert str(error.value) == f"--{name} {value} needs --engine torch; --engine numpy computes on the CPU in fp32"


def run(program, *arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=cwd, env=os.environ, capture_output=True, text=True, timeout=60
    )


TRAIN = "from charloom.cli.main import main; main()"


def test_numpy_trains_without_loading_torch(tmp_path, corpus_file):
    """An import of torch on the way: seconds and half a gigabyte that nobody asked for."""
    program = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); {TRAIN}"
    command = ["train", str(corpus_file), "--engine", "numpy", "--steps", "2", "--hidden", "8", "--out", "run"]
    done = run(program, *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"
    assert (tmp_path / "run" / "best" / "model.safetensors").exists()


def test_without_torch_the_command_line_trains_with_numpy(tmp_path, corpus_file):
    """An error, or a traceback, where `auto` has something to take."""
    program = f"import sys; sys.modules['torch'] = None; {TRAIN}"
    command = ["train", str(corpus_file), "--steps", "2", "--hidden", "8", "--out", "run"]
    done = run(program, *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "best" / "model.safetensors").exists()


def test_without_torch_asking_for_it_is_one_line_and_leaves_nothing(tmp_path, corpus_file):
    """A traceback, or a run folder left behind, where torch is not installed."""
    program = f"import sys; sys.modules['torch'] = None; {TRAIN}"
    done = run(program, "train", str(corpus_file), "--engine", "torch", "--steps", "1", "--out", "run", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"charloom: --engine torch needs {INSTALL}\n")
    assert not (tmp_path / "run").exists()
