"""The NumPy engine against PyTorch, in float64: gradients, ten steps of training, the optimizers, dropout."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from charloom.config import TrainingSettings  # noqa: E402
from charloom.engines.cpu import CpuEngine  # noqa: E402
from charloom.engines.engine import EngineChoice  # noqa: E402
from charloom.engines.numpy import optimizers  # noqa: E402
from charloom.engines.numpy.network import NOTHING, NumpyNetwork  # noqa: E402
from charloom.engines.resume import memory_keys  # noqa: E402
from charloom.engines.torch import engine as torch_engine  # noqa: E402
from charloom.engines.torch.network import TorchNetwork  # noqa: E402

V = 5
KINDS = [
    {"optimizer": "adamw"},
    {"optimizer": "adam"},
    {"optimizer": "adamw", "beta1": 0.0},
    {"optimizer": "rmsprop"},
    {"optimizer": "adagrad"},
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "nesterov": True},
    {"optimizer": "sgd", "momentum": 0.0},
]
DTYPES = {np.float32: torch.float32, np.float64: torch.float64}
NAMES = ["-".join(map(str, kind.values())) for kind in KINDS]


def settings(**values):
    return TrainingSettings(
        **{"steps": 10, "device": "cpu", "precision": "fp32", "threads": 1, "dropout": 0.0, **values}
    )


def batch(seed=0, rows=3, width=5, masked=0.2):
    generator = np.random.default_rng(seed)
    inputs, targets = generator.integers(0, V, (2, rows, width))
    return inputs, np.where(generator.random(targets.shape) < masked, NOTHING, targets)


def torch_gradients(shape, weights, inputs, targets, state):
    """The reference: autograd through PyTorch's own modules, for each parameter and for the state."""
    network = TorchNetwork(shape, 0.0).double()
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.copy_(torch.from_numpy(weights[name]))
    state = tuple(torch.tensor(part, requires_grad=True) for part in state)
    (positions,) = np.nonzero(targets.ravel() != NOTHING)
    logits, _ = network(torch.from_numpy(inputs), torch.from_numpy(positions), state)
    wanted = torch.from_numpy(targets.ravel()[positions])
    torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").backward()
    found = {name: value.grad.numpy() for name, value in network.named_parameters()}
    return found | {f"state.{n}": part.grad.numpy() for n, part in enumerate(state)}


@pytest.mark.parametrize("loss", ["every", "last"])
@pytest.mark.parametrize(("rows", "width"), [(3, 5), (1, 1)])
def test_gradients_are_those_of_autograd(random, architecture, weights, cell, layers, input_kind, loss, rows, width):
    """Catches any error in the gradients, a hundred times smaller than finite differences can find."""
    shape = architecture(cell, layers, input_kind, hidden=6)
    parameters = weights(shape)
    network = NumpyNetwork(shape, parameters)
    inputs, targets = batch(rows=rows, width=width, masked=0.2 if width > 1 else 0)
    if loss == "last":
        targets = np.where(np.arange(width) == width - 1, np.abs(targets), NOTHING)
    state = tuple(random(*part.shape) for part in network.zero_state(rows))
    found = network.backward(network.forward(inputs, targets, state))
    mine = found.parameters | {f"state.{n}": part for n, part in enumerate(found.state)}
    judged = torch_gradients(shape, parameters, inputs, targets, state)
    assert mine.keys() == judged.keys()
    for name, value in judged.items():
        assert np.linalg.norm(mine[name] - value) <= 1e-10 * np.linalg.norm(value), name


def pair(shape, parameters, dropout=0.0, dtype=np.float64, **options):
    """Both engines with the same weights."""
    asked = settings(dropout=dropout, **options)
    engines = (
        CpuEngine(EngineChoice("numpy"), shape, asked, dtype=dtype),
        torch_engine.TorchEngine(EngineChoice("torch"), shape, asked, DTYPES[dtype]),
    )
    for engine in engines:
        engine.load(parameters)
    return engines


def train(engine, steps, state=None):
    """The losses of `steps` steps with carried state and a different rate at each, and the state afterwards."""
    losses = []
    for step in steps:
        nats, _, state = engine.step(*batch(step), state, 0.02 / (1 + step))
        losses.append(nats)
    return losses, state


