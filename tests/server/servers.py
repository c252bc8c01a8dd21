"""Servers for tests: on a free port of loopback, in a thread of the test's process, with small models."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest

from charloom.architecture import Architecture
from charloom.checkpoint import ModelFolder, save_model
from charloom.data.vocabulary import Vocabulary
from charloom.inference import scheduler
from charloom.server.limits import ServerLimits
from charloom.server.run import Running, ServerOptions, bound
from charloom.server.served_models import ModelSource
from charloom.server.worker import Worker

LETTERS = Vocabulary("characters", tuple("\n abcdefgh\u2028"))
RECORDS = Vocabulary("characters", tuple("abcd"), unknown=True, separator=True)
SHAPES = {
    "letters": (LETTERS, "lstm", 2, {}),
    "records": (RECORDS, "gru", 2, {"records": "paragraph", "keep_order": False}),
    "bytes": (Vocabulary("bytes"), "rnn", 1, {}),
}
"""One model of characters, with U+2028, where some clients end a line; one of records, whose separator is two
characters; and one of bytes, which generates half characters."""

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")

PATIENCE = 60
"""Seconds after which something that must happen counts as missing."""


def block(language: str, number: int = 0) -> str:
    """A block of code of docs/serving.md."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[number]


def make_folder(name: str, seed: int = 0) -> ModelFolder:
    """A model with random weights: large enough that its texts differ, and with no time to train."""
    vocabulary, cell, layers, options = SHAPES[name]
    made = Architecture(
        cell=cell,
        nonlinearity="tanh",
        layers=layers,
        hidden=20,
        input="embedding",
        embedding=4,
        vocabulary_size=vocabulary.size,
    )
    generator = np.random.default_rng(seed)
    parameters = {
        name: (2 * generator.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in made.shapes.items()
    }
    return ModelFolder(made, vocabulary, parameters, **options)


def save_folders(place: Path) -> dict[str, Path]:
    """The folders of these models, below `place`."""
    for name in SHAPES:
        save_model(place / name, make_folder(name))
    return {name: place / name for name in SHAPES}


def slow_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """One token in each update, and a moment between two, so that a long text never ends in a test."""
    update = Worker._update
    monkeypatch.setattr(scheduler, "CHUNK_TOKENS", 1)
    monkeypatch.setattr(Worker, "_update", lambda self: (update(self), time.sleep(0.001))[0])


@dataclass
class Served:
    """A server that runs. said: the lines that it told."""

    running: Running
    url: str
    said: list[str] = field(default_factory=list)

    def client(self, **options: object) -> httpx.Client:
        """A client that waits long enough, and reads no certificates, which would take longer than most tests."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE, verify=False, **options)  # type: ignore[arg-type]

    def sum(self, name: str) -> int:
        """The number of sequences of all models that are `running` or `waiting`."""
        return sum(model.worker._sum(name) for model in self.running.models.models.values())

    def idle(self) -> bool:
        """Whether no slot is in use and nothing waits."""
        return self.sum("running") == self.sum("waiting") == 0


def eventually(condition: Callable[[], object], what: str = "it") -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.005)


@contextmanager
def running(sources: list[ModelSource], ready: bool = True, **options: object) -> Iterator[Served]:
    """A server with these options, in a thread."""
    asked = ServerOptions(sources, port=0, **options)  # type: ignore[arg-type]
    said: list[str] = []
    with bound(asked.host, 0) as listener:
        server = Running(asked, listener, said.append)
        thread = threading.Thread(target=server.run)
        thread.start()
        served = Served(server, f"http://127.0.0.1:{listener.getsockname()[1]}", said)
        try:
            eventually(lambda: said if ready else server.started, "the start of the server")
            yield served
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive(), "the server must end"


def sources(folders: dict[str, Path]) -> list[ModelSource]:
    """All models under their names."""
    return [ModelSource(name, str(folder)) for name, folder in folders.items()]


def small_limits() -> ServerLimits:
    """Limits that a test reaches soon."""
    return ServerLimits(
        body_bytes=2000,
        prompt_tokens=100,
        sequences=4,
        generated_tokens=10**6,
        logprobs=50,
        trace_numbers=2000,
        connections=8,
        request_seconds=0.3,
        send_seconds=0.3,
        grace_seconds=0.3,
    )


class ServerCommand:
    """A command that serves, in a process of its own, with what it printed so far."""

    def __init__(self, command: list[str], env: Mapping[str, str] | None = None, new_session: bool = False) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=new_session,
            env={**os.environ, **(env or {})},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)

    @property
    def err(self) -> str:
        """What it printed."""
        return "".join(self.lines)

    @property
    def url(self) -> str:
        """Its address, once it is ready."""
        eventually(lambda: "(Ctrl-C stops)" in self.err or self.process.poll() is not None, "the start")
        return self.err.partition(" at ")[2].split()[0]

    def ended(self) -> tuple[int, str]:
        """The exit status and everything that it printed."""
        status = self.process.wait(PATIENCE)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status, self.err

    def __enter__(self) -> ServerCommand:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.ended()
