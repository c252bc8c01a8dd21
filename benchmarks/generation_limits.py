"""What limits generation: the speed of reading weights, other processes on the cores, and the start time.

The network is an LSTM with one sequence, 2 x 512 if nothing else is said. Programs take turns; results are medians of
ROUNDS.

1. For each precision, and for 2 x 1024 in fp32: bytes/s of the weights, and the rate at which the cores read as many
   bytes (`probes.py`). If they are equal, nothing else limits generation.
2. int8 alone, then with two other processes that keep the cores busy.
3. The time of `charloom generate` for 100 characters, with process start and end, with the kernels and with NumPy.

    python benchmarks/generation_limits.py [seconds for each round, 0.5]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from generation import VOCABULARY, architecture, ours, parameters
from probes import Probes, without_kernels

from charloom.checkpoint import ModelFolder, save_model
from charloom.data.vocabulary import Vocabulary
from charloom.kernels import cores

ROUNDS = 7
SHAPE = (2, 512)
BYTES = {"fp32": 4, "bf16": 2, "int8": 1}


def in_turns(contestants: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """The results of each program in each round, without a first round that warms up."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(-1, ROUNDS):
        for name, run in contestants.items():
            value = run()
            if number >= 0:
                found[name].append(value)
    return found


def ratio(above: Iterable[float], below: Iterable[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def bandwidth(shape: tuple[int, int], precision: str, probes: Probes, seconds: float) -> None:
    """Part 1: weights and memory bandwidth."""
    made = architecture(*shape)
    weights = parameters(made)
    # The first layer's input product is a table of sums. Each character reads one row of it.
    read = sum(array.size for name, array in weights.items() if array.ndim == 2 and "ih_l0" not in name)
    read = (read - weights["embedding.weight"].size) * BYTES[precision]
    found = in_turns(
        {
            "generating": turn(ours(made, weights, 1, precision, cores()), seconds),
            "reading": turn(probes.reading(read), seconds),
        }
    )
    used = [rate * read for rate in found["generating"]]
    ours_gb, cores_gb = (statistics.median(rates) / 1e9 for rates in (used, found["reading"]))
    print(
        f"{shape[0]} x {shape[1]}, {precision}: {read / 2**20:.1f} MiB of weights, read at {ours_gb:.0f} GB/s; "
        f"the cores read so many at {cores_gb:.0f} GB/s: {ratio(used, found['reading']):.0%}"
    )


def turn(run: Callable[[float], float], seconds: float) -> Callable[[], float]:
    """A function without arguments that runs one round."""
    return lambda: run(seconds)


def busy(seconds: float) -> None:
    """Part 2: busy cores."""
    made = architecture(*SHAPE)
    generate = ours(made, parameters(made), 1, "int8", cores())

    def beside() -> float:
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
        try:
            time.sleep(0.2)  # so that the processes have started
            return generate(seconds)
        finally:
            for other in others:
                other.kill()
                other.wait()

    found = in_turns({"alone": turn(generate, seconds), "beside": beside})
    alone, between = (statistics.median(found[name]) for name in ("alone", "beside"))
    loss = ratio(found["alone"], found["beside"])
    print(f"int8 alone {alone:,.0f} characters/s, beside two busy processes {between:,.0f}: {loss:.1f} times slower")


def start(folder: Path) -> None:
    """Part 3: the time to start."""
    made = architecture(*SHAPE)
    characters = tuple(map(chr, range(32, 32 + VOCABULARY)))
    save_model(folder / "model", ModelFolder(made, Vocabulary("characters", characters), parameters(made)))

    def generate(**environment: str) -> Callable[[], float]:
        charloom = [sys.executable, "-m", "charloom"]
        command = [*charloom, "generate", str(folder / "model"), "--length", "100", "--seed", "1"]

        def run() -> float:
            started = time.perf_counter()
            subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)
            return time.perf_counter() - started

        return run

    found = in_turns({"kernels": generate(), "NumPy": generate(CHARLOOM_KERNELS="off")})
    kernels, plain = (statistics.median(found[name]) * 1000 for name in ("kernels", "NumPy"))
    share = ratio(found["kernels"], found["NumPy"])
    print(
        f"100 characters from start to end: {kernels:.0f} ms by the kernels, {plain:.0f} ms by NumPy: {share:.2f} of it"
    )


def main() -> None:
    """Runs the three parts."""
    if without_kernels():
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.5
    probes = Probes()
    for precision in BYTES:
        bandwidth(SHAPE, precision, probes, seconds)
    bandwidth((2, 1024), "fp32", probes, seconds)
    busy(seconds)
    with tempfile.TemporaryDirectory() as folder:
        start(Path(folder))


if __name__ == "__main__":
    main()
