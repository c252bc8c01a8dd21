"""Training on a roofline: what the kernels reach of the processor's arithmetic and of its memory.

    python benchmarks/roofline.py [picture.svg]

Small C programs, compiled here, measure the roof: multiplications and additions in registers, in float32 and, by AMX,
in bfloat16, and how fast all cores read what their own caches do not hold. Then each network of `training.py` trains
for a while; all of this takes turns, medians of ROUNDS count. Arithmetic is that of the products, six operations a
weight and character. Traffic is what must at least pass in and out of a core's own cache, since a batch's sequences are
many times as large: what is kept for the way back, gradients of gates, hidden values, input sums, and the weights of a
layer at each step where those are larger than that cache.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from training import ROWS, SYMBOLS, Worker, name_of

from charloom.kernels import chosen, cores

ROUNDS, SECONDS = 5, 0.5
LARGE = 1 << 26  # bytes, more than the cores' own caches hold: about what a batch's sequences are
CACHE = 2 << 20  # bytes of a core's own cache: this figure alone is assumed, not measured
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
KEPT = {"lstm": 6, "gru": 4, "rnn": 2}  # numbers a unit and character
PLACES = {"lstm": (6, 3, "left"), "gru": (6, -10, "left"), "rnn": (-6, -9, "right")}  # of the picture's labels
PROBES = """
#include <stddef.h>
#include <stdint.h>
#if defined(__AMX_BF16__)
#include <immintrin.h>
#endif

typedef float vector __attribute__((vector_size(64)));

float sink_of_floats;

/* operations done */
double fp32(void) {
    vector sums[12], x = {0}, y = {0};
#pragma GCC unroll 12
    for (int k = 0; k < 12; k++) sums[k] = x + (float)k; /* were they equal, a compiler would compute one for all */
    const long turns = 1 << 20;
    for (long n = 0; n < turns; n++) {
        __asm__ volatile("" : "+v"(x), "+v"(y));
#pragma GCC unroll 12
        for (int k = 0; k < 12; k++) sums[k] = sums[k] * x + y;
    }
#pragma GCC unroll 12
    for (int k = 0; k < 12; k++) y += sums[k];
    sink_of_floats = y[0];
    return turns * 12.0 * 32;
}

