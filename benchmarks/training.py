"""Training speed in tokens/s: charloom's kernels against PyTorch, and against Keras if TensorFlow is installed.

    python benchmarks/training.py [--rounds 5] [--seconds 1] [--only 2x128]
    python benchmarks/training.py --python

Each program is a process that builds its network once and waits for its turn. Programs take turns of one second, so
that other load on the machine affects all equally. A speed is the median of the rounds; a ratio is the median
of the ratios of the rounds.

The peers are ordinary programs with the fastest options for a CPU: all cores, the fused AdamW, bf16 by autocast. All
programs make the same step: random ids, loss at every token, clipping at norm 5, AdamW, the state carried on. Keras
runs `fit` on its TensorFlow backend, compiled, with the data in memory.

With `--python` the program prints the overhead of a step of the first network: the time without arithmetic.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np
from probes import without_kernels

from charloom.kernels import chosen

VOCABULARY = 83
Targets = dict[tuple[str, str], float]
# cell, layers, hidden, batch, steps, embedding (0: one-hot), targets of the ratios to peers with AVX-512
ROWS: list[tuple[str, int, int, int, int, int, Targets]] = [
    ("lstm", 2, 128, 64, 50, 0, {("bf16", "torch-fp32"): 5, ("bf16", "torch-bf16"): 3, ("fp32", "torch-fp32"): 2}),
    (
        "lstm",
        1,
        256,
        32,
        64,
        0,
        {("bf16", "torch-fp32"): 4.5, ("bf16", "torch-bf16"): 2.5, ("fp32", "torch-fp32"): 1.5},
    ),
    (
        "lstm",
        2,
        512,
        128,
        100,
        0,
        {("bf16", "torch-fp32"): 4.6, ("bf16", "torch-bf16"): 2, ("fp32", "torch-fp32"): 1.4},
    ),
    ("lstm", 1, 1024, 64, 100, 0, {("bf16", "torch-fp32"): 4.5, ("bf16", "torch-bf16"): 1.8}),
    ("gru", 1, 64, 32, 64, 32, {("best", "torch-fp32"): 6}),
    ("gru", 1, 256, 32, 64, 0, {("best", "torch-best"): 2}),
    ("rnn", 1, 256, 32, 64, 0, {("best", "torch-best"): 2}),
]
# For each precision, the kernels with these targets; on other kernels only the ratio is printed.
TARGETS_SET_FOR = {"bf16": ("amx",), "fp32": ("amx", "avx512"), "best": ("amx", "avx512")}
# The targets of fp32 compared with PyTorch, for processors without AVX-512.
AVX2_TARGETS = {
    ("lstm", 2, 128): 1.6,
    ("lstm", 1, 256): 1.85,
    ("lstm", 2, 512): 1.55,
    ("lstm", 1, 1024): 1.55,
    ("gru", 1, 256): 3.3,
    ("rnn", 1, 256): 3.3,
}
KERAS_ROW = ("lstm", 2, 512, 128, 100, 0)
KERAS_TARGET = 5


def main() -> None:
    """Runs all rows; as a worker, runs one program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    parser.add_argument("--python", action="store_true", help="print the overhead of a step")
    parser.add_argument("--worker", nargs=7, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker)
        return
    if without_kernels():
        return
    if arguments.python:
        print_overhead(ROWS[0])
        return
    print(f"{machine()}; medians of {arguments.rounds}")
    for row in ROWS:
        keras = row[:6] == KERAS_ROW and find_spec("tensorflow") is not None
        if arguments.only in name_of(row):
            compare(row, arguments.rounds, arguments.seconds, keras)


def name_of(row: Any) -> str:
    """`lstm 2x128, batch 64, T 50`."""
    cell, layers, hidden, batch, steps, embedding = row[:6]
    return f"{cell} {layers}x{hidden}, batch {batch}, T {steps}" + (f", embedding {embedding}" if embedding else "")


