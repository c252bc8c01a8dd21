"""The choice of kernels: the fastest that runs here, the one in the variable, or none."""

from __future__ import annotations

import importlib.util
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from charloom import kernels
from charloom.errors import DeviceError, SettingsError
from charloom.kernels import cores, thread_count

BUILT = importlib.util.find_spec("charloom.kernels._portable") is not None
needs_kernels = pytest.mark.skipif(not BUILT, reason="no kernels are built here")
# The CPUID features of some processors, by their names in /proc/cpuinfo.
HASWELL = {"avx2", "fma", "f16c"}
ALDER_LAKE = {*HASWELL, "avx_vnni"}
SKYLAKE_X = {*HASWELL, "avx512f", "avx512bw", "avx512vl", "avx512dq"}
ZEN_4 = {*SKYLAKE_X, "avx512_vnni", "avx512_bf16"}
SAPPHIRE_RAPIDS = {*ZEN_4, "avx_vnni", "amx_tile", "amx_bf16", "amx_int8"}
ARM = {"asimd"}


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test makes the choice again, without other variables, and removes it afterwards."""
    monkeypatch.delenv(kernels.FORCE, raising=False)
    kernels.chosen.cache_clear()
    yield
    kernels.chosen.cache_clear()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Imitates another machine: the features of its processor, and the variants that are built."""

    def pretend(features: set[str], built: tuple[str, ...] = tuple(kernels.VARIANTS)) -> None:
        monkeypatch.setattr(kernels, "cpu_features", lambda: frozenset(features))
        specs = {f"charloom.kernels._{name}" for name in built}
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in specs else None)
        monkeypatch.setattr(importlib, "import_module", ModuleType)

    return pretend


@pytest.mark.parametrize(
    ("features", "name"),
    [
        (SAPPHIRE_RAPIDS, "amx"),
        (SAPPHIRE_RAPIDS - {"avx512f"}, "avxvnni"),  # as a virtual machine may mask it
        (ZEN_4, "avx512"),
        (SKYLAKE_X, "avx2"),
        (ALDER_LAKE, "avxvnni"),
        (HASWELL, "avx2"),
        (HASWELL - {"fma"}, "portable"),
        (ARM, "neon"),
        (set(), "portable"),
    ],
)
def test_the_fastest_that_the_processor_runs(machine, features, name):
    """Catches a variant that ends in an illegal instruction, and one that is slower than necessary."""
    machine(features)
    choice = kernels.chosen()
    assert choice.name == name
    assert choice.module.__name__ == f"charloom.kernels._{'avx512' if name == 'amx' else name}"
    assert choice.tiles == (name == "amx")
    assert choice.notice is None
    assert kernels.runnable()[0] == name


def test_it_says_which_faster_one_is_not_built(machine):
    """Catches a processor at half of its speed without a notice."""
    machine(SAPPHIRE_RAPIDS, built=("portable", "avx2"))
    assert (
        kernels.chosen().reason
        == "the fastest kernels for this processor that are built; not built: amx, avx512, avxvnni"
    )
    kernels.chosen.cache_clear()
    machine(SKYLAKE_X, built=("portable", "avx2"))
    assert kernels.chosen().reason == "the fastest kernels for this processor"


def test_forced_by_name(machine, monkeypatch):
    """Catches a variable that has no effect, and a reason that does not name it."""
    machine(SAPPHIRE_RAPIDS)
    monkeypatch.setenv("CHARLOOM_KERNELS", "avx2")
    assert kernels.chosen() == kernels.KernelChoice("avx2", kernels.chosen().module, "CHARLOOM_KERNELS=avx2")
    assert kernels.chosen().module.__name__ == "charloom.kernels._avx2"


def test_off(machine, monkeypatch):
    """Catches a notice that NumPy is slower, although the user chose it."""
    machine(SAPPHIRE_RAPIDS)
    monkeypatch.setenv("CHARLOOM_KERNELS", "off")
    assert kernels.chosen() == kernels.KernelChoice("none", None, "CHARLOOM_KERNELS=off", notice=None)


