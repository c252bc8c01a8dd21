"""One network, trained by several processes. Importing PyTorch takes seconds, so tests share processes."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from charloom.checkpoint import load_model
from charloom.kernels import chosen
from charloom.training import start

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="no torch")

PROGRAMS = Path(__file__).with_name("programs")
VALUES = {
    "hidden": 24,
    "layers": 2,
    "input_gate": "free",
    "dropout": 0.2,
    "dropout_mask": "locked",
    "batch_size": 9,
    "seq_length": 16,
    "schedule": "constant",
    "warmup": 0.0,
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "sample_length": 0,
    "validate_every": 10,
}
KILLED = {"steps": 300, "checkpoint_every": 5, "validate_every": 300}
PLANNED = [
    "--minutes",
    "0.1",
    "--steps",
    "3",
    "--cell",
    "gru",
    "--batch-size",
    "8",
    "--seq-length",
    "16",
    "--device",
    "cpu",
]
ENGINES = ["numpy", "native", "torch"] if chosen().module else ["numpy", "torch"]


def flags(**values):
    return [
        word for name, value in {**VALUES, **values}.items() for word in (f"--{name.replace('_', '-')}", str(value))
    ]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [made.getsockname()[1] for made in sockets]
    for made in sockets:
        made.close()
    return ports


def two(folder, engines, commands):
    """Two processes that compare these engines, then run these commands of charloom, with torchrun's environment."""
    asked = {"engines": engines, "ports": free_ports(2 + len(commands)), "commands": commands}
    (folder / "asked.json").write_text(json.dumps(asked))
    found = []
    for rank in range(2):
        place = {"MASTER_ADDR": "127.0.0.1", "LOCAL_WORLD_SIZE": "2", "RANK": str(rank), "WORLD_SIZE": "2"}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, str(PROGRAMS / "several.py")]
        found.append(subprocess.Popen(command, env={**os.environ, **place}, cwd=folder, **streams))
    return found