def compare(row: Any, rounds: int, seconds: float, keras: bool) -> None:
    """Runs all programs on one network, in turns."""
    obstacles = missing(row[0])
    programs = ["kernels-fp32", "kernels-bf16", "torch-fp32", "torch-bf16", *(["keras"] if keras else [])]
    programs = [program for program in programs if program not in obstacles]
    workers = {program: Worker(program, row) for program in programs}
    try:
        for worker in workers.values():
            worker.turn(seconds)  # warm-up
        found: dict[str, list[float]] = {program: [] for program in programs}
        for _ in range(rounds):
            for program, worker in workers.items():
                found[program].append(worker.turn(seconds))
    finally:
        for worker in workers.values():
            worker.close()
    print(f"\n{name_of(row)}")
    for program, speeds in found.items():
        print(f"  {program:<13} {median(speeds):>9,.0f} tokens/s   ({min(speeds):,.0f} to {max(speeds):,.0f})")
    for program, why in obstacles.items():
        print(f"  {program:<13} not measured: {why}")
    best = {
        kind: max((p for p in programs if p.startswith(kind)), key=lambda p: median(found[p]))
        for kind in ("kernels", "torch")
    }
    for (ours, peer), least in targets(row, keras).items():
        one = best["kernels"] if ours == "best" else f"kernels-{ours}"
        other = best["torch"] if peer == "torch-best" else peer
        if one in found and other in found:
            ratio = median(a / b for a, b in zip(found[one], found[other], strict=True))
            verdict = f"  (at least {least:g}: {'reached' if ratio >= least else 'NOT reached'})" if least else ""
            print(f"  {one} / {other}: {ratio:.2f}{verdict}")


def targets(row: Any, keras: bool) -> Targets:
    """The ratios to print, with their targets for these kernels. Without a target: 0."""
    kernels = chosen().name
    if kernels in ("amx", "avx512"):
        all_targets = dict(row[6]) | ({("best", "keras"): KERAS_TARGET} if keras else {})
        return {key: least if kernels in TARGETS_SET_FOR[key[0]] else 0 for key, least in all_targets.items()}
    found: Targets = {("fp32", "torch-best"): AVX2_TARGETS.get(row[:3], 0)}
    return found | ({("fp32", "keras"): 0} if keras else {})


def missing(cell: str) -> dict[str, str]:
    """The programs that cannot run on this processor, with the reasons."""
    from charloom.engines.torch.device import trains_in_bf16

    module = chosen().module
    assert module is not None
    found = {}
    if "bf16" not in module.precisions():
        found["kernels-bf16"] = f"it needs AVX512-BF16 or AMX; the kernels here are {chosen().name}"
    if not trains_in_bf16("cpu", cell):
        found["torch-bf16"] = f"PyTorch has no bf16 {cell} for this processor"
    return found


