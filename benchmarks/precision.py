"""The loss of inference in bf16 and int8, in bits per character on held-out text, compared with float32.

The best model of every run folder reads the start of its validation split in each precision, as STREAMS sequences with
the state carried, on the kernels of `charloom generate`; in float32 also on NumPy. The limit of the increase is
0.0005 for bf16 and 0.002 for int8.

    python benchmarks/precision.py [RUN_FOLDER …]

Without run folders, it trains an LSTM and a GRU on `python-docs` first, which needs no network, for half a minute each.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path

import numpy as np
from probes import without_kernels

import charloom
from charloom import kernels
from charloom.data.dataset import open_dataset
from charloom.inference.native_backend import NativeWriter
from charloom.inference.network import Integers
from charloom.kernels import cores
from charloom.model import Model
from charloom.score import cross_entropy

STREAMS = 16
STREAM = 5_000  # tokens of each, or fewer
BLOCK = 200
BOUNDS = {"bf16": 0.0005, "int8": 0.002}  # bits per character


def trained(folder: Path, cell: str) -> Path:
    """A run folder with a model trained for half a minute."""
    charloom.train("python-docs", out=folder / cell, cell=cell, minutes=0.5)
    return folder / cell


def measured(model: Model, ids_BT: Integers, precision: str) -> tuple[float, list[Integers]]:
    """Bits per token, and the token with the highest logit at each position."""
    chosen = kernels.chosen()
    assert chosen.module is not None, chosen.reason
    writer = NativeWriter(chosen.module, model.network, precision, cores(), chosen.tiles)
    state, nats, greedy = model.network.initial_state(len(ids_BT)), 0.0, []
    for start in range(0, ids_BT.shape[1] - 1, BLOCK):
        targets_BT = ids_BT[:, start + 1 : start + BLOCK + 1]
        logits_BTV, state = writer.logits(ids_BT[:, start : start + targets_BT.shape[1]], state)
        nats += cross_entropy(logits_BTV.reshape(-1, logits_BTV.shape[2]), targets_BT.ravel())[0]
        greedy.append(logits_BTV.argmax(axis=-1).ravel())
    return nats / ids_BT[:, 1:].size / math.log(2), greedy


def numpy_bits(model: Model, ids_BT: Integers) -> float:
    """Bits per token, by NumPy."""
    nats, done = 0.0, 1
    for logits_BTV, _ in model.network.blocks(ids_BT[:, :-1], model.network.initial_state(len(ids_BT))):
        targets_BT = ids_BT[:, done : done + logits_BTV.shape[1]]
        nats += cross_entropy(logits_BTV.reshape(-1, logits_BTV.shape[2]), targets_BT.ravel())[0]
        done += logits_BTV.shape[1]
    return nats / ids_BT[:, 1:].size / math.log(2)


def compare(run: Path) -> bool:
    """Prints the results of a run; returns whether all increases are within their limits."""
    model = Model.load(run)
    held_out = open_dataset(run / "data").ids("validation").view()
    length = min(STREAM, len(held_out) // STREAMS)
    ids_BT = np.array(held_out[: STREAMS * length], np.int64).reshape(STREAMS, length)
    exact, greedy = measured(model, ids_BT, "fp32")
    made = model.architecture
    print(f"{run.name}: {made.cell} {made.layers} x {made.hidden}, {ids_BT[:, 1:].size:,} tokens held out")
    print(f"  fp32  {exact:.5f} bits/char; NumPy {numpy_bits(model, ids_BT):.5f}")
    within = True
    for precision, bound in BOUNDS.items():
        bits, other = measured(model, ids_BT, precision)
        moved = np.mean(np.concatenate(greedy) != np.concatenate(other))
        within = within and bits - exact <= bound
        print(f"  {precision}  {bits:.5f}, {bits - exact:+.5f} (limit {bound}), {moved:.2%} of greedy tokens differ")
    return within


def main() -> None:
    """Measures the given runs, or two new ones; fails if a limit is exceeded."""
    if without_kernels():
        return
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(name) for name in sys.argv[1:]] or [trained(Path(folder), cell) for cell in ("lstm", "gru")]
        within = [compare(run) for run in runs]
    if not all(within):
        sys.exit("a precision exceeds its limit")


if __name__ == "__main__":
    main()
