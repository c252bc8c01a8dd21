"""Kills a run with SIGKILL at random moments. It must always resume, and end like a run without kills.

    python benchmarks/kill.py [number of kills, 20]

A run writes a checkpoint every 2 steps. It is killed at a random moment after the first checkpoint, uniform over the
rest of its time. Then `best/` must load, and `--resume` must end like the run without kills, bit for bit: weights,
optimizer, hidden state, position in the data and the schedule, and the validations in its log. Some resumed runs are
killed too, some of them during their start. Prints a line for each kill and one verdict. The exit status is 1 if
anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from charloom.checkpoint import load_model
from charloom.errors import ModelError

CHARLOOM = str(Path(sys.executable).with_name("charloom"))
STEPS = 200
AGAIN = 0.3  # the share of resumed runs that are killed too
SETTINGS = (
    f"--steps {STEPS} --checkpoint-every 2 --validate-every 10 --cell lstm --layers 2 --hidden 32 --dropout 0.3 "
    "--batch-size 8 --seq-length 32 --device cpu --threads 1 --quiet"
).split()


def main() -> int:
    """Runs the benchmark. Returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kills", nargs="?", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="charloom-kill-") as folder:
        return trial(Path(folder), asked.kills, random.Random(asked.seed))


def trial(folder: Path, kills: int, moments: random.Random) -> int:
    """Kills runs in this folder `kills` times. Returns the exit status."""
    text, run = folder / "text.txt", folder / "run"
    text.write_text("".join(f"{n} bottles on the wall, {n * n % 97} in the cellar.\n" for n in range(2000)))
    start_up, training = timed(text, folder / "straight")
    wanted = end_of(folder / "straight")
    print(f"a straight run: {start_up:.1f} s to the first checkpoint, then {training:.1f} s", flush=True)
    killed = bad = ended = 0
    while killed < kills:
        begun = checkpoint_of(run) is not None
        process = begin(text, run)
        if begun:  # a run that was killed is killed again while it resumes
            moment = moments.uniform(0, start_up + training * (1 - step_of(run) / STEPS))
        else:
            while checkpoint_of(run) is None and process.poll() is None:
                time.sleep(0.001)
            moment = moments.uniform(0, training)
        time.sleep(moment)
        process.kill()
        killed += process.wait() != 0  # it may have ended before
        good, report = state_of(run)
        print(f"kill {killed:3}, {moment:5.2f} s into {'a resume' if begun else 'training'}: {report}", end="; ")
        if killed < kills and moments.random() < AGAIN:
            print("killed again", flush=True)
        else:
            different = resumed(text, run, wanted)
            print(
                f"resumed: {', '.join(different) + ' differ' if different else 'equal to the straight run'}", flush=True
            )
            good, ended = good and not different, ended + 1
        bad += not good
    print(f"{'FAIL' if bad else 'PASS'}: {killed} kills, {ended} runs resumed to their end, {bad} failures")
    return 1 if bad else 0


def begin(text: Path, run: Path) -> subprocess.Popen[bytes]:
    """Starts the run, or resumes it."""
    begun = checkpoint_of(run) is not None
    arguments = ["--resume", str(run), "--quiet"] if begun else [str(text), "--out", str(run), *SETTINGS]
    return subprocess.Popen([CHARLOOM, "train", *arguments], stdout=subprocess.DEVNULL)


def resumed(text: Path, run: Path, wanted: dict[str, Any]) -> list[str]:
    """Resumes the run to its end and deletes it. Returns what differs from the run without kills, by name."""
    status = begin(text, run).wait()
    found = end_of(run) if status == 0 else {}
    shutil.rmtree(run)
    return [name for name in wanted if found.get(name) != wanted[name]]


def timed(text: Path, run: Path) -> tuple[float, float]:
    """Trains without a kill: seconds to the first checkpoint, and from there to the end."""
    began = time.monotonic()
    process = begin(text, run)
    while process.poll() is None and checkpoint_of(run) is None:
        time.sleep(0.01)
    start_up = time.monotonic() - began
    if process.wait():
        raise SystemExit(f"the straight run failed: exit status {process.returncode}")
    return start_up, time.monotonic() - began - start_up


def step_of(run: Path) -> int:
    """The step of the last checkpoint; 0 before the first."""
    last = checkpoint_of(run)
    return json.loads((last / "resume.json").read_text())["step"] if last else 0


def checkpoint_of(run: Path) -> Path | None:
    """The folder of the last checkpoint. It has another name for a moment while it is replaced."""
    return next((path for path in (run / "last", run / "last.old") if path.exists()), None)


def state_of(run: Path) -> tuple[bool, str]:
    """Whether the run is valid after a kill, and a description for a person."""
    last = checkpoint_of(run)
    if last is None:
        return True, "before the first checkpoint"
    step = step_of(run)
    try:
        load_model(run / "best")
    except ModelError as error:
        return False, f"checkpoint of step {step}; {error}"
    return True, f"checkpoint of step {step}; best/ loads"


def end_of(run: Path) -> dict[str, Any]:
    """Everything that must be equal at the end of two runs."""
    progress = json.loads((run / "last" / "resume.json").read_text())
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    names = ("best/model.safetensors", "last/model.safetensors", "last/resume.safetensors", "samples.txt")
    return {
        **{name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in names},
        "progress": {name: value for name, value in progress.items() if name not in ("seconds", "log_bytes")},
        "validations": [
            (line["step"], line["validation_nats"], line["best"]) for line in lines if line["event"] == "validation"
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