@pytest.mark.parametrize(
    ("forced", "error", "message"),
    [
        (
            "axv2",
            SettingsError,
            "CHARLOOM_KERNELS must be one of amx, avx512, avxvnni, avx2, neon, portable, off; got 'axv2'",
        ),
        ("avx512", DeviceError, "this processor lacks avx512_bf16, avx512_vnni; this machine runs: avx2, portable"),
    ],
)
def test_forced_in_vain(machine, monkeypatch, forced, error, message):
    """Catches a forced variant that is replaced without a notice, or loaded although it cannot run."""
    machine(SKYLAKE_X)
    monkeypatch.setenv("CHARLOOM_KERNELS", forced)
    with pytest.raises(error, match=re.escape(message)) as raised:
        kernels.chosen()
    assert "\n" not in str(raised.value)


def test_forced_and_not_built(machine, monkeypatch):
    machine(SKYLAKE_X, built=("portable",))
    monkeypatch.setenv("CHARLOOM_KERNELS", "avx2")
    with pytest.raises(DeviceError, match="'avx2' cannot be used: not built; this machine runs: portable"):
        kernels.chosen()


def test_nothing_built(machine):
    """Catches an installation without a compiler that does not use NumPy with one notice."""
    machine(set(), built=())
    choice = kernels.chosen()
    assert (choice.name, choice.module) == ("none", None)
    assert choice.notice.startswith("charloom's kernels are not used, so NumPy computes, which is slower")
    assert "C++ compiler" in choice.notice
    assert kernels.runnable() == []


def test_a_module_that_does_not_load(machine, monkeypatch):
    """Catches a libstdc++ that is too old and makes charloom fail: NumPy must still work."""
    machine(set(), built=("portable",))

    def fail(name: str) -> ModuleType:
        raise ImportError("GLIBCXX_3.4.30 not found")

    monkeypatch.setattr(importlib, "import_module", fail)
    choice = kernels.chosen()
    assert choice.module is None
    assert "GLIBCXX_3.4.30" in choice.notice
    with pytest.raises(DeviceError, match=r"'portable' do not load: GLIBCXX.*CHARLOOM_KERNELS=off"):
        kernels.open_variant("portable")


@needs_kernels
def test_the_processor_is_read_as_the_kernel_reads_it():
    """Catches a wrong bit of CPUID: Linux shows the same features in /proc/cpuinfo."""
    cpuinfo = Path("/proc/cpuinfo")
    line = "Features" if platform.machine() == "aarch64" else "flags"  # under emulation, the file of the host is read
    found = cpuinfo.exists() and re.search(rf"^{line}\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    if not found:
        pytest.skip("no features in /proc/cpuinfo")
    flags = set(found[1].split())
    assert kernels.cpu_features() == flags & (SAPPHIRE_RAPIDS | ARM)


def test_each_variant_has_the_lanes_it_was_built_for(variant):
    """Catches a module that was built with the flags of another."""
    name = variant.__name__.rpartition("_")[2]
    assert {"avx512": 16, "avxvnni": 8, "avx2": 8, "neon": 4, "portable": 4}[name] == variant.LANES


@needs_kernels
def test_nothing_is_loaded_before_it_is_needed():
    """Catches a package import that loads a module or reads CPUID; the choice loads two modules."""
    program = (
        f"import sys, charloom.kernels as k\nk.__path__ = {list(kernels.__path__)}\n"
        "loaded = lambda: sorted(name for name in sys.modules if name.startswith('charloom.kernels._'))\n"
        "print(loaded()); choice = k.chosen(); print(choice.name, len(loaded()))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[0] == "[]"
    name, loaded = out.splitlines()[1].split()
    assert int(loaded) == len({"portable", "avx512" if name == "amx" else name})


def test_threads_are_as_many_as_asked_for_within_reason():
    """Catches 2000 threads on two cores, where a step took seconds, and 2**31 of them, which do not fit a C int."""
    assert [thread_count(asked) for asked in (None, 1, 3, 64)] == [cores(), 1, 3, 64]
    assert thread_count(2000) == thread_count(2**31) == max(64, cores())
