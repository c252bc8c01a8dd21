"""The command line as a user runs it, and a small model for all tests, which they only read.

Starting Python and loading PyTorch takes seconds. So most commands run in a fork of a process that has done both. The
fork has its own arguments, exit status, streams, limits and folder. Tests of the start itself use a new process
(`cold`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from charloom.kernels import runnable

QUIET = {} if runnable() else {"CHARLOOM_KERNELS": "off"}
"""Without this, every command in an environment without kernels would print a notice first."""

SERVER = """
import json, os, resource, signal, sys
import charloom.cli.train, charloom.training.start, charloom.cli.main
import importlib.util
if importlib.util.find_spec("torch"):
    import torch._dynamo, charloom.engines.torch.engine
if importlib.util.find_spec("fastapi"):
    import charloom.server.run

def child(job):
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    for number, (path, flags) in enumerate(zip(job["streams"], (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY))):
        os.dup2(os.open(path, flags), number)
    # The fork's pages are limited too: as much as a write would be, and no more.
    if job["largest_file"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"],) * 2)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", errors="backslashreplace")
    sys.argv = ["charloom", *job["arguments"]]
    try:
        charloom.cli.main.main()
    except SystemExit as end:
        sys.stdout.flush(), sys.stderr.flush()
        return end.code or 0

for line in sys.stdin:
    process = os.fork()
    if process == 0:
        status = 70
        try:
            status = child(json.loads(line))
        except BaseException:
            import traceback
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    sys.stdout.write(f"{status}\\n")
    sys.stdout.flush()
"""


@dataclass(frozen=True)
class Ended:
    """The result of a command: exit status, output and files."""

    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The only line that a failed command prints."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("charloom: "), self.err
        return lines[0].removeprefix("charloom: ")


Run = Callable[..., Ended]


class Shell:
    """Runs commands in a folder, one after the other."""

    def __init__(self, server: subprocess.Popen[str], folder: Path, streams: Path) -> None:
        self.server, self.folder, self.streams = server, folder, streams

    def __call__(
        self,
        *arguments: str | os.PathLike[str],
        stdin: str | bytes = b"",
        env: Mapping[str, str] | None = None,
        largest_file: int | None = None,
        out: Path | None = None,
    ) -> Ended:
        """Runs `charloom` with these arguments; no file may grow beyond `largest_file` bytes, as on a full disk."""
        streams = [self.streams / "in", out or self.streams / "out", self.streams / "err"]
        for path in streams:
            path.write_bytes(b"")
        streams[0].write_bytes(stdin.encode() if isinstance(stdin, str) else stdin)
        job: dict[str, Any] = {
            "arguments": [os.fspath(argument) for argument in arguments],
            "cwd": str(self.folder),
            "env": {"CHARLOOM_CACHE": os.environ["CHARLOOM_CACHE"], "COLUMNS": "100", **QUIET, **(env or {})},
            "streams": [str(path) for path in streams],
            "largest_file": largest_file,
        }
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        status = int(self.server.stdout.readline())
        read = [path.read_bytes().decode("utf-8", "surrogateescape") for path in streams[1:]]
        return Ended(status, *read)


@pytest.fixture(scope="session")
def warm(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has loaded all modules and forks for each command."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # a fork of a process with threads would hang
    )
    with server:
        yield server
        assert server.stdin is not None
        server.stdin.close()


@pytest.fixture
def charloom(warm: subprocess.Popen[str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """`charloom …` in the test's own folder."""
    return Shell(warm, tmp_path, tmp_path_factory.mktemp("streams"))


@pytest.fixture
def cold(tmp_path: Path) -> Run:
    """`charloom …` in a new interpreter; arguments for `python` go before `-m charloom`."""

    def run(
        *arguments: str | os.PathLike[str], python: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> Ended:
        command = [sys.executable, *python, "-m", "charloom", *map(os.fspath, arguments)]
        ended = subprocess.run(command, cwd=tmp_path, env={**os.environ, **(env or {})}, capture_output=True, text=True)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture(scope="session")
def smallest() -> tuple[str, ...]:
    """Flags that make training as short as possible."""
    return ("--steps", "2", "--hidden", "8", "--embedding", "4", "--batch-size", "4", "--seq-length", "16")


def _trained(
    warm: subprocess.Popen[str], factory: pytest.TempPathFactory, name: str, text: str, *arguments: str
) -> Path:
    folder = factory.mktemp(name)
    (folder / "corpus.txt").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARLOOM_CACHE", str(folder))
        ended = Shell(warm, folder, factory.mktemp("streams"))("train", "corpus.txt", "--out", "run", *arguments)
    assert ended.status == 0, ended.err
    return folder / "run"


@pytest.fixture(scope="session")
def tiny(
    warm: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory, corpus: str, smallest: tuple[str, ...]
) -> Path:
    """A run folder on the Zen of Python, trained for two steps. Tests only read it."""
    return _trained(warm, tmp_path_factory, "tiny", corpus, *smallest)


@pytest.fixture(scope="session")
def tiny_bytes(
    warm: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory, corpus: str, smallest: tuple[str, ...]
) -> Path:
    """The same with a byte-level model."""
    return _trained(warm, tmp_path_factory, "tiny-bytes", corpus, *smallest, "--vocabulary", "bytes")


@pytest.fixture(scope="session")
def tiny_records(
    warm: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory, corpus: str, smallest: tuple[str, ...]
) -> Path:
    """The same with one record a line."""
    return _trained(warm, tmp_path_factory, "tiny-records", corpus, *smallest, "--records", "line")
