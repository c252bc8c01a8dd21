"""Fixtures for the tests of the kernels: the place of the modules, and the variants to test."""

from __future__ import annotations

import os
import platform
from types import ModuleType

import pytest

from charloom import kernels

# `make check-kernels` runs the same tests on modules with sanitizers.
if folder := os.environ.get("KERNELS_FOLDER"):
    kernels.__path__.insert(0, folder)

ARM = platform.machine() in ("aarch64", "arm64")
VARIANTS = [name for name in kernels.VARIANTS if name == "portable" or (name == "neon") == ARM]
"""The variants for the family of this processor."""


@pytest.fixture(params=[name for name in VARIANTS if name != "amx"])
def variant(request: pytest.FixtureRequest) -> ModuleType:
    """Each module that this machine can run."""
    return _opened(request.param)


@pytest.fixture(params=[name for name in VARIANTS if name != "avxvnni"])
def choice(request: pytest.FixtureRequest) -> kernels.KernelChoice:
    """Each choice for training on this machine: a module, with tiles or without. `avxvnni` trains as `avx2` does."""
    return kernels.KernelChoice(request.param, _opened(request.param), "a test")


@pytest.fixture
def tiled() -> ModuleType:
    """The module with tiles, if this machine has them."""
    return _opened("amx")


def _opened(name: str) -> ModuleType:
    if why := kernels.obstacle(name):
        pytest.skip(f"{name}: {why}")
    return kernels.open_variant(name)
