"""The speed of the NumPy engine in characters/s, compared with a classic loop and with PyTorch.

There are two ratios. Each compares the same model on both sides:

- To the classic program: an LSTM on one-hot vectors, trained by Adagrad on one sequence, one character at a time, 25
  characters a step, float64, like short teaching programs in NumPy. charloom: 32 sequences, 64 characters a step; and,
  to show the gain without batches, one sequence and 25 characters.
- To the PyTorch engine in fp32: LSTM, embedding 64, AdamW, no dropout, 32 sequences, 64 characters, 65 tokens.

The programs take turns in one process. A round's result is its total time; a ratio is the median over the rounds.

    python benchmarks/numpy_engine.py             all cores
    python benchmarks/numpy_engine.py 1           one thread on every side
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is loaded, as charloom does

import numpy as np

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.engines.engine import choose_engine, open_engine
from charloom.engines.initial import initial_parameters
from charloom.validation import validated

THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else None
ROUNDS = 7
SECONDS = 0.5  # the least time of a turn
V, RATE = 65, 0.001

Step = Callable[[], int]  # one training step; returns its number of characters


def classic(hidden: int, length: int = 25) -> Step:
    """The classic program: every character is a one-hot vector, and every time step is a separate product."""
    random = np.random.default_rng(0)
    ids = random.integers(0, V, 100_000)
    W = random.standard_normal((4 * hidden, hidden + V)) * 0.05  # all gates, over [h, x]
    Wy = random.standard_normal((V, hidden)) * 0.05
    b, by = np.zeros((4 * hidden, 1)), np.zeros((V, 1))
    weights = [W, Wy, b, by]
    memory = [np.zeros_like(p) for p in weights]
    carried = [np.zeros((hidden, 1)), np.zeros((hidden, 1))]
    place = 0

    def loss_and_gradients(inputs: np.ndarray, targets: np.ndarray) -> tuple[float, list[np.ndarray]]:
        zs, gates, ps = {}, {}, {}
        hs, cs = {-1: carried[0]}, {-1: carried[1]}
        loss = 0.0
        for t in range(len(inputs)):
            x = np.zeros((V, 1))
            x[inputs[t]] = 1
            zs[t] = np.vstack((hs[t - 1], x))
            a = W @ zs[t] + b
            i, f, o = (1 / (1 + np.exp(-a[n * hidden : (n + 1) * hidden])) for n in (0, 1, 3))
            g = np.tanh(a[2 * hidden : 3 * hidden])
            gates[t] = i, f, g, o
            cs[t] = f * cs[t - 1] + i * g
            hs[t] = o * np.tanh(cs[t])
            y = Wy @ hs[t] + by
            ps[t] = np.exp(y) / np.sum(np.exp(y))
            loss += -np.log(ps[t][targets[t], 0])
        dW, dWy, db, dby = (np.zeros_like(p) for p in weights)
        dh, dc = np.zeros_like(hs[0]), np.zeros_like(cs[0])
        for t in reversed(range(len(inputs))):
            dy = np.copy(ps[t])
            dy[targets[t]] -= 1
            dWy += dy @ hs[t].T
            dby += dy
            i, f, g, o = gates[t]
            squashed = np.tanh(cs[t])
            dh = Wy.T @ dy + dh
            dc = dh * o * (1 - squashed**2) + dc
            da = np.vstack(
                (dc * g * i * (1 - i), dc * cs[t - 1] * f * (1 - f), dc * i * (1 - g**2), dh * squashed * o * (1 - o))
            )
            dW += da @ zs[t].T
            db += da
            dh = (W.T @ da)[:hidden]
            dc = f * dc
        carried[:] = hs[len(inputs) - 1], cs[len(inputs) - 1]
        return loss, [dW, dWy, db, dby]

    def step() -> int:
        nonlocal place
        _, gradients = loss_and_gradients(ids[place : place + length], ids[place + 1 : place + length + 1])
        for n, d in enumerate(gradients):
            np.clip(d, -5, 5, out=d)
            memory[n] += d * d
            weights[n] -= 0.01 * d / np.sqrt(memory[n] + 1e-8)
        place = (place + length) % (len(ids) - 2 * length)
        return length

    return step


def ours(engine: str, hidden: int, input_kind: str, optimizer: str, rows: int = 32, length: int = 64) -> Step:
    """One of charloom's engines on random streams, with the state carried."""
    model = {"cell": "lstm", "nonlinearity": "tanh", "layers": 1, "hidden": hidden, "input": input_kind}
    shape = validated(Architecture, {**model, "embedding": 64, "vocabulary_size": V})
    how = {"steps": 1, "engine": engine, "optimizer": optimizer, "device": "cpu", "precision": "fp32"}
    settings = validated(TrainingSettings, {**how, "threads": THREADS, "dropout": 0.0})
    made = open_engine(choose_engine(settings, "lstm"), shape, settings)
    made.load(initial_parameters(shape, 0))
    ids = np.random.default_rng(0).integers(0, V, (rows, 20 * length + 1))
    state, turn = None, 0

    def step() -> int:
        nonlocal state, turn
        at, turn = turn % 20 * length, turn + 1
        _, count, state = made.step(ids[:, at : at + length], ids[:, at + 1 : at + length + 1], state, RATE)
        return count

    return step


def rates(programs: dict[str, Step]) -> dict[str, list[float]]:
    """Characters/s of each program in each round. Every program has one turn in each round."""
    for step in programs.values():
        for _ in range(3):
            step()
    found: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, step in programs.items():
            characters, began = 0, time.perf_counter()
            while time.perf_counter() - began < SECONDS:
                characters += step()
            found[name].append(characters / (time.perf_counter() - began))
    return found


def compare(title: str, programs: dict[str, Step]) -> None:
    """Prints each program's rate, and its ratio to the last program."""
    found = rates(programs)
    print(title)
    *_, peer = found
    for name, values in found.items():
        ratios = sorted(a / b for a, b in zip(values, found[peer], strict=True))
        spread = f" = {statistics.median(ratios):.2f} x ({ratios[0]:.2f} to {ratios[-1]:.2f})" if name != peer else ""
        print(f"  {name:<34} {statistics.median(values):>9,.0f} chars/s{spread}", flush=True)


def main() -> None:
    """Prints a block for each comparison."""
    choose_engine(TrainingSettings(engine="torch"), "lstm")  # before PyTorch is imported, as charloom does
    threads = "all cores" if THREADS is None else f"{THREADS} thread{'s' * (THREADS > 1)}"
    print(f"{threads}; medians of {ROUNDS} rounds in turns")
    for hidden in (100, 256):
        compare(
            f"LSTM {hidden}, one-hot, {V} tokens, Adagrad: to the classic loop",
            {
                "numpy engine, 32 sequences x 64": ours("numpy", hidden, "onehot", "adagrad"),
                "numpy engine, 1 sequence x 25": ours("numpy", hidden, "onehot", "adagrad", 1, 25),
                "classic loop, 1 sequence x 25": classic(hidden),
            },
        )
    for hidden in (128, 256, 512):
        compare(
            f"LSTM {hidden}, embedding 64, {V} tokens, AdamW, 32 sequences x 64, fp32: to the PyTorch engine",
            {engine: ours(engine, hidden, "embedding", "adamw") for engine in ("numpy", "torch")},
        )


if __name__ == "__main__":
    main()
