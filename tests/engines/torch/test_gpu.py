"""Training on a GPU: parity with the CPU, CUDA graphs against the same steps without them, resuming, fine-tuning.

`python benchmarks/gpu.py` runs these tests where a GPU is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from charloom.architecture import Architecture  # noqa: E402
from charloom.checkpoint import load_model  # noqa: E402
from charloom.config import TrainingSettings  # noqa: E402
from charloom.engines.engine import EngineChoice, choose_engine, open_engine  # noqa: E402
from charloom.engines.initial import initial_parameters  # noqa: E402
from charloom.engines.masks import dropout_levels  # noqa: E402
from charloom.engines.torch import graph  # noqa: E402
from charloom.engines.torch.network import TorchDropout  # noqa: E402
from charloom.model import Model  # noqa: E402
from charloom.training import start  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

CELLS = [("lstm", "free"), ("lstm", "capped"), ("gru", "free"), ("rnn", "free")]
OPTIMIZERS = ["adamw", "adam", "rmsprop", "adagrad", "sgd"]
DROPPED = {"dropout": 0.3, "weight_drop": 0.2}
STEPS = 6  # two without a graph, one that captures it, and more
PARITY = 1e-4
RUN = {
    "layers": 2,
    "hidden": 32,
    "batch_size": 8,
    "seq_length": 16,
    "sample_length": 0,
    "validate_every": 10,
    **DROPPED,
}
V, B, T = 20, 8, 16


def architecture(cell=("lstm", "free"), layers=2, hidden=32):
    kind, gate = cell
    return Architecture(
        cell=kind,
        nonlinearity="tanh",
        input_gate=gate,
        layers=layers,
        hidden=hidden,
        input="embedding",
        embedding=16,
        vocabulary_size=V,
    )


def made(device, shape, **values):
    """An engine with the same weights on each device."""
    asked = TrainingSettings(
        **{"steps": 1, "engine": "torch", "device": device, "precision": "fp32", "dropout": 0.0, "threads": 1, **values}
    )
    found = open_engine(choose_engine(asked, shape.cell), shape, asked)
    found.load(initial_parameters(shape, 1))
    return found


def batch(step, masked=False, width=T):
    """Ids and targets; `masked`: the same number of targets in each batch, at other positions."""
    random = np.random.default_rng(step)
    inputs, targets = random.integers(0, V, (2, B, width))
    if masked:
        targets.ravel()[random.permutation(targets.size)[: targets.size // 3]] = -1
    return inputs, targets


def trained(engine, steps=STEPS, masked=False):
    """The losses of some steps with carried state, and the state after them. Every fifth batch has another width."""
    losses, state = [], None
    for step in range(steps):
        nats, count, state = engine.step(*batch(step, masked, T // 2 if step % 5 == 4 else T), state, 0.01 / (1 + step))
        losses.append(nats / count)
    return losses, state


def assert_close(found, expected, limit):
    """Each array, as a part of its largest value."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        difference = np.abs(found[name] - value).max()
        assert difference <= limit * np.abs(value).max(), (name, difference, np.abs(value).max())


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.fixture
def host_masks(monkeypatch):
    """Masks that NumPy draws, as for the CPU. A graph would repeat them, so there is none."""

    def mask(self, shape, share, like):
        return torch.from_numpy(dropout_levels(self.random, tuple(shape), share).mask()).to(like)

    monkeypatch.setattr(TorchDropout, "mask", mask)
    monkeypatch.setattr(graph, "WARM_UP", 10**9)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_gradients_and_steps_are_those_of_the_cpu(cell, masked):
    """Catches TF32 in fp32, a graph that reads an old batch, state, rate or count, and clipping without the count."""
    shape = architecture(cell)
    options = {"optimizer": "sgd", "momentum": 0.9, "clip": 0.1, "clip_value": 0.02}
    gpu, cpu = made("cuda", shape, **options), made("cpu", shape, **options)
    found, state = trained(gpu, masked=masked)
    expected, other = trained(cpu, masked=masked)
    assert found == pytest.approx(expected, rel=PARITY)
    assert gpu._captured_gradients._graph is not None
    assert gpu._captured_update._graph is not None
    assert_close(gpu.parameters(), cpu.parameters(), PARITY)
    assert_close(gpu.snapshot(state), cpu.snapshot(other), PARITY)
    gpu.load(cpu.parameters())  # without the distance of the steps before
    state = tuple(part.cuda() for part in other)
    for engine, before in ((gpu, state), (cpu, other)):
        engine.gradients(*batch(50, masked), before)
    sums = [{name: value.cpu().numpy() for name, value in one.gradient_arrays.items()} for one in (gpu, cpu)]
    assert_close(*sums, PARITY)


@pytest.mark.parametrize("mask", ["fresh", "locked"])
@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_with_the_masks_of_the_cpu_the_steps_are_those_of_the_cpu(cell, mask, host_masks):
    """Catches a gradient of a dropped weight, and weights that cuDNN reads where they are not dropped."""
    options = {"optimizer": "sgd", "dropout_mask": mask, **DROPPED}
    gpu, cpu = made("cuda", architecture(cell), **options), made("cpu", architecture(cell), **options)
    assert trained(gpu)[0] == pytest.approx(trained(cpu)[0], rel=PARITY)
    assert_close(gpu.parameters(), cpu.parameters(), PARITY)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("mask", ["fresh", "locked"])
