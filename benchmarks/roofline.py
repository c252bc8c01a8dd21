"""Training on a roofline: the kernels compared with the processor's peak arithmetic and memory bandwidth.

    python benchmarks/roofline.py [picture.svg]

`probes.py` measures the roof: arithmetic in registers, and how fast the cores read data outside their own caches. Then
each network of `training.py` trains for some time. All take turns; results are medians of ROUNDS. Arithmetic counts the
matrix products: six operations per weight and token. Traffic is the least that must pass in and out of a core's own
cache, because a batch is many times as large: saved activations, gradients of gates, hidden values and input sums. If a
layer's weights are larger than the cache, each step also reads them.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from probes import Probes, without_kernels
from training import ROWS, VOCABULARY, Worker, name_of

from charloom.kernels import chosen, cores

ROUNDS, SECONDS = 5, 0.5
LARGE = 1 << 26  # bytes: more than the cores' own caches; about the size of a batch's data
CACHE = 2 << 20  # bytes of a core's own cache; only this value is assumed, not measured
# The targets of the share of the arithmetic, in fp32, for processors without AVX-512.
AVX2_TARGETS = {("lstm", 2, 128): 0.68, ("lstm", 1, 256): 0.68, ("lstm", 2, 512): 0.75, ("lstm", 1, 1024): 0.75}
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
SAVED = {"lstm": 6, "gru": 4, "rnn": 2}  # saved activations per unit and token
PLACES = {
    "lstm": (6, 3, "left"),
    "gru": (6, -10, "left"),
    "rnn": (-6, -9, "right"),
}  # offset and side of labels


def operations(cell: str, layers: int, hidden: int, embedding: int) -> int:
    """Operations per token: for each weight one multiplication and one addition forward, and twice as many backward."""
    gates = GATES[cell] * hidden
    return 6 * (gates * hidden * (2 * layers - 1) + hidden * VOCABULARY + gates * embedding)


def traffic(cell: str, layers: int, hidden: int, batch: int, size: int) -> float:
    """Bytes per token. A number has `size` bytes."""
    gates, total = GATES[cell], 0.0
    for layer in range(layers):
        below = layer > 0
        values = 2 * SAVED[cell]  # written, and read in the backward pass
        values += 2 * gates * (1 + below)  # gradients: written; read for each weight matrix and the layer below
        values += 2 * gates * below  # input sums, written and read
        values += 3 + 2  # hidden values: written, read above, read for the gradient; their gradient written and read
        total += values * hidden * size
        weights = gates * hidden * hidden * size
        if weights > CACHE:
            total += 2 * weights * cores() / batch  # by each core at each step, forward and backward
    return total


def main() -> None:
    """Measures, prints and draws the picture."""
    if without_kernels():
        return
    runs: dict[str, Callable[[], float]] = {}
    probes = Probes()
    precisions = probes.precisions
    rows = [(row, precision) for row in ROWS for precision in precisions]
    for precision in precisions:
        runs[precision] = partial(probes.operations, precision, SECONDS)
    runs["reading"] = partial(probes.reading(LARGE), SECONDS)
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
    points: dict[str, list[tuple[float, float, str]]] = {precision: [] for precision in precisions}
    of_each = ", ".join(f"{speeds[precision] / 1e9:.0f} GFLOP/s in {precision}" for precision in precisions)
    print(f"registers: {of_each}{'' if 'bf16' in precisions else '; without AMX, bf16 is not measured'}")
    print(f"beyond the cores' own caches: {speeds['reading'] / 1e9:.1f} GB/s")
    for row, precision in rows:
        cell, layers, hidden, batch, _, embedding = row[:6]
        a_character = operations(cell, layers, hidden, embedding)
        intensity = a_character / traffic(cell, layers, hidden, batch, 4 if precision == "fp32" else 2)
        reached = speeds[f"{name_of(row)}, {precision}"] * a_character
        roof = min(speeds[precision], intensity * speeds["reading"])
        points[precision].append((intensity, reached, f"{cell} {layers}×{hidden}"))
        print(
            f"{name_of(row)}, {precision}: {intensity:.0f} operations a byte, {reached / 1e9:.0f} GFLOP/s, "
            f"{reached / roof:.0%} of the roof there, {reached / speeds[precision]:.0%} of the arithmetic"
            f"{judged(row, reached / speeds[precision])}"
        )
    if len(sys.argv) > 1:
        draw(Path(sys.argv[1]), speeds, points)


def judged(row: Any, share: float) -> str:
    """Whether a share of the arithmetic reaches its target; empty without a target."""
    least = 0 if chosen().name in ("amx", "avx512") else AVX2_TARGETS.get(row[:3], 0)
    return f" (at least {least:.0%}: {'reached' if share >= least else 'NOT reached'})" if least else ""


def draw(picture: Path, speeds: dict[str, float], points: dict[str, list[tuple[float, float, str]]]) -> None:
    """Draws the roof of each precision and the networks below it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    across = np.geomspace(4, 1000, 200)
    for precision, colour in zip(points, ("C0", "C1"), strict=False):
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
