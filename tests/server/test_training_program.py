"""The process that trains: it saves its run whenever the server, its pipe or the machine ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from servers import PATIENCE, eventually

from charloom.checkpoint import load_model


@contextlib.contextmanager
def program():
    command = [sys.executable, "-m", "charloom.server.training_program"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:  # as the server starts it
        try:
            yield process
        finally:
            process.kill()


def ask(process, **asked):
    process.stdin.write(json.dumps(asked).encode() + b"\n")
    process.stdin.flush()


def read_until(process, event):
    for line in process.stdout:
        found = json.loads(line)
        if found["event"] == event:
            return found
    raise AssertionError(f"no event {event}")


def train(process, corpus_file, out):
    values = {"minutes": 60, "hidden": 8}
    ask(process, do="train", paths=[str(corpus_file)], name="zen", values=values, out=str(out), **{"from": None})


@pytest.mark.parametrize("how", ["stdin", "line", "stdout", "both", "SIGTERM", "SIGINT"])
def test_a_run_is_saved(corpus_file, tmp_path, how):
    """Catches a run that goes on without its server, a checkpoint that is lost, and a traceback that nobody reads."""
    with program() as process:
        train(process, corpus_file, tmp_path / "run")
        step = read_until(process, "step")["step"]
        if how in ("stdout", "both"):
            process.stdout.close()
        if how in ("stdin", "both"):
            process.stdin.close()
        if how == "line":
            process.stdin.write(b"\n")
            process.stdin.flush()
        if how.startswith("SIG"):
            process.send_signal(getattr(signal, how))
        if how not in ("stdout", "both"):
            assert [json.loads(line) for line in process.stdout][-1] == {"event": "stopped"}
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == b""
    progress = json.loads((tmp_path / "run" / "last" / "resume.json").read_text(encoding="utf-8"))
    assert progress["step"] >= step
    load_model(tmp_path / "run")


@pytest.mark.parametrize("how", ["stdin", "SIGTERM"])
def test_before_training_nothing_stays(tmp_path, how):
    """Catches a process that reads a long text to its end, and a folder of a run that never trained."""
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be\n" * 2_000_000, encoding="utf-8")
    out = tmp_path / "run"
    with program() as process:
        train(process, text, out)
        eventually(out.exists)
        if how == "stdin":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM)
        assert [json.loads(line)["event"] for line in process.stdout] == ["stopped"]
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == b""
    assert not out.exists()


def test_no_request():
    """Catches a traceback of a server that ended before it asked."""
    with program() as process:
        process.stdin.close()
        assert process.stdout.read() == b'{"event": "stopped"}\n'
        assert (process.wait(), process.stderr.read()) == (0, b"")


def test_an_unexpected_error(tmp_path):
    """Catches a bug of which nobody learns."""
    with program() as process:
        ask(process, do="resume", out=5, values={})
        assert json.loads(process.stdout.readline())["text"].startswith("this is a bug in charloom, TypeError: ")
        assert b"Traceback" in process.stderr.read()


def test_its_priority_is_lower(corpus_file, tmp_path):
    """Catches training that takes the processor from the server."""
    with program() as process:
        train(process, corpus_file, tmp_path / "run")
        read_until(process, "started")
        mine, found = (os.getpriority(os.PRIO_PROCESS, number) for number in (0, process.pid))
        assert found == min(19, mine + 10)
        group = Path(f"/proc/{process.pid}/autogroup")  # of Linux, if its kernel has the feature
        if group.exists():
            assert group.read_text().split()[-1] == "10"
