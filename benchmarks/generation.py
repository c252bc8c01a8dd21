"""Speed of generation, one character at a time: charloom, a PyTorch `nn.LSTM` loop and onnxruntime on equal networks.

Every program samples at temperature 0.8 from its own softmax. In each of ROUNDS rounds, every program generates for
some time, one after the other. The output is the median of characters/s, and of charloom's ratio to each peer. The
peers use their best thread count. onnxruntime is optional: without it and onnx (`make bench` installs them), its lines
are left out. The targets are those of processors with AVX-512, or of all others.

    python benchmarks/generation.py [seconds for each program and round, 1.0]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from probes import without_kernels

from charloom import kernels
from charloom.architecture import Architecture
from charloom.inference.native_backend import NativeBackend
from charloom.inference.rows import Row
from charloom.inference.sampling import Sampling
from charloom.inference.weights import InferenceWeights
from charloom.kernels import cores

ROUNDS = 5
VOCABULARY, EMBEDDING, TEMPERATURE = 83, 64, 0.8
# layers, hidden, sequences: the targets of charloom's ratio to a peer in a precision. `one thread` is charloom itself.
Targets = dict[tuple[int, int, int], dict[tuple[str, str], float]]
WITH_AVX512: Targets = {
    (2, 128, 1): {("fp32", "PyTorch"): 40, ("fp32", "onnxruntime fp32"): 4},
    (2, 512, 1): {
        ("int8", "onnxruntime int8"): 6,
        ("int8", "PyTorch"): 70,
        ("fp32", "PyTorch"): 6,
        ("fp32", "onnxruntime fp32"): 1.2,
    },
    (3, 512, 1): {("int8", "onnxruntime int8"): 4},
    (2, 1024, 1): {("fp32", "PyTorch"): 8},
    (2, 512, 64): {("int8", "PyTorch"): 8},
}
WITH_AVX2: Targets = {
    (2, 128, 1): {},
    (2, 512, 1): {("int8", "onnxruntime int8"): 5, ("fp32", "onnxruntime fp32"): 2},
    (3, 512, 1): {("int8", "onnxruntime int8"): 4},
    (2, 1024, 1): {("fp32", "onnxruntime fp32"): 1.05},
    (2, 512, 64): {
        ("fp32", "onnxruntime fp32"): 1.4,
        ("fp32", "PyTorch"): 2.1,
        ("fp32", "one thread"): 1.7,
        ("int8", "onnxruntime int8"): 1.6,
        ("int8", "PyTorch"): 3.2,
        ("int8", "one thread"): 1.7,
    },
}
Contestant = Callable[[float], float]  # seconds → characters a second


def architecture(layers: int, hidden: int) -> Architecture:
    """The benchmark's network."""
    return Architecture(
        cell="lstm",
        nonlinearity="tanh",
        layers=layers,
        hidden=hidden,
        input="embedding",
        embedding=EMBEDDING,
        vocabulary_size=VOCABULARY,
    )