def test_a_graph_computes_the_bits_of_a_step_without_one(monkeypatch, optimizer, precision, mask):
    """Catches dropout that a graph repeats, casts of old weights, a rate or a step count that stays what it was."""
    options = {"optimizer": optimizer, "precision": precision, "dropout_mask": mask, "clip_value": 0.5, **DROPPED}
    replayed = made("cuda", architecture(), **options)
    found, state = trained(replayed, 9)
    assert replayed._captured_gradients._graph is not None
    monkeypatch.setattr(graph, "WARM_UP", 10**9)
    called = made("cuda", architecture(), **options)
    expected, other = trained(called, 9)
    assert found == expected
    assert len(set(found)) == len(found)
    assert_same(replayed.parameters(), called.parameters())
    assert_same(replayed.snapshot(state), called.snapshot(other))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_restored_engine_goes_on_bit_for_bit(optimizer):
    """Catches a graph that writes the optimizer's memory of before, and dropout that depends on the steps made here."""
    options = {"optimizer": optimizer, **DROPPED}
    straight, state = made("cuda", architecture(), **options), None
    for step in range(10):
        if step == 5:
            parameters, arrays = straight.parameters(), straight.snapshot(state)
        _, _, state = straight.step(*batch(step), state, 0.01)
    wanted = straight.parameters(), straight.snapshot(state)
    for resumed in (made("cuda", architecture(), **options), straight):  # the second one has graphs
        resumed.load(parameters)
        state = resumed.restore(arrays, B)
        for step in range(5, 10):
            _, _, state = resumed.step(*batch(step), state, 0.01)
        assert_same(resumed.parameters(), wanted[0])
        assert_same(resumed.snapshot(state), wanted[1])


def test_states_stay_what_they_were():
    """Catches a state in the memory of a graph, which the next step overwrites."""
    engine, state = made("cuda", architecture()), None
    for step in range(STEPS):
        before = state
        values = [part.clone() for part in state or ()]
        _, _, state = engine.step(*batch(step), state, 0.01)
        for part, value in zip(before or (), values, strict=True):
            assert torch.equal(part, value)


def test_weight_drop_leaves_cudnns_weights_in_one_piece(recwarn):
    """Catches weights that cuDNN copies in each call; PyTorch warns of it."""
    for dropout in (0.0, 0.3):
        trained(made("cuda", architecture(), dropout=dropout, weight_drop=0.3))
    assert not [warning for warning in recwarn if "contiguous chunk" in str(warning.message)]


def train(place, name, base=None, **values):
    """A run folder, through the training loop."""
    asked = {**RUN, "device": "cuda", "precision": "fp32", "engine": "torch", "steps": 40, **values}
    start.start([str(place / "corpus.txt")], asked, place / name, base, lambda _: None, lambda: False)
    return place / name


@pytest.fixture(scope="module")
def place(tmp_path_factory, corpus) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    (folder / "corpus.txt").write_text(corpus, encoding="utf-8")
    return folder


def weights(run):
    return [(run / "last" / name).read_bytes() for name in ("model.safetensors", "resume.safetensors")]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_is_exact(place, precision):
    """Catches anything that a run folder lacks."""
    options = {"precision": precision, "schedule": "constant", "warmup": 0.0}
    straight = train(place, f"straight-{precision}", **options)
    part = train(place, f"part-{precision}", steps=20, **options)
    start.resume(part, {"steps": 40}, lambda _: None, lambda: False)
    assert weights(part) == weights(straight)


def test_models_of_the_gpu_load_on_the_cpu_and_back(place, corpus):
    """Catches weights that only the device that trained them can use, in scoring, fine-tuning and resuming."""
    gpu, cpu = train(place, "gpu"), train(place, "cpu", device="cpu", threads=1)
    for run, device in ((gpu, "cpu"), (cpu, "cuda")):
        model = load_model(run / "best")
        engine = made(device, model.architecture)
        engine.load(model.parameters)
        ids = np.random.default_rng(0).integers(0, model.architecture.vocabulary_size, (2, B, T))
        nats = engine.score(*ids, None)[0]
        other = made("cuda" if device == "cpu" else "cpu", model.architecture)
        other.load(model.parameters)
        np.testing.assert_allclose(nats, other.score(*ids, None)[0], rtol=PARITY, atol=PARITY)
        tuned = train(place, f"{run.name}-tuned-on-{device}", str(run / "best"), device=device)
        assert Model.load(tuned).score(corpus[:500]).nats_per_char < Model.load(run).score(corpus[:500]).nats_per_char
    for run, device in ((gpu, "cpu"), (cpu, "cuda")):
        start.resume(run, {"steps": 60, "device": device}, lambda _: None, lambda: False)


def test_the_description_names_the_card_and_says_what_fp32_is():
    name = torch.cuda.get_device_name()
    assert f"cuda ({name}), float32 without TF32" in made("cuda", architecture()).description
    assert f"cuda ({name}), bfloat16" in made("cuda", architecture(), precision="bf16").description


def test_auto_takes_the_gpu():
    asked = TrainingSettings(steps=1)
    assert choose_engine(asked, "lstm") == EngineChoice("torch", "cuda", "bf16")
