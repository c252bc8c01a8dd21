"""The choice of an engine, and the settings that each engine refuses."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.engines import engine, native
from charloom.engines.cpu import CpuEngine
from charloom.engines.engine import EngineChoice, choose_engine, chosen_engine, open_engine, slower_than_asked
from charloom.errors import DeviceError
from charloom.kernels import KernelChoice

pytestmark = pytest.mark.processor

SHAPE = Architecture(
    cell="lstm", nonlinearity="tanh", layers=1, hidden=3, input="onehot", embedding=2, vocabulary_size=5
)
INSTALL = "PyTorch, which is not installed; run: pip install torch"


def settings(**values):
    return TrainingSettings(steps=1, **values)


@pytest.fixture(autouse=True)
def bf16_where_the_hardware_has_it(monkeypatch):
    """An older processor is imitated only for oneDNN, which then lacks bf16 and reports this."""
    monkeypatch.setattr(engine, "_without_bf16", lambda engine, settings, cell: None)


@pytest.fixture
def without_torch(monkeypatch):
    """An installation without PyTorch."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))


@pytest.fixture
def without_kernels(monkeypatch):
    """An installation without a C++ compiler."""
    monkeypatch.setattr(engine, "chosen", lambda: KernelChoice("none", None, "not built", "NumPy computes (not built)"))
    monkeypatch.setattr(native, "chosen", engine.chosen)


@pytest.fixture
def with_kernels(monkeypatch):
    monkeypatch.setattr(engine, "chosen", lambda: KernelChoice("avx2", object(), "the fastest"))


@pytest.fixture
def with_a_gpu(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(engine, "_torch_is_here", lambda: True)


def test_auto_is_the_kernels(with_kernels):
    """Catches a default that is slower than the kernels, and another engine than the given one."""
    assert chosen_engine(settings()) == chosen_engine(settings(device="cpu")) == "native"
    assert slower_than_asked(settings(), "lstm") is None
    for asked in ("numpy", "torch", "native"):
        assert chosen_engine(settings(engine=asked)) == asked


def test_auto_is_torch_where_a_gpu_is(with_kernels, with_a_gpu):
    """Catches a GPU that is not used, and a GPU that is used although the device is `cpu`."""
    assert chosen_engine(settings()) == chosen_engine(settings(device="cuda")) == "torch"
    assert slower_than_asked(settings(), "lstm") is None
    assert chosen_engine(settings(device="cpu")) == "native"


def test_auto_without_kernels_is_torch_and_says_so(without_kernels):
    """Catches a slower engine without a notice."""
    pytest.importorskip("torch")
    assert chosen_engine(settings(device="cpu")) == "torch"
    assert "not built" in slower_than_asked(settings(device="cpu"), "lstm")
    assert slower_than_asked(settings(device="cpu", engine="torch"), "lstm") is None


def test_auto_without_kernels_and_torch_is_numpy_and_says_so(without_kernels, without_torch):
    """Catches an error although NumPy can train, only slower."""
    assert chosen_engine(settings()) == "numpy"
    for asked in (settings(), settings(device="cpu", precision="fp32")):
        choice = choose_engine(asked, "lstm")
        assert choice == EngineChoice("numpy", "cpu", "fp32")
        assert isinstance(open_engine(choice, SHAPE, asked), CpuEngine)
    said = slower_than_asked(settings(), "lstm")
    assert "not built" in said
    assert "pip install torch" in said


def test_kernels_that_are_not_there_are_refused_by_name(without_kernels):
    """Catches a setting that is accepted but has no effect."""
    with pytest.raises(
        DeviceError, match="`engine='native'` needs charloom's kernels, which are not used here: not built"
    ):
        choose_engine(settings(engine="native"), "lstm")


def test_the_kernels_refuse_a_precision_that_they_lack(monkeypatch):
    """Catches fp32 without a notice if the precision is `bf16`."""
    kernels = KernelChoice("avx2", SimpleNamespace(precisions=lambda: ["fp32"]), "the fastest")
    monkeypatch.setattr(engine, "chosen", lambda: kernels)
    monkeypatch.setattr(native, "chosen", lambda: kernels)
    with pytest.raises(
        DeviceError, match=r"`precision='bf16'` on a CPU needs AVX512-BF16 or AMX; .* use `precision='fp32'`"
    ):
        choose_engine(settings(precision="bf16", device="cpu"), "lstm")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"engine": "torch"}, f"`engine='torch'` needs {INSTALL}"),
        ({"device": "cuda"}, f"`device='cuda'` needs {INSTALL}"),
        ({"device": "mps"}, f"`device='mps'` needs {INSTALL}"),
        ({"precision": "bf16"}, f"`precision='bf16'` needs {INSTALL}"),
    ],
)
def test_what_needs_torch_says_what_to_install(without_torch, without_kernels, asked, message):
    """Catches a CPU that is used although the device is a GPU, and a traceback."""
    with pytest.raises(DeviceError) as error:
        choose_engine(settings(**asked), "lstm")
    assert str(error.value) == message


def test_kernels_arithmetic_on_the_cpu():
    """Catches a CPU that is used although the device is a GPU."""
    with pytest.raises(DeviceError) as error:
        choose_engine(settings(engine="native", device="cuda"), "lstm")
    assert str(error.value) == "`device='cuda'` needs `engine='torch'`; `engine='native'` computes on the CPU"


@pytest.mark.parametrize(("name", "value"), [("device", "cuda"), ("device", "mps"), ("precision", "bf16")])
def test_numpy_refuses_what_it_cannot_do(name, value):
    """Catches a setting that is accepted but has no effect."""
    with pytest.raises(DeviceError) as error:
        choose_engine(settings(engine="numpy", **{name: value}), "lstm")
    assert (
        str(error.value) == f"`{name}={value!r}` needs `engine='torch'`; `engine='numpy'` computes on the CPU in fp32"
    )


def run(program, *arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=cwd, env=os.environ, capture_output=True, text=True, timeout=60
    )


TRAIN = "from charloom.cli.main import main; main()"


def test_numpy_trains_without_loading_torch(tmp_path, corpus_file):
    """Catches an import of torch, which takes seconds and half a gigabyte."""
    program = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); {TRAIN}"
    command = ["train", str(corpus_file), "--engine", "numpy", "--steps", "2", "--hidden", "8", "--out", "run"]
    done = run(program, *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"
    assert (tmp_path / "run" / "best" / "model.safetensors").exists()


def test_without_torch_the_command_line_trains_with_numpy(tmp_path, corpus_file):
    """Catches an error, or a traceback, although `auto` can choose NumPy."""
    program = f"import sys; sys.modules['torch'] = None; {TRAIN}"
    command = ["train", str(corpus_file), "--steps", "2", "--hidden", "8", "--out", "run"]
    done = run(program, *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "best" / "model.safetensors").exists()


def test_without_torch_asking_for_it_is_one_line_and_leaves_nothing(tmp_path, corpus_file):
    """Catches a traceback, or a run folder that stays, if torch is not installed."""
    program = f"import sys; sys.modules['torch'] = None; {TRAIN}"
    done = run(program, "train", str(corpus_file), "--engine", "torch", "--steps", "1", "--out", "run", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"charloom: --engine torch needs {INSTALL}\n")
    assert not (tmp_path / "run").exists()
