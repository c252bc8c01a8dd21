"""Trains with one process on each of two hosts, and kills processes, cuts the network and switches a host off.

The hosts are two network namespaces of this machine with a cable between them (veth). They share its disk, its memory
and its processor. Each starts `torchrun`, as docs/clusters.md says (`hosts.py`).

    python benchmarks/two_hosts.py [experiment ...] [--engine native] [--steps N] [--kills N]

    equal        one process, two processes on one host, and two hosts: gradients, losses and parameters
    kills        SIGKILL to one of two processes on one host at random moments, with `--max-restarts`
    host-kills   the same with two hosts
    down-5       the cable is unplugged for 5 seconds
    lost-5       all packets are lost for 5 seconds
    down         the cable is unplugged for good
    lost         all packets are lost for good
    off          all processes of the second host are killed
    off-down     the cable is unplugged, and all processes of the second host are killed
    off-first    all processes of the first host are killed, where rank 0 is and `torchrun` meets
    back         all processes of the second host are killed, and then `torchrun` is started there again

Without names, all run one after the other. Every run that ends must have the weights of a run without a failure, bit
for bit, and `best/` must load after every kill. For the others, the output has every line that a person sees, the
seconds since the failure, and the exit status. The exit status is 1 if a run differs. Needs Linux, `ip` and root.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hosts import FIRST, HOSTS, SECOND, Started, kill, lose_packets, switch_off, two_hosts, unplug
from kill import end_of, state_of, step_of

from charloom.checkpoint import load_model

PORT = 29400
COMPARE = Path(__file__).parents[1] / "tests" / "engines" / "programs" / "several.py"
ENGINES = ("native", "torch")
FEW = 200  # steps of the runs of `equal`
CHECKPOINT = 5  # steps between two checkpoints
SETTINGS = (
    "--cell lstm --layers 2 --hidden 64 --dropout 0.2 --dropout-mask locked --batch-size 8 --seq-length 32 "
    f"--checkpoint-every {CHECKPOINT} --validate-every 20 --sample-length 20 --device cpu --threads 1 --quiet"
).split()
AGENT = ["--monitor-interval", "0.1", "--max-restarts"]
JOIN = ["--rdzv-conf", "join_timeout=60"]  # seconds to wait for the other host; 600 without it


def main() -> int:
    """Runs the experiments. Returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("experiments", nargs="*", metavar="experiment", help=", ".join(EXPERIMENTS))
    parser.add_argument("--engine", default="native")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--restarts", type=int, default=30, help="--max-restarts of torchrun")
    parser.add_argument("--patience", type=float, default=300, help="seconds to wait for the end after a failure")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if unknown := [name for name in asked.experiments if name not in EXPERIMENTS]:
        parser.error(f"{unknown[0]!r} is not one of {', '.join(EXPERIMENTS)}")
    if sys.platform != "linux" or os.geteuid() or not shutil.which("ip"):
        print("two_hosts.py: needs Linux, `ip` (iproute2) and root for network namespaces; nothing was run")
        return 0
    with tempfile.TemporaryDirectory(prefix="charloom-hosts-") as folder, two_hosts():
        trial = Trial(Path(folder), asked)
        for name in asked.experiments or EXPERIMENTS:
            EXPERIMENTS[name](trial)
    print("\n| experiment | result |\n|---|---|")
    print("\n".join(f"| {name} | {result} |" for name, result in trial.results))
    return 1 if trial.failed else 0


class Trial:
    """The folder of all runs, what was asked for, and the results."""

    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        self.folder, self.asked = folder, asked
        self.random = random.Random(asked.seed)
        self.results: list[tuple[str, str]] = []
        self.failed = False
        self.wanted: dict[str, Any] | None = None
        lines = (f"{n} bottles on the wall, {n * n % 97} in the cellar.\n" for n in range(2000))
        (folder / "text.txt").write_text("".join(lines))

    def train(self, run: str, engine: str, steps: int) -> list[str]:
        """The arguments of Python for a run, which is resumed if it exists."""
        words = ["train", "text.txt", "--out", run, "--resume", "auto", "--steps", str(steps), "--engine", engine]
        return ["-m", "charloom", *words, *SETTINGS]

    def one_host(self, arguments: Sequence[str], processes: int = 2) -> list[Started]:
        """Starts processes on this machine."""
        agent = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *agent, *AGENT, str(self.asked.restarts), *arguments]
        return [Started(command, self.folder)]

    def two_hosts(self, arguments: Sequence[str], hosts: Sequence[str] = tuple(HOSTS)) -> list[Started]:
        """Starts one process on each of these hosts."""
        nodes = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "1", *JOIN]
        agent = ["-m", "torch.distributed.run", *nodes, "--rdzv-endpoint", f"{FIRST}:{PORT}"]
        command = [sys.executable, *agent, *AGENT, str(self.asked.restarts), *arguments]
        return [Started(command, self.folder, host) for host in hosts]

    def whole(self) -> dict[str, Any]:
        """The end of a run on one host without a failure, with two processes."""
        if self.wanted is None:
            began = time.monotonic()
            finish(self.one_host(self.train("whole", self.asked.engine, self.asked.steps)))
            self.wanted = end_of(self.folder / "whole")
            print(f"a run without a failure: {time.monotonic() - began:.0f} s", flush=True)
        return self.wanted

    def report(self, name: str, good: bool, result: str) -> None:
        """Prints a result and keeps it for the table."""
        self.failed |= not good
        self.results.append((name, result if good else f"FAIL: {result}"))
        print(f"{name}: {self.results[-1][1]}", flush=True)

    def different(self, run: Path) -> list[str]:
        """What differs at the end of a run from that without a failure."""
        wanted, found = self.whole(), end_of(run)
        return [name for name in wanted if found[name] != wanted[name]]