double bf16(void) {
#if defined(__AMX_BF16__)
    struct __attribute__((aligned(64))) {
        uint8_t palette, rest[15];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shapes = {1};
    static float ones[2][256];
    const long turns = 1 << 16;
    for (int k = 0; k < 8; k++) shapes.bytes[k] = 64, shapes.rows[k] = 16;
    for (int k = 0; k < 256; k++) ones[0][k] = 1.1f, ones[1][k] = -0.7f;
    __asm__ volatile("" ::"r"(&shapes) : "memory");
    _tile_loadconfig(&shapes);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, ones[0], 64);
    _tile_loadd(5, ones[1], 64);
    _tile_loadd(6, ones[0], 64);
    _tile_loadd(7, ones[1], 64);
    for (long n = 0; n < turns; n++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return turns * 4.0 * 16 * 16 * 32 * 2;
#else
    return 0;
#endif
}

uint64_t sink;
double memory(const uint64_t* from, size_t count) {
    uint64_t sums[64] = {0};
    for (size_t i = 0; i + 64 <= count; i += 64)
        for (int k = 0; k < 64; k++) sums[k] ^= from[i + k];
    for (int k = 0; k < 64; k++) sink ^= sums[k];
    return count * 8.0;
}
"""


def probes(folder: Path) -> ctypes.CDLL:
    """The C programs; ctypes lets the other threads run meanwhile."""
    source, library = folder / "probes.c", folder / "probes.so"
    source.write_text(PROBES)
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", library, source], check=True)
    found = ctypes.CDLL(str(library))
    for probe in (found.fp32, found.bf16, found.memory):
        probe.restype = ctypes.c_double
    found.memory.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return found


def on_all_cores(work: Callable[[int], float]) -> float:
    """What all cores together did a second, each for SECONDS."""

    def repeat(core: int) -> float:
        done, start = 0.0, perf_counter()
        while perf_counter() - start < SECONDS:
            done += work(core)
        return done / (perf_counter() - start)

    with ThreadPoolExecutor(cores()) as threads:
        return sum(threads.map(repeat, range(cores())))


def operations(cell: str, layers: int, hidden: int, embedding: int) -> int:
    """Of one character: a multiplication and an addition for each weight, forward, and twice as many back."""
    gates = GATES[cell] * hidden
    return 6 * (gates * hidden * (2 * layers - 1) + hidden * SYMBOLS + gates * embedding)


def traffic(cell: str, layers: int, hidden: int, batch: int, size: int) -> float:
    """Bytes of one character, in numbers of so many bytes."""
    gates, total = GATES[cell], 0.0
    for layer in range(layers):
        below = layer > 0
        numbers = 2 * KEPT[cell]  # written, and read on the way back
        numbers += gates * (
            2 + 2 * below
        )  # gates' gradients: written; read for each weight matrix and for what goes down
        numbers += 2 * gates * below  # input sums, written and read
        numbers += 3 + 2  # hidden values: written, read above, read for the gradient; their gradient written and read
        total += numbers * hidden * size
        weights = gates * hidden * hidden * size
        if weights > CACHE:
            total += 2 * weights * cores() / batch  # by each core at each step, there and back
    return total


def main() -> None:
    """Measures, prints and draws."""
    rows = [(row, precision) for row in ROWS for precision in ("fp32", "bf16")]
    runs: dict[str, Callable[[], float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        assert chosen().module is not None, chosen().reason  # asking also gets the leave to use AMX
        library = probes(Path(folder))
        shares = [np.ones(LARGE // 8 // cores(), np.uint64) for _ in range(cores())]
        runs["fp32"] = lambda: on_all_cores(lambda _: library.fp32())
        runs["bf16"] = lambda: on_all_cores(lambda _: library.bf16())
        runs["reading"] = lambda: on_all_cores(lambda core: library.memory(shares[core].ctypes.data, shares[core].size))
        workers = [Worker(f"kernels-{precision}", row) for row, precision in rows]
        for (row, precision), worker in zip(rows, workers, strict=True):
            runs[f"{name_of(row)}, {precision}"] = partial(worker.turn, SECONDS)
        found: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(-1, ROUNDS):
            for name, run in runs.items():
                value = run()
                if number >= 0:
                    found[name].append(value)
        for worker in workers:
            worker.close()
    speeds = {name: statistics.median(values) for name, values in found.items()}
    points: dict[str, list[tuple[float, float, str]]] = {"fp32": [], "bf16": []}
    print(f"registers: {speeds['fp32'] / 1e9:.0f} GFLOP/s in fp32, {speeds['bf16'] / 1e9:.0f} in bf16 by AMX")
    print(f"beyond the cores' own caches: {speeds['reading'] / 1e9:.1f} GB/s")
    for row, precision in rows:
        cell, layers, hidden, batch, _, embedding, _ = row
        a_character = operations(cell, layers, hidden, embedding)
        intensity = a_character / traffic(cell, layers, hidden, batch, 4 if precision == "fp32" else 2)
        reached = speeds[f"{name_of(row)}, {precision}"] * a_character
        roof = min(speeds[precision], intensity * speeds["reading"])
        points[precision].append((intensity, reached, f"{cell} {layers}×{hidden}"))
        print(
            f"{name_of(row)}, {precision}: {intensity:.0f} operations a byte, {reached / 1e9:.0f} GFLOP/s, "
            f"{reached / roof:.0%} of the roof there, {reached / speeds[precision]:.0%} of the arithmetic"
        )
    if len(sys.argv) > 1:
        draw(Path(sys.argv[1]), speeds, points)


def draw(picture: Path, speeds: dict[str, float], points: dict[str, list[tuple[float, float, str]]]) -> None:
    """The roof of each precision, and the networks below it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    across = np.geomspace(4, 1000, 200)
    for precision, colour in (("fp32", "C0"), ("bf16", "C1")):
        roof = np.minimum(speeds[precision], across * speeds["reading"]) / 1e9
        axes.loglog(across, roof, colour, label=f"{precision}: {speeds[precision] / 1e9:.0f} GFLOP/s at most")
        for intensity, reached, name in points[precision]:
            axes.loglog([intensity], [reached / 1e9], colour, marker="o", linestyle="none")
            aside, down, side = PLACES[name.partition(" ")[0]]
            axes.annotate(
                name,
                (intensity, reached / 1e9),
                (aside, down),
                textcoords="offset points",
                fontsize=8,
                color=colour,
                horizontalalignment=side,
            )
    axes.set_xlabel(f"operations a byte from beyond a core's own cache (read at {speeds['reading'] / 1e9:.0f} GB/s)")
    axes.set_ylabel("GFLOP/s of the products")
    axes.set_title(f"Training on {cores()} cores: kernels below the processor's roof")
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture)


if __name__ == "__main__":
    main()