def parameters(made: Architecture) -> dict[str, Any]:
    """Random weights, as large as trained weights."""
    generator = np.random.default_rng(0)
    return {
        name: (2 * generator.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in made.shapes.items()
    }


def ours(made: Architecture, weights: dict[str, Any], sequences: int, precision: str, threads: int) -> Contestant:
    """charloom's kernels."""
    chosen = kernels.chosen()
    assert chosen.module is not None, chosen.reason
    backend = NativeBackend(chosen.module, InferenceWeights(made, weights), precision, threads, chosen.tiles)
    sampling = Sampling(temperature=TEMPERATURE)

    def generate(seconds: float) -> float:
        batch, steps, start = backend.batch(), 0, time.perf_counter()
        for index in range(sequences):
            batch.join(Row(sampling, 0, index), np.zeros(1, np.int64), backend.initial_state())
        while (spent := time.perf_counter() - start) < seconds:
            steps += batch.decode(2**14 // sequences, 0.02).tokens_BS.shape[1]
        return steps * sequences / spent

    return generate


def stepping(step: Callable[[Any, Any], tuple[Any, Any]], first: Any, state: Any, sequences: int) -> Contestant:
    """A peer. Its `step` returns the next tokens and the state."""

    def generate(seconds: float) -> float:
        ids, current, steps, start = first, state, 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds:
            ids, current = step(ids, current)
            steps += 1
        return steps * sequences / spent

    return generate


def pytorchs(made: Architecture, weights: dict[str, Any], sequences: int, threads: int) -> Contestant:
    """The loop of PyTorch's tutorials."""
    import torch

    embedding = torch.nn.Embedding(made.vocabulary_size, made.embedding)
    rnn = torch.nn.LSTM(made.embedding, made.hidden, made.layers, batch_first=True)
    head = torch.nn.Linear(made.hidden, made.vocabulary_size)
    for name, module in (("embedding", embedding), ("rnn", rnn), ("head", head)):
        own = {
            key.removeprefix(f"{name}."): torch.tensor(v) for key, v in weights.items() if key.startswith(f"{name}.")
        }
        module.load_state_dict(own)

    def step(ids: Any, state: Any) -> tuple[Any, Any]:
        out, state = rnn(embedding(ids), state)
        share = torch.softmax(head(out[:, -1]) / TEMPERATURE, dim=-1)
        return torch.multinomial(share, 1), state

    zeros = torch.zeros(made.layers, sequences, made.hidden)
    loop = stepping(step, torch.zeros(sequences, 1, dtype=torch.long), (zeros, zeros), sequences)

    def generate(seconds: float) -> float:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return loop(seconds)

    return generate


def onnx_file(made: Architecture, weights: dict[str, Any], folder: Path) -> Path:
    """One step as a graph: from ids and states to logits and states. ONNX orders the gates i, o, f, c."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    H, L = made.hidden, made.layers
    order = [0, 3, 1, 2]

    def turned(x: Any) -> Any:
        return x.reshape(4, H, *x.shape[1:])[order].reshape(1, *x.shape)

    constants = {
        "embedding": weights["embedding.weight"],
        "head": weights["head.weight"].T,
        "bias": weights["head.bias"],
    }
    nodes, below = [helper.make_node("Gather", ["embedding", "ids"], ["x0"])], "x0"  # [1, B] to [1, B, E]
    for n in range(L):
        for kind in ("W", "R"):
            constants[f"{kind}{n}"] = turned(weights[f"rnn.weight_{'ih' if kind == 'W' else 'hh'}_l{n}"])
        both = [turned(weights[f"rnn.bias_{which}_l{n}"]) for which in ("ih", "hh")]
        constants[f"B{n}"] = np.concatenate(both, axis=1)
        inputs = [below, f"W{n}", f"R{n}", f"B{n}", "", f"h{n}", f"c{n}"]
        nodes.append(helper.make_node("LSTM", inputs, [f"y{n}", f"H{n}", f"C{n}"], hidden_size=H))
        nodes.append(helper.make_node("Squeeze", [f"y{n}", "axis"], [below := f"x{n + 1}"]))  # [1, 1, B, H]
    constants["axis"] = np.array([1])
    nodes += [
        helper.make_node("MatMul", [below, "head"], ["raw"]),
        helper.make_node("Add", ["raw", "bias"], ["logits"]),
    ]
    states = [(f"{kind}{n}", [1, None, H]) for n in range(L) for kind in "hc"]

    def number(name: str, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "step",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, None]), *(number(*state) for state in states)],
        [number("logits", [1, None, made.vocabulary_size]), *(number(name.upper(), shape) for name, shape in states)],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    path = folder / f"{L}x{H}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def onnxruntimes(made: Architecture, path: Path, sequences: int, threads: int) -> Contestant:
    """A loop around a session. The states of one run are the input of the next. NumPy samples."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [f"{kind}{n}" for n in range(made.layers) for kind in "hc"]
    outputs = ["logits", *(name.upper() for name in names)]
    generator = np.random.default_rng(0)

    def step(ids: Any, state: list[Any]) -> tuple[Any, list[Any]]:
        logits, *state = session.run(outputs, {"ids": ids, **dict(zip(names, state, strict=True))})
        share = np.exp((logits[0] - logits[0].max(axis=-1, keepdims=True)) / TEMPERATURE).cumsum(axis=-1)
        drawn = (share < generator.random((sequences, 1)) * share[:, -1:]).sum(axis=-1)
        return drawn[None], state

    zeros = [np.zeros((1, sequences, made.hidden), np.float32)] * len(names)
    return stepping(step, np.zeros((1, sequences), np.int64), zeros, sequences)


def peers(made: Architecture, weights: dict[str, Any], sequences: int, folder: Path) -> dict[str, Contestant]:
    """Every installed peer, at each thread count."""
    found: dict[str, Contestant] = {}
    for threads in sorted({1, cores()}):
        found[f"PyTorch t{threads}"] = pytorchs(made, weights, sequences, threads)
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        exact = onnx_file(made, weights, folder)
    except ImportError:
        return found
    small = exact.with_suffix(".int8.onnx")
    quantize_dynamic(exact, small, weight_type=QuantType.QInt8)
    for threads in sorted({1, cores()}):
        found[f"onnxruntime fp32 t{threads}"] = onnxruntimes(made, exact, sequences, threads)
        found[f"onnxruntime int8 t{threads}"] = onnxruntimes(made, small, sequences, threads)
    return found


def compare(layers: int, hidden: int, sequences: int, seconds: float, folder: Path) -> None:
    """Prints the medians of one shape, and charloom's ratio to each peer's best."""
    made = architecture(layers, hidden)
    weights = parameters(made)
    contestants = {f"charloom {p}": ours(made, weights, sequences, p, cores()) for p in ("fp32", "bf16", "int8")}
    contestants |= {f"charloom {p}, one thread": ours(made, weights, sequences, p, 1) for p in ("fp32", "int8")}
    contestants |= peers(made, weights, sequences, folder)
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(-1, ROUNDS):  # the first warms up
        for name, generate in contestants.items():
            rate = generate(seconds if number >= 0 else seconds / 5)
            if number >= 0:
                rates[name].append(rate)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    print(f"LSTM {layers} x {hidden}, {sequences} sequence{'s' * (sequences > 1)}, characters/s:")
    for name, rate in medians.items():
        print(f"  {name:25} {rate:10,.0f}")
    for (precision, peer), least in targets()[layers, hidden, sequences].items():
        own = f"charloom {precision}"
        names = (
            [f"{own}, {peer}"] if peer == "one thread" else [name for name in medians if name.startswith(f"{peer} t")]
        )
        if not names:
            continue
        best = max(names, key=lambda name: medians[name])
        ratio = statistics.median(a / b for a, b in zip(rates[own], rates[best], strict=True))
        print(f"  {own} / {best}: {ratio:.2f}  (at least {least:g}: {'reached' if ratio >= least else 'NOT reached'})")


def targets() -> Targets:
    """The targets for processors of this kind."""
    return WITH_AVX512 if kernels.chosen().name in ("amx", "avx512") else WITH_AVX2


def main() -> None:
    """Measures every shape."""
    if without_kernels():
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    load = f"; load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"kernels {kernels.chosen().name}, {cores()} cores{load}")
    with tempfile.TemporaryDirectory() as folder:
        for shape in targets():
            compare(*shape, seconds, Path(folder))


if __name__ == "__main__":
    main()