def outputs(processes):
    """(stdout, stderr) of each, when all have ended."""
    try:
        return [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()


def losses(run):
    """The losses of the validations, by their steps."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["validation_nats"] for line in lines if line["event"] == "validation"}


def weights(run):
    return [(run / "last" / name).read_bytes() for name in ("model.safetensors", "resume.safetensors")]


@pytest.fixture(scope="module")
def place(tmp_path_factory, corpus):
    folder = tmp_path_factory.mktemp("processes")
    (folder / "corpus.txt").write_text(corpus, encoding="utf-8")
    return folder


def train_alone(place, name, **values):
    path = str(place / "corpus.txt")
    start.start([path], {**VALUES, **values}, place / name, None, lambda _: None, lambda: False)


@pytest.fixture(scope="module")
def runs(place):
    """What two processes wrote, which compared engines, trained these runs, and then received a signal."""
    train_alone(place, "alone-50", steps=50)
    train_alone(place, "first-alone", steps=20)
    train = ["train", "corpus.txt", "--quiet", "--out"]
    commands = [
        [*train, "two-50", *flags(steps=50)],
        [*train, "part", *flags(steps=20)],
        ["train", "--resume", "part", "--quiet", "--steps", "40"],
        [*train, "straight", *flags(steps=40)],
        ["train", "--resume", "first-alone", "--quiet", "--steps", "40"],
        [*train, "whole", *flags(**KILLED)],
        [*train, "few", *flags(steps=5, batch_size=1)],
        [*train, "planned", *PLANNED],
        [*train, "asked", *flags(steps=10**6, checkpoint_every=20)],
    ]
    processes = two(place, ENGINES, commands)
    wait_for_step(place / "asked", 20)
    for _ in range(2):  # torchrun sends it again
        processes[1].send_signal(signal.SIGTERM)
        time.sleep(0.01)
    written = outputs(processes)
    start.resume(place / "first-alone", {"steps": 50}, lambda _: None, lambda: False)
    return written


def test_gradients_are_those_of_one_process(place, runs):
    """Catches rows that are missing or counted twice, masks and states of other rows, and a rank without a row."""
    found = json.loads((place / "measured.json").read_text())
    for values in found.values():
        assert values["sums"] == 0
        assert values["names"]
        assert values["gradients"] < 1e-6
        assert values["parameters"] < 1e-6
        assert values["state"] < 1e-5


def test_the_others_wait_while_the_first_process_is_busy(place, runs):
    """Catches processes that give up the first one while it reads a large text."""
    assert (place / "waited").read_text() == "alive"


def test_the_loss_is_that_of_one_process(place, runs):
    """Catches a mean over processes instead of targets, and dropout that differs between processes."""
    one, both = losses(place / "alone-50"), losses(place / "two-50")
    assert one.keys() == both.keys() == {10, 20, 30, 40, 50}
    assert max(abs(one[step] - both[step]) for step in one) < 1e-3


def test_the_plan_times_all_processes(place, runs):
    """Catches a plan that measures the first process alone."""
    lines = (json.loads(line) for line in (place / "planned" / "log.jsonl").read_text().splitlines())
    planned = next(line for line in lines if line["event"] == "planned")
    reason = next(choice["reason"] for choice in planned["choices"] if choice["setting"] == "hidden")
    assert "as timed with 2 processes" in reason


def test_a_resumed_run_is_exact(place, runs):
    """Catches state or memory of the optimizer that a process loses."""
    assert weights(place / "part") == weights(place / "straight")


def test_the_number_of_processes_can_change(place, runs):
    """Catches states in another order, and batches that begin again: steps 20 of one, 20 of two, 10 of one."""
    one, mixed = losses(place / "alone-50"), losses(place / "first-alone")
    assert one.keys() == mixed.keys()
    assert max(abs(one[step] - mixed[step]) for step in one) < 1e-3


def test_only_the_first_process_prints(place, runs):
    """Catches a folder, a notice or an error that is printed twice; and statuses that differ."""
    assert [json.loads((place / f"statuses-{rank}.json").read_text()) for rank in range(2)] == [
        [0, 0, 0, 0, 0, 0, 2, 0, 130]
    ] * 2
    (out, first), second = runs
    assert out.split() == [
        f"{run}/best" for run in ("two-50", "part", "part", "straight", "first-alone", "whole", "planned")
    ]
    assert all(line.startswith("charloom: ") for line in first.splitlines())
    assert second == ("", "")


def test_what_cannot_be_shared_is_refused(place, runs):
    """Catches a hang, a traceback and a run folder that stays."""
    few, _ = runs[0][1].splitlines()
    assert "--batch-size must be at least the number of processes" in few
    assert "found 1 for 2 processes" in few
    assert not (place / "few").exists()


def test_a_signal_to_one_process_saves_all(place, runs):
    """Catches a signal that ends one process only, or that loses steps."""
    step = json.loads((place / "asked" / "last" / "resume.json").read_text())["step"]
    assert f"stopped at step {step}; everything is saved in asked" in runs[0][1].splitlines()[-1]


def test_a_killed_process_is_replaced(place, runs):
    """Catches a run that stops, hangs or changes when torchrun starts the processes again."""
    pids = place / "pids"
    pids.mkdir()
    options = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "3", "--monitor-interval", "0.1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *options, str(PROGRAMS / "restarted.py"), str(pids)]
    command = ["train", "corpus.txt", "--out", "killed", "--resume", "auto", "--quiet", *flags(**KILLED)]
    with subprocess.Popen([*torchrun, *command], cwd=place, stderr=subprocess.PIPE, text=True) as process:
        kill(place / "killed", pids / "0-1", 0)
        begun = step_of(place / "killed")
        kill(place / "killed", pids / "1-0", begun)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert (pids / "2-0").exists()
    assert "charloom: every process of a run must answer; one ended or cannot be reached" in errors
    assert "resume the run: charloom train --resume killed" in errors
    assert weights(place / "killed") == weights(place / "whole")
    assert load_model(place / "killed" / "best").parameters


def kill(run, pid, step):
    """Ends a process a random moment after a checkpoint behind this step."""
    while not pid.exists():
        time.sleep(0.02)
    wait_for_step(run, step + 1)
    time.sleep(random.random() / 5)
    os.kill(int(pid.read_text()), signal.SIGKILL)


def step_of(run):
    """The step of the last checkpoint; 0 without one."""
    try:
        return json.loads((run / "last" / "resume.json").read_text())["step"]
    except (OSError, ValueError):
        return 0


def wait_for_step(run, least):
    """Waits for a checkpoint of at least this step."""
    deadline = time.monotonic() + 120
    while step_of(run) < least:
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.02)
