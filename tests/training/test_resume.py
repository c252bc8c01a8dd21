"""A run that was stopped in any way, and resumed, ends like a run without a stop: bit for bit."""

from __future__ import annotations

import json
import random
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from charloom.checkpoint import load_model
from charloom.config import TrainingSettings
from charloom.engines.engine import choose_engine
from charloom.errors import DeviceError, Interrupted, ModelError
from charloom.training import start

pytestmark = pytest.mark.processor

CHARLOOM = str(Path(sys.executable).with_name("charloom"))
CHEAP = {
    "hidden": 8,
    "embedding": 4,
    "layers": 2,
    "dropout": 0.3,
    "batch_size": 4,
    "seq_length": 16,
    "validate_every": 4,
    "device": "cpu",
    "precision": "fp32",
    "split": "98/2",
}
OF_THE_CLOCK = {"seconds", "log_bytes"}


def train(path, out, stop=lambda: False, **values):
    return start.start([str(path)], {**CHEAP, **values}, out, None, lambda _: None, stop)


def resume(folder, stop=lambda: False):
    return start.resume(folder, {}, lambda _: None, stop)


def stop_after(steps):
    asked = iter([False] * (steps - 1))
    return lambda: next(asked, True)


def flags(**values):
    return [word for name, value in {**CHEAP, **values}.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def end_of(run):
    """All that must be equal: weights, optimizer, hidden state, position in data and schedule, samples, log."""
    progress = json.loads((run / "last" / "resume.json").read_text())
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [line for line in lines if line["event"] in ("validation", "sample", "finished")]
    return {
        **{name: (run / name).read_bytes() for name in ("best/model.safetensors", "last/model.safetensors")},
        "arrays": (run / "last" / "resume.safetensors").read_bytes(),
        "progress": {name: value for name, value in progress.items() if name not in OF_THE_CLOCK},
        "samples": (run / "samples.txt").read_bytes(),
        "log": [{name: value for name, value in line.items() if name not in ("seconds", "run")} for line in kept],
    }


def assert_same_end(run, straight):
    expected, found = end_of(straight), end_of(run)
    different = [name for name in expected if expected[name] != found[name]]
    assert not different


@pytest.mark.parametrize(
    "layout",
    [
        {"batches": "streams"},
        {"batches": "streams", "state": "reset", "cell": "gru"},
        {"batches": "streams", "cell": "gru", "precision": "bf16"},
        {"batches": "streams", "loss": "last", "cell": "rnn", "optimizer": "sgd", "lr": 0.05},
        {"batches": "windows", "optimizer": "rmsprop", "batch_size": 64},
        {"batches": "records", "optimizer": "adam", "schedule": "constant"},
        {"records": "line", "optimizer": "adam"},
        {"records": "line", "keep_order": True},
        {"dropout_mask": "locked", "weight_drop": 0.4},
        {"minutes": 1e6},  # planned; the budget in steps ends first, so the plan is always the same
    ],
    ids=["streams", "reset", "bf16", "last", "windows", "chunks", "independent", "ordered", "dropped", "planned"],
)
def test_interrupted_anywhere_a_run_ends_as_the_straight_one(tmp_path, zen, layout):
    """Catches a missing part of a checkpoint: dropout's position, the shuffle, a moment, the schedule, the best, the
    state.
    """
    try:
        choose_engine(TrainingSettings(steps=1, precision=layout.get("precision", "auto")), layout.get("cell", "lstm"))
    except DeviceError as refused:
        pytest.skip(str(refused))
    path = tmp_path / "zen.txt"
    path.write_text(zen, encoding="utf-8")
    values = {"steps": 31, "checkpoint_every": 3, **layout}
    assert train(path, tmp_path / "straight", **values).epoch >= 1, "the epoch's end must be among the steps"
    with pytest.raises(Interrupted):
        train(path, tmp_path / "broken", stop_after(1), **values)
    for steps in (1, 2, 6, 9, 11):  # 2 more steps, then to steps 3, 9, 18 and 29; a validation every four steps
        with pytest.raises(Interrupted):
            resume(tmp_path / "broken", stop_after(steps))
    assert resume(tmp_path / "broken").step == 31
    assert_same_end(tmp_path / "broken", tmp_path / "straight")


def test_a_budget_in_epochs_resumes_exactly_too(tmp_path, zen):
    (tmp_path / "zen.txt").write_text(zen, encoding="utf-8")
    train(tmp_path / "zen.txt", tmp_path / "straight", epochs=2)
    with pytest.raises(Interrupted):
        train(tmp_path / "zen.txt", tmp_path / "broken", stop_after(14), epochs=2)
    resume(tmp_path / "broken")
    assert_same_end(tmp_path / "broken", tmp_path / "straight")


def step_of(run):
    """The step of the last checkpoint; -1 if there is none at this moment."""
    try:
        return json.loads((run / "last" / "resume.json").read_text())["step"]
    except (OSError, ValueError):
        return -1


def begin(arguments, folder, **options):
    command = [CHARLOOM, "train", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def wait_for_step(process, run, step):
    deadline = time.monotonic() + 60
    while step_of(run) < step:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.once
def test_killed_at_random_moments_a_run_ends_as_the_straight_one(tmp_path, corpus_file):
    """Catches an incomplete checkpoint after a kill, an incomplete line in the log, and a missing best model."""
    moments = random.Random(6)
    values = {"steps": 120, "checkpoint_every": 2, "validate_every": 10, "seed": 3}
    train(corpus_file, tmp_path / "straight", **values)
    run = tmp_path / "broken"
    arguments = [str(corpus_file), "--out", str(run), *flags(**values)]
    for _ in range(4):
        process = begin(arguments, tmp_path)
        wait_for_step(process, run, max(0, step_of(run)) + 2)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        assert load_model(run / "best").architecture.hidden == 8
        arguments = ["--resume", str(run)]
    assert resume(run).step == 120
    assert_same_end(run, tmp_path / "straight")


@pytest.mark.once
def test_ctrl_c_saves_and_the_command_that_it_prints_goes_on(tmp_path, corpus_file):
    """Catches a wrong exit status, a command that a shell cannot read, and a number of steps that differs."""
    values = {"steps": 200, "checkpoint_every": 100, "validate_every": 50}
    run = tmp_path / "my run"
    process = begin([str(corpus_file), "--out", str(run), *flags(**values)], tmp_path)
    wait_for_step(process, run, 0)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, shown = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    message = shown.splitlines()[-1]
    assert message.startswith(f"charloom: stopped at step {step_of(run)}; everything is saved in ")
    command, *arguments = shlex.split(message.partition("resume the run: ")[2])
    assert (command, arguments) == ("charloom", ["train", "--resume", str(run)])
    assert resume(Path(arguments[-1])).step == 200
    train(corpus_file, tmp_path / "straight", **values)
    assert_same_end(run, tmp_path / "straight")


@pytest.mark.once
def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays_whole(tmp_path, corpus_file):
    """Catches a traceback, an incomplete file in place of the old one, and a run that cannot be resumed later."""
    values = {"steps": 12, "checkpoint_every": 2}
    run = tmp_path / "run"
    train(corpus_file, tmp_path / "straight", **values)
    with pytest.raises(Interrupted):
        train(corpus_file, run, stop_after(4), **values)
    model, whole = ((run / "last" / name).stat().st_size for name in ("model.safetensors", "resume.safetensors"))
    room = (model + whole) // 2  # the weights fit, the snapshot does not

    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    process = begin(["--resume", str(run), "--quiet"], tmp_path, preexec_fn=no_room)
    out, shown = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert shown == (
        f"charloom: {run} cannot be written: File too large; the last checkpoint is whole; free disk space, "
        f"then resume the run: charloom train --resume {run}\n"
    )
    assert step_of(run) == 4
    assert not [path.name for path in run.iterdir() if ".new" in path.name]
    load_model(run / "best")
    assert resume(run).step == 12
    assert_same_end(run, tmp_path / "straight")


def test_a_state_of_another_batch_size_is_one_line(tmp_path, corpus_file):
    """Catches a changed `batch_size` in run.toml, with which the kernels read beyond the saved state."""
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(corpus_file, run, stop_after(4), steps=12)
    settings = (run / "run.toml").read_text(encoding="utf-8")
    (run / "run.toml").write_text(settings.replace("batch_size = 4", "batch_size = 8"), encoding="utf-8")
    with pytest.raises(
        ModelError, match=r"^resume.safetensors: state.0 must be finite \(2, 8, 8\); found .* \(2, 4, 8\)"
    ):
        resume(run)


def test_a_run_of_an_earlier_version_goes_on_in_its_own_order(tmp_path, zen):
    """Catches records that are shuffled, or start from zero, in the middle of a run that read them in order.

    Version 0.1 had no setting for it, and had `dropout` in the section `model`.
    """
    (tmp_path / "zen.txt").write_text(zen, encoding="utf-8")
    values = {"steps": 20, "records": "line", "keep_order": True}
    train(tmp_path / "zen.txt", tmp_path / "straight", **values)
    with pytest.raises(Interrupted):
        train(tmp_path / "zen.txt", tmp_path / "broken", stop_after(9), **values)
    settings = tmp_path / "broken" / "run.toml"
    lines = settings.read_text(encoding="utf-8").splitlines(keepends=True)
    [dropout] = [line for line in lines if line.startswith("dropout =")]
    kept = [line for line in lines if not line.startswith(("keep_order", "dropout ="))]
    kept.insert(kept.index("[model]\n") + 1, dropout)
    settings.write_text("".join(kept), encoding="utf-8")
    resume(tmp_path / "broken")
    assert_same_end(tmp_path / "broken", tmp_path / "straight")