def test_ten_steps_are_those_of_the_torch_engine(architecture, weights, cell, layers, input_kind):
    """Catches a lost state, a gradient that reaches into the batch before, a wrong order of clipping, a bias that
    decays.
    """
    shape = architecture(cell, layers, input_kind, hidden=6)
    mine, theirs = pair(shape, weights(shape), clip=0.5, clip_value=0.1, weight_decay=0.1)
    expected, judged = train(theirs, range(10))
    found, state = train(mine, range(10))
    assert found == pytest.approx(expected, rel=1e-9)
    for part, other in zip(state, judged, strict=True):
        np.testing.assert_allclose(part, other.numpy(), rtol=1e-8)


@pytest.mark.parametrize(
    "dropped",
    [
        {"dropout_mask": "fresh"},
        {"dropout_mask": "locked"},
        {"weight_drop": 0.4},
        {"dropout_mask": "fresh", "weight_drop": 0.4},
        {"dropout_mask": "locked", "weight_drop": 0.4},
    ],
    ids=["fresh", "locked", "weights", "fresh-weights", "locked-weights"],
)
def test_ten_steps_with_dropped_units_or_weights(architecture, weights, cell, layers, dropped):
    """Catches masks in another order, a gradient of a dropped weight, and weights that stay dropped."""
    shape = architecture(cell, layers, hidden=6)
    mine, theirs = pair(shape, weights(shape), 0.3 if "dropout_mask" in dropped else 0.0, **dropped)
    assert train(mine, range(10))[0] == pytest.approx(train(theirs, range(10))[0], rel=1e-9)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_ten_steps_with_every_optimizer(architecture, weights, kind):
    """Catches a learning rate one step late, and a moment with a wrong first value."""
    shape = architecture(layers=2, hidden=6)
    mine, theirs = pair(shape, weights(shape), clip=0.5, weight_decay=0.1, beta2=0.95, **kind)
    assert train(mine, range(10))[0] == pytest.approx(train(theirs, range(10))[0], rel=1e-9)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_optimizers_are_torchs_over_many_steps(random, kind):
    """Catches an epsilon inside the root and a wrong last digit, over 300 steps with large, small and zero
    gradients.
    """
    asked = settings(weight_decay=0.1, **kind)
    mine = {"weight": random(4, 3), "bias": random(4)}
    module = torch.nn.Linear(3, 4).double()
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(torch.from_numpy(mine[name]))
    judge = torch_engine._optimizer(module, asked, torch.device("cpu"))
    keys = memory_keys(asked, steps=1)
    memories = {n: {k: np.zeros(() if k == "step" else p.shape) for k in keys} for n, p in mine.items()}
    for step in range(300):
        size, rate = 10.0 ** (step % 7 - 5) * (step % 5 > 0), 0.1 / (1 + step % 3)
        gradients = {name: size * random(*value.shape) for name, value in mine.items()}
        for name, value in module.named_parameters():
            value.grad = torch.from_numpy(gradients[name].copy())
        for group in judge.param_groups:
            group["lr"] = rate
        judge.step()
        optimizers.step(mine, gradients, memories, rate, asked)
    for name, value in module.named_parameters():
        np.testing.assert_allclose(mine[name], value.detach().numpy(), rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("masked", [0.0, 0.3])
def test_dropout_before_the_head_draws_what_torch_draws(architecture, weights, cell, masked):
    """Catches another key or another order of units: then the engines could not be compared with dropout."""
    shape = architecture(cell, hidden=16)
    mine, theirs = pair(shape, weights(shape), dropout=0.4, seed=5)
    for step in range(3):
        inputs, targets = batch(step, masked=masked)
        expected = theirs.step(inputs, targets, None, 0.05)[0]
        assert mine.step(inputs, targets, None, 0.05)[0] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_either_engine_goes_on_where_the_other_stopped(architecture, weights, kind):
    """Catches names, shapes or dtypes in a snapshot that only the engine that wrote it can read."""
    shape = architecture(layers=2, hidden=6)
    start = {name: value.astype(np.float32) for name, value in weights(shape).items()}
    straight, _ = pair(shape, start, dtype=np.float32, **kind)
    expected, state = train(straight, range(6))
    layout = {name: (value.dtype, value.shape) for name, value in straight.snapshot(state).items()}
    for turn in (slice(None), slice(None, None, -1)):
        first, second = pair(shape, start, dtype=np.float32, **kind)[turn]
        losses, state = train(first, range(3))
        arrays = first.snapshot(state)
        second.load(first.parameters())
        more, state = train(second, range(3, 6), second.restore(arrays, arrays["state.0"].shape[1]))
        assert [*losses, *more] == pytest.approx(expected, rel=1e-4)
        assert {name: (value.dtype, value.shape) for name, value in second.snapshot(state).items()} == layout