def finish(started: Sequence[Started], seconds: float = 600) -> None:
    """Waits for the end of a run that must succeed."""
    statuses = [one.wait(seconds) for one in started]
    if any(statuses):
        raise SystemExit(f"a run failed, {statuses}:\n" + "".join(one.said(0) for one in started))


def equal(trial: Trial) -> None:
    """Compares one process, two processes and two hosts."""
    for case, values in gradients(trial).items():
        if isinstance(values, dict):
            far, apart = values["gradients"], values["parameters"]
            trial.report(
                f"equal, {case}, 50 steps on two hosts and in one process",
                far < 1e-6 and apart < 1e-6 and not values["sums"],
                f"gradients differ by {far:.1e} of their norm, parameters by {apart:.1e}",
            )
    for engine in ENGINES:
        runs = {name: f"{engine}-{name}" for name in ("one", "two", "hosts")}
        finish(trial.one_host(trial.train(runs["one"], engine, FEW), 1))
        finish(trial.one_host(trial.train(runs["two"], engine, FEW)))
        finish(trial.two_hosts(trial.train(runs["hosts"], engine, FEW)))
        one, two, hosts = (end_of(trial.folder / run) for run in runs.values())
        same = [name for name in two if two[name] != hosts[name]]
        trial.report(
            f"equal, {engine}, {FEW} steps on two hosts and with two processes on one",
            not same,
            f"{', '.join(same)} differ" if same else "equal bit for bit: weights, optimizer, state, log",
        )
        losses = [np.array([nats for _, nats, _ in end["validations"]]) for end in (one, hosts)]
        flat = [flat_parameters(trial.folder / runs[name]) for name in ("one", "hosts")]
        far, apart = np.abs(losses[0] - losses[1]).max(), np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[0])
        trial.report(
            f"equal, {engine}, {FEW} steps on two hosts and in one process",
            bool(far < 1e-3),
            f"{len(losses[0])} validation losses differ by at most {far:.1e} nats, parameters by {apart:.1e}",
        )


def gradients(trial: Trial) -> dict[str, Any]:
    """What `tests/engines/programs/compare.py` measures, with its two processes on two hosts."""
    asked = {"engines": ["numpy", *ENGINES], "ports": [PORT + 1, PORT + 2], "commands": []}
    (trial.folder / "asked.json").write_text(json.dumps(asked))
    meet = [f"MASTER_ADDR={HOSTS[FIRST]}", "LOCAL_WORLD_SIZE=1", "WORLD_SIZE=2"]
    finish(
        [
            Started(["env", *meet, f"RANK={rank}", sys.executable, str(COMPARE)], trial.folder, host)
            for rank, host in enumerate(HOSTS)
        ]
    )
    found: dict[str, Any] = json.loads((trial.folder / "measured.json").read_text())
    return found


def flat_parameters(run: Path) -> np.ndarray:
    """All parameters of the last checkpoint."""
    return np.concatenate([value.ravel() for value in load_model(run / "last").parameters.values()])


