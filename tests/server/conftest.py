"""One server that most tests of a process share, and the models that it serves."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from charloom.inference import scheduler

if importlib.util.find_spec("fastapi") is None:
    collect_ignore_glob = ["test_*.py"]  # the extra `serve` is not installed
else:
    from servers import SHAPES, Served, eventually, make_folder, running, sources

    from charloom.checkpoint import save_model
    from charloom.model import Model
    from charloom.server.worker import Worker


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of the models. Tests only read them."""
    place = tmp_path_factory.mktemp("models")
    for name in SHAPES:
        save_model(place / name, make_folder(name))
    return {name: place / name for name in SHAPES}


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
def http(served: Served) -> Iterator[httpx.Client]:
    """A client of that server."""
    with served.client() as client:
        yield client
    eventually(served.idle, "a free slot at the end of the test")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """One token in each update, and a moment between two, so that a long text never ends in a test."""
    update = Worker._update
    monkeypatch.setattr(scheduler, "CHUNK_TOKENS", 1)
    monkeypatch.setattr(Worker, "_update", lambda self: (update(self), time.sleep(0.001))[0])
