"""The loss of inference in bf16 and int8, in bits per character on held-out text, compared with float32.

The best model of each run folder reads the start of its validation split in each precision, as STREAMS sequences with
the state carried. It uses the kernels of `charloom generate`, and in float32 also NumPy. The increase must be at most
0.0005 for bf16 and 0.002 for int8.

    python benchmarks/precision.py [RUN_FOLDER …]

Without run folders, it first trains an LSTM and a GRU on `python-docs` for half a minute each, without the network.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from probes import without_kernels

import charloom
from charloom import kernels
from charloom.cells import Integers
from charloom.data.dataset import open_dataset
from charloom.inference.native_backend import NativeBackend
from charloom.inference.numpy_backend import NumpyBackend
from charloom.inference.rows import Backend
from charloom.kernels import cores
from charloom.model import Model
from charloom.score import cross_entropy

STREAMS = 16
STREAM = 5_000  # most tokens of each stream
BLOCK = 200
BOUNDS = {"bf16": 0.0005, "int8": 0.002}  # bits per character


def trained(folder: Path, cell: Literal["lstm", "gru"]) -> Path:
    """A run folder with a model trained for half a minute."""
    charloom.train("python-docs", out=folder / cell, cell=cell, minutes=0.5)
    return folder / cell


def measured(backend: Backend, ids_BT: Integers) -> tuple[float, list[Integers]]:
    """Bits per token, and the token with the highest logit at each position."""
    state, nats, greedy = backend.initial_state().rows(np.zeros(len(ids_BT), np.intp)), 0.0, []
    for start in range(0, ids_BT.shape[1] - 1, BLOCK):
        targets_BT = ids_BT[:, start + 1 : start + BLOCK + 1]
        logits_BTV, state = backend.logits(ids_BT[:, start : start + targets_BT.shape[1]], state)
        nats += cross_entropy(logits_BTV.reshape(-1, logits_BTV.shape[2]), targets_BT.ravel())[0]
        greedy.append(logits_BTV.argmax(axis=-1).ravel())
    return nats / ids_BT[:, 1:].size / math.log(2), greedy


def native(model: Model, precision: str) -> Backend:
    """The kernels."""
    chosen = kernels.chosen()
    assert chosen.module is not None, chosen.reason
    return NativeBackend(chosen.module, model.weights, precision, cores(), chosen.tiles)


def compare(run: Path) -> bool:
    """Prints the results of a run; returns whether all increases are within their limits."""
    model = Model.load(run)
    held_out = open_dataset(run / "data").ids("validation").view()
    length = min(STREAM, len(held_out) // STREAMS)
    ids_BT = np.array(held_out[: STREAMS * length], np.int64).reshape(STREAMS, length)
    exact, greedy = measured(native(model, "fp32"), ids_BT)
    made = model.architecture
    print(f"{run.name}: {made.cell} {made.layers} x {made.hidden}, {ids_BT[:, 1:].size:,} tokens held out")
    print(f"  fp32  {exact:.5f} bits/char; NumPy {measured(NumpyBackend(model.weights), ids_BT)[0]:.5f}")
    within = True
    for precision, bound in BOUNDS.items():
        bits, other = measured(native(model, precision), ids_BT)
        moved = np.mean(np.concatenate(greedy) != np.concatenate(other))
        within = within and bits - exact <= bound
        print(f"  {precision}  {bits:.5f}, {bits - exact:+.5f} (limit {bound}), {moved:.2%} of greedy tokens differ")
    return within


def main() -> None:
    """Measures the given runs, or two new ones; fails if a limit is exceeded."""
    if without_kernels():
        return
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(name) for name in sys.argv[1:]]
        runs = runs or [trained(Path(folder), "lstm"), trained(Path(folder), "gru")]
        within = [compare(run) for run in runs]
    if not all(within):
        sys.exit("a precision exceeds its limit")


if __name__ == "__main__":
    main()
