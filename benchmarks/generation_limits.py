"""What limits generation: how fast weights can be read, other processes that want the cores, and the time to start.

On an LSTM 2 x 512, one sequence, rounds in turns, medians of ROUNDS:

1. Each precision: bytes/s of its weights, beside the rate at which the cores read as many bytes (`probes.py`). Where
   the two are equal, nothing else limits generation.
2. int8 alone, then while two other processes keep the cores busy.
3. `charloom generate` of 100 characters, from the process's start to its end, by the kernels and by NumPy.

    python benchmarks/generation_limits.py [seconds a round, 0.5]
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

ROUNDS = 7
SHAPE = (2, 512)
BYTES = {"fp32": 4, "bf16": 2, "int8": 1}


def in_turns(contestants: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """What each gave in each round, after one to warm up."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(-1, ROUNDS):
        for name, run in contestants.items():
            value = run()
            if number >= 0:
                found[name].append(value)
    return found


def ratio(above: Iterable[float], below: Iterable[float]) -> float:
    """The median of each round's ratio."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def bandwidth(seconds: float) -> None:
    """1."""
    made = architecture(*SHAPE)
    weights = parameters(made)
    # The first layer's input part is a table of sums, of which a character reads one row.
    read = sum(array.size for name, array in weights.items() if array.ndim == 2 and "ih_l0" not in name)
    read -= weights["embedding.weight"].size
    probes = Probes()
    for precision, size in BYTES.items():
        found = in_turns(
            {
                "generating": turn(ours(made, weights, 1, precision), seconds),
                "reading": turn(probes.reading(read * size), seconds),
            }
        )
        used = [rate * read * size for rate in found["generating"]]
        ours_gb, cores_gb = (statistics.median(rates) / 1e9 for rates in (used, found["reading"]))
        print(
            f"{precision}: {read * size / 2**20:.1f} MiB of weights, read at {ours_gb:.0f} GB/s; "
            f"the cores read so many at {cores_gb:.0f} GB/s: {ratio(used, found['reading']):.0%}"
        )


def turn(run: Callable[[float], float], seconds: float) -> Callable[[], float]:
    """A round of it."""
    return lambda: run(seconds)


def busy(seconds: float) -> None:
    """2."""
    made = architecture(*SHAPE)
    generate = ours(made, parameters(made), 1, "int8")

    def beside() -> float:
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
        try:
            time.sleep(0.2)  # until they have started
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
    """3."""
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
    """One after the other."""
    if without_kernels():
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.5
    bandwidth(seconds)
    busy(seconds)
    with tempfile.TemporaryDirectory() as folder:
        start(Path(folder))


if __name__ == "__main__":
    main()
