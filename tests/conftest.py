"""Fixtures for all tests: an empty home, small fixed texts, one thread."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Before NumPy or torch is loaded, and inherited by the commands that tests start: the models here are so small that
# threads only wait for each other. A test about threads sets its own number.
os.environ["OMP_NUM_THREADS"] = "1"

# With CHARLOOM_KERNELS a lesser processor is imitated: oneDNN and PyTorch too then use no newer instructions than the
# kernels of that name. `off` is this processor itself, with nothing but NumPy and PyTorch.
KERNELS = os.environ.get("CHARLOOM_KERNELS", "")
INSTRUCTIONS = {
    "avx512": ("AVX512_CORE_BF16", "avx512"),
    "avxvnni": ("AVX2_VNNI", "avx2"),
    "avx2": ("AVX2", "avx2"),
    "portable": ("SSE41", "default"),
}
if KERNELS in INSTRUCTIONS:
    os.environ["ONEDNN_MAX_CPU_ISA"], os.environ["ATEN_CPU_CAPABILITY"] = INSTRUCTIONS[KERNELS]
elif KERNELS == "off":
    for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        os.environ.pop(name, None)

# No deadline, because machines are shared; and the same examples in each run of CI.
hypothesis.settings.register_profile("charloom", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("charloom")


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty home, so that no test reads or changes the user's own."""
    place = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(place))
        for name in [name for name in os.environ if name.startswith(("CHARLOOM_", "XDG_", "PYTHONUNBUFFERED"))]:
            if name != "CHARLOOM_KERNELS":
                patch.delenv(name)
        yield place


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test, without corpora of the last one."""
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CHARLOOM_CACHE", str(place))
    return place


@pytest.fixture(scope="session")
def zen() -> str:
    """The Zen of Python: 856 characters of English in every Python installation."""
    with contextlib.redirect_stdout(io.StringIO()):
        import this
    return codecs.decode(this.s, "rot13")


@pytest.fixture(scope="session")
def corpus(zen: str) -> str:
    """20 copies of the Zen, in lines and paragraphs: enough for batches, and memorised in seconds."""
    return f"{zen}\n\n" * 20


@pytest.fixture
def corpus_file(tmp_path: Path, corpus: str) -> Path:
    """The corpus as a UTF-8 file."""
    path = tmp_path / "corpus.txt"
    path.write_text(corpus, encoding="utf-8")
    return path
