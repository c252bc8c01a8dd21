"""What writing in bf16 and int8 costs: bits per character on held-out text, beside those of float32.

Every run folder's best model reads the start of its own validation split, as STREAMS texts side by side, the state
carried, in each precision, by the kernels that `charloom generate` uses; float32 by NumPy too. The bound is on the
change: 0.0005 for bf16, 0.002 for int8.

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
    """A run folder of a model that has hardly learnt."""
    charloom.train("python-docs", out=folder / cell, cell=cell, minutes=0.5)
    return folder / cell


def measured(model: Model, ids_BT: Integers, precision: str) -> tuple[float, list[Integers]]:
    """Bits a token, and the likeliest token at each place."""
    chosen = kernels.chosen()
    assert chosen.module is not None, chosen.reason
    writer = NativeWriter(chosen.module, model.network, precision, cores(), chosen.tiles)
    state, nats, likeliest = model.network.initial_state(len(ids_BT)), 0.0, []
    for start in range(0, ids_BT.shape[1] - 1, BLOCK):
        targets_BT = ids_BT[:, start + 1 : start + BLOCK + 1]
        logits_BTV, state = writer.logits(ids_BT[:, start : start + targets_BT.shape[1]], state)
        nats += cross_entropy(logits_BTV.reshape(-1, logits_BTV.shape[2]), targets_BT.ravel())[0]
        likeliest.append(logits_BTV.argmax(axis=-1).ravel())
    return nats / ids_BT[:, 1:].size / math.log(2), likeliest


def numpys(model: Model, ids_BT: Integers) -> float:
    """Bits a token by the plain twin."""
    nats, done = 0.0, 1
    for logits_BTV, _ in model.network.blocks(ids_BT[:, :-1], model.network.initial_state(len(ids_BT))):
        targets_BT = ids_BT[:, done : done + logits_BTV.shape[1]]
        nats += cross_entropy(logits_BTV.reshape(-1, logits_BTV.shape[2]), targets_BT.ravel())[0]
        done += logits_BTV.shape[1]
    return nats / ids_BT[:, 1:].size / math.log(2)


def compare(run: Path) -> bool:
    """Prints a run's lines; whether its changes keep to the bounds."""
    model = Model.load(run)
    held_out = open_dataset(run / "data").ids("validation").view()
    length = min(STREAM, len(held_out) // STREAMS)
    ids_BT = np.array(held_out[: STREAMS * length], np.int64).reshape(STREAMS, length)
    exact, likeliest = measured(model, ids_BT, "fp32")
    made = model.architecture
    print(f"{run.name}: {made.cell} {made.layers} x {made.hidden}, {ids_BT[:, 1:].size:,} tokens held out")
    print(f"  fp32  {exact:.5f} bits/char; NumPy {numpys(model, ids_BT):.5f}")
    held = True
    for precision, bound in BOUNDS.items():
        bits, other = measured(model, ids_BT, precision)
        moved = np.mean(np.concatenate(likeliest) != np.concatenate(other))
        held = held and bits - exact <= bound
        print(f"  {precision}  {bits:.5f}, {bits - exact:+.5f} (bound {bound}); {moved:.2%} of the top guesses differ")
    return held


def main() -> None:
    """Measures the runs that are named, or two fresh ones; fails where a bound is broken."""
    if without_kernels():
        return
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(name) for name in sys.argv[1:]] or [trained(Path(folder), cell) for cell in ("lstm", "gru")]
        held = [compare(run) for run in runs]
    if not all(held):
        sys.exit("a precision changes more than it may")


if __name__ == "__main__":
    main()
