"""Fixtures of the server's and the page's tests: small models, and one server that most tests of a process share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Served, running, save_folders, slow_down, sources

from charloom.model import Model


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of the models. Tests only read them."""
    return save_folders(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def models(folders: dict[str, Path]) -> dict[str, Model]:
    """The same models, alone: what they generate is what the server must send."""
    return {name: Model.load(folder) for name, folder in folders.items()}


@pytest.fixture(scope="session")
def served(folders: dict[str, Path]) -> Iterator[Served]:
    """The server that most tests share. Each leaves it idle."""
    with running(sources(folders)) as server:
        yield server


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long text never ends in a test."""
    slow_down(monkeypatch)