def kills(trial: Trial, name: str, start: Callable[[Sequence[str]], list[Started]]) -> None:
    """Kills one of two processes again and again, while they start and while they train."""
    trial.whole()
    run, killed, bad, seen = trial.folder / name, 0, 0, set[int]()
    started = start(trial.train(name, trial.asked.engine, trial.asked.steps))
    while killed < trial.asked.kills:
        workers = [pid for one in started for pid in one.workers() if pid not in seen]
        if any(one.ended for one in started):
            break
        if len(workers) < 2:
            time.sleep(0.01)
            continue
        seen.update(workers)
        moment = begin_kill(trial, run, killed)
        rank = trial.random.randrange(2)
        kill(workers[rank])
        killed += 1
        good, report = state_of(run)
        bad += not good
        print(f"{name}: kill {killed:2} of process {rank}, {moment}: {report}", flush=True)
    statuses = [one.wait(600) for one in started]
    if any(statuses) or killed < trial.asked.kills:
        print("".join(one.said(0) for one in started))
        trial.report(name, False, f"{killed} kills, exit statuses {statuses}")
        return
    different = trial.different(run)
    end = f"{', '.join(different)} differ" if different else "the end is that of a run without a failure, bit for bit"
    trial.report(name, not different and not bad, f"{killed} kills, best/ did not load {bad} times; {end}")


def begin_kill(trial: Trial, run: Path, killed: int) -> str:
    """Waits for a random moment: every third while the processes start, else after a new checkpoint."""
    if killed % 3 == 2:
        seconds = trial.random.uniform(0, 6)
        time.sleep(seconds)
        return f"{seconds:.1f} s after its start"
    step, deadline = step_of(run), time.monotonic() + 120
    while step_of(run) == step and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(trial.random.uniform(0, 1))
    return f"step {step_of(run)}"


def interrupted(trial: Trial, name: str, begin: Callable[[], None], end: Callable[[], None]) -> None:
    """A failure of the network for 5 seconds: the run must end as one without it."""
    trial.whole()
    started = begun(trial, name)
    since = time.monotonic()
    begin()
    time.sleep(5)
    end()
    compared(trial, name, started, since)


def back(trial: Trial) -> None:
    """A host that is switched off and on again: the run must end as one without a failure."""
    trial.whole()
    started = begun(trial, "back")
    since = time.monotonic()
    switch_off(SECOND)
    time.sleep(5)
    again = trial.two_hosts(trial.train("back", trial.asked.engine, trial.asked.steps), [SECOND])
    compared(trial, "back", [started[0], *again], since)


def compared(trial: Trial, name: str, started: Sequence[Started], since: float) -> None:
    """Waits for the end, and compares it with that of a run without a failure."""
    statuses = [one.wait(600) for one in started]
    print("".join(one.said(since) for one in started), end="")
    different = trial.different(trial.folder / name) if not any(statuses) else [f"exit statuses {statuses}"]
    what = f"{', '.join(different)} differ" if different else "the end is that of a run without a failure, bit for bit"
    trial.report(name, not different, f"{what}; {sum(len(one.lines) for one in started)} lines")


def begun(trial: Trial, name: str) -> list[Started]:
    """A run on two hosts that has trained for a moment."""
    started = trial.two_hosts(trial.train(name, trial.asked.engine, trial.asked.steps))
    while step_of(trial.folder / name) < 4 * CHECKPOINT:
        time.sleep(0.02)
    time.sleep(trial.random.uniform(0, 1))
    return started


def for_good(trial: Trial, name: str, *failures: Callable[[], None]) -> None:
    """A failure that does not end: prints what a person sees on each host."""
    started = begun(trial, name)
    since = time.monotonic()
    for failure in failures:
        failure()
    for one in started:
        one.wait(max(0.0, since + trial.asked.patience - time.monotonic()))
    for one in started:
        print(one.said(since), end="")
        status = one.wait(0)
        own = [f"after {at - since:.0f} s: {line}" for at, line in one.lines if "charloom: " in line]
        end = "did not end" if status is None else f"status {status} after {one.ended - since:.0f} s"
        trial.report(f"{name}, {one.name}", True, f"{end}; {len(one.lines)} lines; {' / '.join(own) or 'none of ours'}")
        one.end()
    lose_packets()
    lose_packets(False)
    unplug(plugged=True)


EXPERIMENTS: dict[str, Callable[[Trial], None]] = {
    "equal": equal,
    "kills": lambda trial: kills(trial, "kills", trial.one_host),
    "host-kills": lambda trial: kills(trial, "host-kills", trial.two_hosts),
    "down-5": lambda trial: interrupted(trial, "down-5", unplug, lambda: unplug(plugged=True)),
    "lost-5": lambda trial: interrupted(trial, "lost-5", lose_packets, lambda: lose_packets(False)),
    "down": lambda trial: for_good(trial, "down", unplug),
    "lost": lambda trial: for_good(trial, "lost", lose_packets),
    "off": lambda trial: for_good(trial, "off", lambda: switch_off(SECOND)),
    "off-down": lambda trial: for_good(trial, "off-down", unplug, lambda: switch_off(SECOND)),
    "off-first": lambda trial: for_good(trial, "off-first", lambda: switch_off(FIRST)),
    "back": back,
}


if __name__ == "__main__":
    sys.exit(main())
