"""Several processes on one machine: their speed beside threads, and what `docs/scaling.py` needs to know.

    python benchmarks/processes.py [--rounds 5] [--seconds 1]

For each network the program prints

- tokens/s of one process with two threads, and of two processes with one thread each (what `torchrun
  --nproc-per-node 2` starts); they take turns, and the ratio is the median of those of the rounds;
- the time in which two processes add their gradients, as a part of their step, and bytes that each sends in a step;
- milliseconds of a step with 1 to 32 rows in one process with two threads, and the line through them: a fixed time (the
  optimizer, and preparing the weights) and a time for each row.

At the end it prints how fast two processes add arrays over the loopback interface: bytes/s and the time of a small one.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from probes import without_kernels
from training import machine

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.engines.engine import EngineChoice
from charloom.engines.follower import follow
from charloom.engines.initial import initial_parameters
from charloom.engines.shared import open_for, open_processes

if TYPE_CHECKING:
    from charloom.engines.torch.processes import Processes

NETWORKS = [(1, 256), (1, 512), (2, 512), (1, 1024)]  # layers, hidden units
VOCABULARY, BATCH, TIMES = 65, 32, 64
ROWS = (1, 2, 4, 8, 16, 32)
SIZES = (1, 2**18, 2**20, 2**22)  # floats to add
ADDITIONS = 30  # of each size, in a round


def main() -> None:
    """Runs all measurements; as a worker, one process of one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--worker", nargs=3, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker)
    elif not without_kernels():
        print(f"{machine()}; fp32; {TIMES} time steps; medians of {arguments.rounds}")
        for layers, hidden in NETWORKS:
            compare(layers, hidden, arguments.rounds, arguments.seconds)
        compare_sizes(arguments.rounds)


def compare(layers: int, hidden: int, rounds: int, seconds: float) -> None:
    """Prints all that is measured of one network."""
    with ExitStack() as stack:
        threads = stack.enter_context(Group(1, layers, hidden, 2))
        processes = stack.enter_context(Group(2, layers, hidden, 1))
        turns = [[group.turn(BATCH, seconds) for group in (threads, processes)] for _ in range(rounds + 1)][1:]
        steps = {rows: median(threads.turn(rows, seconds / 2)[0] for _ in range(rounds)) for rows in ROWS}
    one, two = (median(turn[n][0] for turn in turns) for n in range(2))
    share = median(both[1] / both[0] for _, both in turns)
    ratio = median(alone[0] / both[0] for alone, both in turns)
    size = architecture(layers, hidden).size
    row, fixed = np.polyfit(list(steps), list(steps.values()), 1) * 1000
    print(f"\nlstm {layers}x{hidden}, {size:,} parameters")
    print(f"  1 process, 2 threads   {BATCH * TIMES / one:>9,.0f} tokens/s")
    print(f"  2 processes, 1 thread  {BATCH * TIMES / two:>9,.0f} tokens/s; ratio {ratio:.2f}")
    print(f"  adding takes {share:.0%} of their step; each sends {4 * size / 1e6:.1f} MB")
    print("  a step, ms: " + ", ".join(f"{rows} rows {taken * 1000:.1f}" for rows, taken in steps.items()))
    print(f"  fixed {fixed:.2f} ms, and {row:.3f} ms for each row")


def compare_sizes(rounds: int) -> None:
    """Prints how fast two processes add arrays."""
    with Group(2, 0, 0, 1) as group:
        turns = [group.turn(0, 0) for _ in range(rounds + 1)][1:]
    times = [median(turn[n] for turn in turns) for n in range(len(SIZES))]
    print("\nadding on the loopback interface")
    for size, taken in zip(SIZES, times, strict=True):
        print(f"  {size:>9,} floats  {taken * 1000:8.3f} ms  {4 * size / taken / 1e9:6.2f} GB/s sent")


class Group:
    """Processes that compute only during their turns."""

    def __init__(self, count: int, layers: int, hidden: int, threads: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        command = [sys.executable, __file__, "--worker", *map(str, (layers, hidden, threads))]
        self._processes = []
        for rank in range(count):
            ranks = {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
            ranks["OMP_NUM_THREADS"] = "1"  # as torchrun sets it; the kernels have threads of their own
            environment = {**os.environ, **place, **ranks}
            self._processes.append(
                subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )

    def turn(self, rows: int, seconds: float) -> list[float]:
        """What the first process measures; see `work`."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{rows} {seconds}\n")
            process.stdin.flush()
        first = self._processes[0]
        assert first.stdout is not None
        while not (line := first.stdout.readline()).startswith("["):
            if not line:
                raise SystemExit("a process ended before its turn was over")
        return [float(taken) for taken in json.loads(line)]

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            with process:
                process.wait()


def work(layers: int, hidden: int, threads: int) -> None:
    """One process. For each line of stdin, the first prints [seconds of a step, seconds of its additions]; without a
    network, the seconds that adding takes for each of SIZES.
    """
    if not layers:
        from charloom.engines.torch.processes import Processes

        group = Processes()
        for _ in sys.stdin:
            print(json.dumps([added(group, size) for size in SIZES]), flush=True)
        group.close()
        return
    with open_processes() as processes:
        if processes and processes.rank:
            follow(processes, lambda: False)
        else:
            train(processes, layers, hidden, threads)


def added(processes: Processes, size: int) -> float:
    """Seconds in which all processes add arrays of this many floats."""
    array, times = np.zeros(size, np.float32), []
    for _ in range(ADDITIONS):
        start = time.perf_counter()
        processes.add([array])
        times.append(time.perf_counter() - start)
    return median(times)


def train(processes: Processes | None, layers: int, hidden: int, threads: int) -> None:
    """Trains in each turn, and prints the medians."""
    adding: list[float] = []
    if processes:
        add = processes.add

        def timed(*given: Any) -> list[float]:
            start = time.perf_counter()
            sums = add(*given)
            adding[-1] += time.perf_counter() - start
            return sums

        processes.add = timed  # type: ignore[assignment, method-assign]
    settings = TrainingSettings(steps=1, dropout=0.0, threads=threads)
    shape = architecture(layers, hidden)
    engine = open_for(processes, EngineChoice("native"), shape, settings)
    engine.load(initial_parameters(shape, 1))
    for line in sys.stdin:
        rows, seconds = int(line.split()[0]), float(line.split()[1])
        inputs_BT, targets_BT = np.random.default_rng(0).integers(0, VOCABULARY, (2, rows, TIMES))
        state, steps = None, list[float]()
        adding.clear()
        while sum(steps) < seconds or len(steps) < 4:
            start = time.perf_counter()
            adding.append(0.0)
            _, _, state = engine.step(inputs_BT, targets_BT, state, 1e-3)
            steps.append(time.perf_counter() - start)
        print(json.dumps([median(steps[1:]), median(adding[1:])]), flush=True)


def architecture(layers: int, hidden: int) -> Architecture:
    """An LSTM with one-hot inputs."""
    return Architecture(
        cell="lstm",
        nonlinearity="tanh",
        layers=layers,
        hidden=hidden,
        input="onehot",
        embedding=1,
        vocabulary_size=VOCABULARY,
    )


if __name__ == "__main__":
    main()