class Worker:
    """A program in its own process. It computes only during its turns."""

    def __init__(self, program: str, row: Any) -> None:
        command = [sys.executable, __file__, "--worker", program, *map(str, row[:6])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def turn(self, seconds: float) -> float:
        """Tokens per second, by the median step."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        while not (line := self._process.stdout.readline()).startswith("{"):
            if not line:
                raise SystemExit("a program ended before its turn was over")
        return float(json.loads(line)["speed"])

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def work(program: str, cell: str, *sizes: str) -> None:
    """Runs a turn for each line of stdin."""
    layers, hidden, batch, steps, embedding = map(int, sizes)
    kind, _, precision = program.partition("-")
    makers: dict[str, Callable[..., Callable[[], None]]] = {
        "kernels": charloom_engine,
        "torch": pytorch,
        "keras": keras,
    }
    step = makers[kind](cell, layers, hidden, batch, steps, embedding, precision)
    step()
    for line in sys.stdin:
        times: list[float] = []
        while sum(times) < float(line) or len(times) < 3:
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        print(json.dumps({"speed": batch * steps / median(times)}), flush=True)


def print_overhead(row: Any) -> None:
    """Compares a step with a step of as many layers and little arithmetic: one sequence, one token, 32 units."""
    cell, layers, _, batch, steps, embedding = row[:6]
    whole, empty = Worker("kernels-auto", row), Worker("kernels-auto", (cell, layers, 32, 1, 1, embedding))
    turns = [(whole.turn(0.5), empty.turn(0.5)) for _ in range(6)][1:]
    whole.close()
    empty.close()
    step, overhead = (median(turn[n] for turn in turns) for n in range(2))
    milliseconds = batch * steps / step * 1000, 1 / overhead * 1000
    print(
        f"{name_of(row)}: {milliseconds[0]:.2f} ms a step; without arithmetic {milliseconds[1]:.3f} ms, "
        f"{milliseconds[1] / milliseconds[0]:.1%}"
    )


def batches(batch: int, steps: int) -> Callable[[], tuple[Any, Any]]:
    """A function that returns random inputs and targets."""
    random = np.random.default_rng(0)
    made = [random.integers(0, VOCABULARY, (2, batch, steps)) for _ in range(8)]
    turn = iter(range(10**9))
    return lambda: tuple(made[next(turn) % len(made)])


def charloom_engine(
    cell: str,
    layers: int,
    hidden: int,
    batch: int,
    steps: int,
    embedding: int,
    precision: str,
    *,
    engine: str = "native",
    device: str = "cpu",
    dropout: float = 0.0,
) -> Callable[[], None]:
    """charloom's engine `native`, or another one, called as by its trainer."""
    from charloom.architecture import Architecture
    from charloom.config import TrainingSettings
    from charloom.engines.engine import choose_engine, open_engine
    from charloom.engines.initial import initial_parameters

    shape = Architecture(
        cell=cell,  # type: ignore[arg-type]
        nonlinearity="tanh",
        layers=layers,
        hidden=hidden,
        input="embedding" if embedding else "onehot",
        embedding=embedding or 1,
        vocabulary_size=VOCABULARY,
    )
    settings = TrainingSettings(
        steps=1,
        dropout=dropout,
        engine=engine,  # type: ignore[arg-type]
        device=device,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
        clip=5.0,
    )
    opened = open_engine(choose_engine(settings, cell), shape, settings)
    opened.load(initial_parameters(shape, 1))
    next_batch, state = batches(batch, steps), [None]

    def step() -> None:
        _, _, state[0] = opened.step(*next_batch(), state[0], 1e-3)

    return step


def pytorch(
    cell: str,
    layers: int,
    hidden: int,
    batch: int,
    steps: int,
    embedding: int,
    precision: str,
    *,
    device: str = "cpu",
    dropout: float = 0.0,
) -> Callable[[], None]:
    """A plain PyTorch program."""
    import torch
    from torch import nn
    from torch.nn import functional

    kind = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell]
    table = nn.Embedding(VOCABULARY, embedding) if embedding else None
    rnn = kind(embedding or VOCABULARY, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
    head = nn.Linear(hidden, VOCABULARY)
    used = [part.to(device) for part in (table, rnn, head) if part is not None]
    parameters = [p for part in used for p in part.parameters()]
    descent = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    next_batch = batches(batch, steps)
    state: list[Any] = [None]

    def step() -> None:
        inputs, targets = (torch.from_numpy(ids).to(device) for ids in next_batch())
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            x = table(inputs) if table is not None else functional.one_hot(inputs, VOCABULARY).float()
            hidden_, after = rnn(x, state[0])
            logits = head(functional.dropout(hidden_, dropout) if dropout else hidden_)
            loss = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        descent.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 5.0)
        descent.step()
        state[0] = tuple(part.detach() for part in after) if isinstance(after, tuple) else after.detach()
        loss.item()

    return step


def keras(cell: str, layers: int, hidden: int, batch: int, steps: int, embedding: int, _: str) -> Callable[[], None]:
    """Keras on TensorFlow: a compiled `fit` over data in memory, an epoch of one batch at a time."""
    os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    import keras
    import tensorflow

    assert cell == "lstm"
    assert not embedding
    model = keras.Sequential([keras.Input((steps,), dtype="int32")])
    model.add(keras.layers.Lambda(lambda ids: tensorflow.one_hot(ids, VOCABULARY), output_shape=(steps, VOCABULARY)))
    for _layer in range(layers):
        model.add(keras.layers.LSTM(hidden, return_sequences=True))
    model.add(keras.layers.Dense(VOCABULARY))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3, global_clipnorm=5.0), loss)
    inputs, targets = np.random.default_rng(0).integers(0, VOCABULARY, (2, batch, steps))
    return lambda: model.fit(inputs, targets, batch_size=batch, epochs=1, verbose=0)


def machine() -> str:
    """The number of cores, and the kernels in use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores; kernels: {chosen().name} ({chosen().reason})"


if __name__ == "__main__":
    main()
