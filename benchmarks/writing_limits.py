"""What bounds writing: how fast weights can be read, other processes that want the cores, and the time to start.

On an LSTM 2 x 512, one text, rounds in turns, medians of ROUNDS:

1. Each precision: its weights' bytes a second, beside what the cores read at best. A small C program, compiled here,
   reads as many bytes again and again, a share a thread: what reaches that is bound by nothing else.
2. int8 alone, then while two processes do nothing but count.
3. `charloom generate` of 100 characters, from the process's start to its end, by the kernels and by NumPy.

    python benchmarks/writing_limits.py [seconds a round, 0.5]
"""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from writing import SYMBOLS, architecture, ours, parameters

from charloom.checkpoint import ModelFolder, save_model
from charloom.kernels import cores
from charloom.text.vocabulary import Vocabulary

ROUNDS = 7
SHAPE = (2, 512)
BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
READER = """
#include <stdint.h>
#include <stddef.h>
uint64_t read_all(const uint64_t* from, size_t count, size_t times) {
    uint64_t sums[64] = {0};
    for (size_t n = 0; n < times; n++) {
        for (size_t i = 0; i + 64 <= count; i += 64)
            for (int k = 0; k < 64; k++) sums[k] ^= from[i + k];
        __asm__ volatile("" ::: "memory");
    }
    uint64_t all = 0;
    for (int k = 0; k < 64; k++) all ^= sums[k];
    return all;
}
"""


def compiled(folder: Path) -> ctypes.CDLL:
    """The reader; ctypes lets other threads run while it reads."""
    source, library = folder / "reader.c", folder / "reader.so"
    source.write_text(READER)
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", library, source], check=True)
    found = ctypes.CDLL(str(library))
    found.read_all.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    found.read_all.restype = ctypes.c_uint64
    return found


def reading(reader: ctypes.CDLL, size: int) -> Callable[[float], float]:
    """Bytes a second that all cores read of so many, each its share."""
    shares = [np.ones(size // 8 // cores(), np.uint64) for _ in range(cores())]

    def read(seconds: float) -> float:
        done = [0.0] * len(shares)

        def work(number: int) -> None:
            share, start = shares[number], time.perf_counter()
            times = max(1, 2**24 // share.nbytes)  # a call is long beside what Python takes for it
            while (spent := time.perf_counter() - start) < seconds:
                reader.read_all(share.ctypes.data, share.size, times)
                done[number] += times * share.nbytes
            done[number] /= spent

        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(shares))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done)

    return read


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


def bandwidth(seconds: float, folder: Path) -> None:
    """1."""
    made = architecture(*SHAPE)
    weights = parameters(made)
    # The first layer's input part is a table of sums, of which a character reads one row.
    read = sum(array.size for name, array in weights.items() if array.ndim == 2 and "ih_l0" not in name)
    read -= weights["embedding.weight"].size
    reader = compiled(folder)
    for precision, size in BYTES.items():
        found = in_turns(
            {
                "writing": turn(ours(made, weights, 1, precision), seconds),
                "reading": turn(reading(reader, read * size), seconds),
            }
        )
        written = [rate * read * size for rate in found["writing"]]
        ours_gb, cores_gb = (statistics.median(rates) / 1e9 for rates in (written, found["reading"]))
        print(
            f"{precision}: {read * size / 2**20:.1f} MiB of weights, read at {ours_gb:.0f} GB/s; "
            f"the cores read so many at {cores_gb:.0f} GB/s: {ratio(written, found['reading']):.0%}"
        )


def turn(run: Callable[[float], float], seconds: float) -> Callable[[], float]:
    """A round of it."""
    return lambda: run(seconds)


def busy(seconds: float) -> None:
    """2."""
    made = architecture(*SHAPE)
    write = ours(made, parameters(made), 1, "int8")

    def beside() -> float:
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
        try:
            time.sleep(0.2)  # until they have started
            return write(seconds)
        finally:
            for other in others:
                other.kill()
                other.wait()

    found = in_turns({"alone": turn(write, seconds), "beside": beside})
    alone, between = (statistics.median(found[name]) for name in ("alone", "beside"))
    loss = ratio(found["alone"], found["beside"])
    print(f"int8 alone {alone:,.0f} characters/s, beside two busy processes {between:,.0f}: {loss:.1f} times slower")


def start(folder: Path) -> None:
    """3."""
    made = architecture(*SHAPE)
    characters = tuple(map(chr, range(32, 32 + SYMBOLS)))
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
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.5
    with tempfile.TemporaryDirectory() as folder:
        bandwidth(seconds, Path(folder))
        busy(seconds)
        start(Path(folder))


if __name__ == "__main__":
    main()
