"""The PyTorch engine: gradients against finite differences, steps against a plain loop, exact resuming."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

from charloom.architecture import Architecture  # noqa: E402
from charloom.config import TrainingSettings  # noqa: E402
from charloom.engines.engine import EngineChoice, choose_engine, slower_than_asked  # noqa: E402
from charloom.engines.initial import initial_parameters  # noqa: E402
from charloom.engines.torch import device as torch_device  # noqa: E402
from charloom.engines.torch.device import trains_in_bf16  # noqa: E402
from charloom.engines.torch.engine import TorchEngine  # noqa: E402
from charloom.errors import DeviceError, ModelError  # noqa: E402
from charloom.inference.network import InferenceNetwork  # noqa: E402
from charloom.inference.weights import InferenceWeights  # noqa: E402
from charloom.score import cross_entropy  # noqa: E402

pytestmark = pytest.mark.processor

CELLS = [("lstm", "tanh"), ("lstm", "capped"), ("gru", "tanh"), ("rnn", "tanh"), ("rnn", "relu")]
OPTIMIZERS = ["adamw", "adam", "rmsprop", "adagrad", "sgd"]
V, H, NOTHING = 5, 3, -1


def architecture(cell="lstm", variant="tanh", layers=1, input_kind="embedding", hidden=H):
    return Architecture(
        cell=cell,
        nonlinearity="relu" if variant == "relu" else "tanh",
        input_gate="capped" if variant == "capped" else "free",
        layers=layers,
        hidden=hidden,
        input=input_kind,
        embedding=2,
        vocabulary_size=V,
    )


def settings(**values):
    return TrainingSettings(**{"steps": 10, "device": "cpu", "precision": "fp32", "dropout": 0.0, **values})


def skip_where_bf16_is_refused(precision, cell):
    """oneDNN has a bf16 LSTM only on some processors."""
    if precision == "bf16" and not trains_in_bf16("cpu", cell):
        pytest.skip(f"PyTorch cannot train the cell {cell!r} in bf16 on this processor")


def made(shape, dropout=0.0, dtype=torch.float32, scale=1.0, **values):
    """An engine with parameters large enough that no gate is linear."""
    choice = EngineChoice("torch", precision=values.pop("precision", "fp32"))
    engine = TorchEngine(choice, shape, settings(dropout=dropout, **values), dtype)
    generator = np.random.default_rng(7)
    engine.load({name: scale * generator.normal(0, 0.7, size) for name, size in shape.shapes.items()})
    return engine


def batch(seed=0, rows=3, width=4):
    generator = np.random.default_rng(seed)
    return generator.integers(0, V, (rows, width)), generator.integers(0, V, (rows, width))


def random_state(shape, rows, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    size = (shape.layers, rows, shape.hidden)
    return tuple(torch.rand(size, generator=generator, dtype=dtype) - 0.5 for _ in range(1 + (shape.cell == "lstm")))


def gradients(engine):
    return {name: parameter.grad.numpy().copy() for name, parameter in engine.network.named_parameters()}


def slopes(engine, inputs_BT, targets_BT, state, width=1e-6):
    """The reference: central differences of the mean loss for single numbers of a parameter."""

    def loss():
        return engine.score(inputs_BT, targets_BT, state)[0].mean()

    found = {}
    for name, parameter in engine.network.named_parameters():
        flat, result = parameter.data.view(-1), np.empty(parameter.numel())
        for index in range(parameter.numel()):
            value = flat[index].item()
            flat[index] = value + width
            above = loss()
            flat[index] = value - width
            result[index] = (above - loss()) / (2 * width)
            flat[index] = value
        found[name] = result.reshape(parameter.shape)
    return found


def assert_gradients(engine, inputs_BT, targets_BT, state):
    engine.step(inputs_BT, targets_BT, state, learning_rate=0.0)
    exact, judged = gradients(engine), slopes(engine, inputs_BT, targets_BT, state)
    for name, value in judged.items():
        np.testing.assert_allclose(exact[name], value, rtol=1e-5, atol=1e-8, err_msg=name)
    assert all(value.any() for value in judged.values()), "a gradient of nothing but zeros proves nothing"


@pytest.mark.parametrize(("cell", "layers", "input_kind"), [*product(CELLS, [1, 2], ["embedding", "onehot", "scalar"])])
def test_gradients_are_the_slopes_of_the_loss(cell, layers, input_kind):
    """Catches a layer or an input without gradients, and a mask or a count that only training uses."""
    shape = architecture(*cell, layers=layers, input_kind=input_kind)
    engine = made(shape, dtype=torch.float64, optimizer="sgd", clip=0)
    inputs, targets = batch()
    targets[0, 2:] = targets[2, :1] = NOTHING
    assert_gradients(engine, inputs, targets, random_state(shape, rows=3))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("rows", [1, 2])
def test_gradients_of_a_single_step(cell, rows):
    """Catches a removed axis, and a state taken for a batch, with T=1 and B=1."""
    shape = architecture(*cell, layers=2)
    engine = made(shape, dtype=torch.float64, optimizer="sgd", clip=0)
    inputs, targets = batch(rows=rows, width=1)
    assert_gradients(engine, inputs, targets, random_state(shape, rows))


def stock(shape, weights):
    """The reference: PyTorch's own modules with weights loaded by the names on disk."""
    kind = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[shape.cell]
    options = {"nonlinearity": shape.nonlinearity} if shape.cell == "rnn" else {}
    network = nn.Module()
    network.embedding = nn.Embedding(shape.vocabulary_size, shape.embedding)
    network.rnn = kind(shape.embedding, shape.hidden, shape.layers, batch_first=True, **options)
    network.head = nn.Linear(shape.hidden, shape.vocabulary_size)
    network.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    return network


@pytest.mark.parametrize(("cell", "layers"), [*product([cell for cell in CELLS if "capped" not in cell], [1, 2])])
def test_three_steps_are_those_of_a_stock_loop(cell, layers):
    """Catches a lost state, a gradient that reaches into the batch before, a rate one step late, and wrong clipping."""
    shape = architecture(*cell, layers=layers)
    engine = made(shape, weight_decay=0.1, clip=0.3)
    network = stock(shape, engine.parameters())
    matrices = [p for p in network.parameters() if p.dim() == 2]
    biases = [p for p in network.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}], betas=(0.9, 0.99)
    )
    mine = theirs = None
    for step, rate in enumerate([0.01, 0.05, 0.02]):
        inputs, targets = batch(seed=step)
        out, theirs = network.rnn(network.embedding(torch.tensor(inputs)), theirs)
        theirs = tuple(part.detach() for part in theirs) if shape.cell == "lstm" else theirs.detach()
        loss = nn.functional.cross_entropy(network.head(out).flatten(0, 1), torch.tensor(targets).flatten())
        nats, count, mine = engine.step(inputs, targets, mine, rate)
        assert count == targets.size
        assert nats / count == pytest.approx(loss.item(), rel=1e-5)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.3)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    for name, value in engine.parameters().items():
        np.testing.assert_allclose(value, network.state_dict()[name].numpy(), rtol=2e-4, atol=2e-6, err_msg=name)


def test_score_gives_nats_and_top_guesses_of_each_target():
    """Catches: a value without a target, values in another order, a state that is not carried."""
    shape = architecture()
    engine = made(shape)
    network = stock(shape, engine.parameters())
    inputs, targets = batch()
    targets[1, 1:] = NOTHING
    state = random_state(shape, 3, torch.float32)
    with torch.no_grad():
        out, after = network.rnn(network.embedding(torch.tensor(inputs)), state)
        logits = network.head(out)
    wanted = torch.tensor(targets != NOTHING)
    expected = nn.functional.cross_entropy(logits[wanted], torch.tensor(targets)[wanted], reduction="none")
    nats_N, correct_N, (h, c) = engine.score(inputs, targets, state)
    np.testing.assert_allclose(nats_N, expected, rtol=1e-6)
    np.testing.assert_array_equal(correct_N, logits.argmax(-1)[wanted] == torch.tensor(targets)[wanted])
    torch.testing.assert_close((h, c), after)


@pytest.mark.parametrize(("cell", "input_kind"), [*product(CELLS, ["embedding", "onehot", "scalar"])])
def test_score_is_what_the_generator_makes_of_the_same_weights(cell, input_kind):
    """Catches training and generation with different inputs: a low loss, but nonsense as text."""
    shape = architecture(*cell, layers=2, input_kind=input_kind)
    engine = made(shape)
    network = InferenceNetwork(InferenceWeights(shape, engine.parameters()))
    inputs, targets = batch()
    logits_BTV, _ = network.sequence(inputs, network.initial_state(3))
    nats, correct = cross_entropy(logits_BTV.reshape(-1, V), targets.reshape(-1))
    nats_N, correct_N, _ = engine.score(inputs, targets, None)
    assert (nats_N.sum(), correct_N.sum()) == (pytest.approx(nats, rel=1e-5), correct)
    assert len(nats_N) == targets.size


@pytest.mark.parametrize("cell", CELLS)
def test_padding_changes_neither_loss_nor_gradient(cell):
    """Catches padding that is predicted, counted in the mean, or read before the sequence."""
    shape = architecture(*cell, layers=2)
    inputs, targets = batch(rows=2, width=5)
    targets[1, 3:] = NOTHING
    inputs[1, 3:] = 0
    other = inputs.copy()
    other[1, 3:] = V - 1
    engine = made(shape, dtype=torch.float64, clip=0)
    nats, count, _ = engine.step(inputs, targets, None, 0.0)
    whole = gradients(engine)
    same, _, _ = engine.step(other, targets, None, 0.0)
    for name, value in gradients(engine).items():
        np.testing.assert_array_equal(value, whole[name], err_msg=name)
    alone = [engine.step(inputs[:1], targets[:1], None, 0.0), gradients(engine)]
    cut = [engine.step(inputs[1:, :3], targets[1:, :3], None, 0.0), gradients(engine)]
    assert (nats, count) == (same, 8)
    assert nats == pytest.approx(alone[0][0] + cut[0][0], rel=1e-12)
    for name, value in whole.items():
        np.testing.assert_allclose(value, (5 * alone[1][name] + 3 * cut[1][name]) / 8, atol=1e-12, err_msg=name)


def test_scoring_leaves_training_as_it_was():
    """Catches a validation that uses dropout's random numbers, leaves evaluation mode on, or changes the state."""
    shape = architecture(layers=2)
    straight, measured = made(shape, dropout=0.3), made(shape, dropout=0.3)
    ends = []
    for engine, scores in ((straight, False), (measured, True)):
        state = None
        for step in range(3):
            _, _, state = engine.step(*batch(step), state, 0.02)
            if scores:
                torch.manual_seed(99)
                engine.score(*batch(50), None)
        ends.append((engine.parameters(), engine.snapshot(state)))
    assert_same(ends[0][0], ends[1][0])
    assert_same(ends[0][1], ends[1][1])


def test_scoring_is_without_dropout():
    shape = architecture(layers=2)
    plain, dropped = made(shape), made(shape, dropout=0.5)
    np.testing.assert_array_equal(plain.score(*batch(), None)[0], dropped.score(*batch(), None)[0])
    assert plain.step(*batch(), None, 0.0)[0] != dropped.step(*batch(), None, 0.0)[0]


def test_dropout_differs_by_step_and_by_seed_and_by_nothing_else():
    """Catches the same dropped units in every step, and others after a resume."""
    shape = architecture(layers=2, hidden=8)

    def losses(seed):
        engine = made(shape, dropout=0.5, seed=seed)
        return [engine.step(*batch(), None, 0.0)[0] for _ in range(3)]

    first = losses(0)
    torch.manual_seed(5)
    assert first == losses(0)
    assert len({*first, *losses(1)}) == 6


@pytest.mark.parametrize("mask", ["fresh", "locked"])
@pytest.mark.parametrize("masked", [False, True])
def test_rows_have_the_masks_that_they_have_in_the_whole_batch(mask, masked):
    """Catches masks of the rows alone: processes that share a batch would train another network than one process."""
    shape = architecture(layers=2, hidden=8)
    options = {"dropout": 0.5, "weight_drop": 0.3, "dropout_mask": mask, "dtype": torch.float64}
    whole, first, second = (made(shape, **options) for _ in range(3))
    inputs, targets = batch(rows=5)
    if masked:
        targets[:2, 1:] = targets[3, :3] = NOTHING
    nats, count, _ = whole.gradients(inputs, targets, None)
    parts = [one.gradients(inputs, targets, None, rows) for one, rows in ((first, slice(0, 3)), (second, slice(3, 5)))]
    assert (sum(part[0] for part in parts), sum(part[1] for part in parts)) == (pytest.approx(nats, rel=1e-12), count)
    for name, value in gradients(whole).items():
        np.testing.assert_allclose(gradients(first)[name] + gradients(second)[name], value, atol=1e-12, err_msg=name)


def test_a_step_that_fails_leaves_the_weights_whole(monkeypatch):
    """Catches weights that stay dropped after full memory."""
    engine = made(architecture(), weight_drop=0.5)
    before = engine.parameters()
    monkeypatch.setattr(engine, "_forward", lambda *_: exec("raise MemoryError"))
    with pytest.raises(MemoryError):
        engine.step(*batch(), None, 0.1)
    assert_same(engine.parameters(), before)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weight_decay_pulls_matrices_and_no_bias(optimizer):
    """Catches a bias that decays, and a matrix that does not, on units without a gradient."""
    shape = architecture("rnn", "relu")
    engine = made(shape, optimizer=optimizer, weight_decay=0.5, clip=0)
    engine.load(engine.parameters() | {"rnn.bias_ih_l0": np.full(H, -50, np.float32)})
    before = engine.parameters()
    engine.step(*batch(), None, 0.001)
    after = engine.parameters()
    assert not gradients(engine)["rnn.bias_hh_l0"].any()
    for name in ("rnn.bias_ih_l0", "rnn.bias_hh_l0"):
        np.testing.assert_array_equal(after[name], before[name])
    for name in ("rnn.weight_ih_l0", "rnn.weight_hh_l0", "head.weight"):
        assert (np.sign(after[name] - before[name]) == -np.sign(before[name])).all(), name
    if optimizer == "adamw":
        name = "rnn.weight_hh_l0"
        np.testing.assert_allclose(after[name], before[name] * (1 - 0.001 * 0.5), rtol=1e-6)


def test_clipping_shortens_the_whole_gradient_and_keeps_its_direction():
    """Catches clipping of each number or each parameter, and clipping before the sum is a mean."""
    shape = architecture()
    steps = {}
    for clip in (0, 0.01, 1000.0):
        engine = made(shape, optimizer="sgd", momentum=0, weight_decay=0, clip=clip)
        before = engine.parameters()
        engine.step(*batch(), None, 1.0)
        after = engine.parameters()
        steps[clip] = np.concatenate([(before[name] - after[name]).ravel() for name in before])
    np.testing.assert_allclose(np.linalg.norm(steps[0.01]), 0.01, rtol=1e-3)
    np.testing.assert_allclose(steps[0.01] * np.linalg.norm(steps[0]) / 0.01, steps[0], atol=1e-3)
    np.testing.assert_array_equal(steps[0], steps[1000.0])


def test_clipping_by_value_stops_each_number_before_the_norm_is_taken():
    """Catches a norm before clipping by value, and clipping of small numbers."""
    shape = architecture()
    found = {}
    for options in ({"clip_value": 0}, {"clip_value": 0.01}, {"clip_value": 0.01, "clip": 0.02}):
        engine = made(shape, optimizer="sgd", momentum=0, weight_decay=0, **{"clip": 0, **options})
        before = engine.parameters()
        engine.step(*batch(), None, 1.0)
        after = engine.parameters()
        found[len(found)] = np.concatenate([(before[name] - after[name]).ravel() for name in before])
    assert abs(found[0]).max() > 0.02
    np.testing.assert_allclose(found[1], found[0].clip(-0.01, 0.01), atol=1e-6)
    np.testing.assert_allclose(found[2], found[1] * 0.02 / np.linalg.norm(found[1]), atol=1e-6)


def test_nesterov_looks_ahead_by_one_momentum():
    """Catches a setting without an effect: the first step is (1 + momentum) times a plain one (Sutskever et al.
    2013).
    """
    plain, nesterov = (made(architecture(), optimizer="sgd", clip=0, weight_decay=0, nesterov=n) for n in (False, True))
    before = plain.parameters()["head.bias"]
    for engine in (plain, nesterov):
        engine.step(*batch(), None, 0.1)
    step = before - plain.parameters()["head.bias"]
    np.testing.assert_allclose(before - nesterov.parameters()["head.bias"], 1.9 * step, rtol=1e-4, atol=1e-6)


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        assert (one[name].dtype, one[name].shape) == (two[name].dtype, two[name].shape), name
        assert one[name].tobytes() == two[name].tobytes(), name


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize(("optimizer", "precision"), [*product(OPTIMIZERS, ["fp32", "bf16"])])
def test_a_restored_engine_goes_on_bit_for_bit(optimizer, precision, cell):
    """Catches a moment, a step count, a state or a dropout position that the snapshot lacks."""
    skip_where_bf16_is_refused(precision, cell)
    shape = architecture(cell, layers=2, hidden=8)
    options = {"optimizer": optimizer, "precision": precision, "seed": 4}
    straight, state = made(shape, dropout=0.3, **options), None
    for step in range(4):
        if step == 2:
            parameters, arrays = straight.parameters(), straight.snapshot(state)
        _, _, state = straight.step(*batch(step), state, 0.02)
    resumed = made(shape, dropout=0.3, **options)
    resumed.load(parameters)
    again = resumed.restore(arrays, len(batch(0)[0]))
    assert_same(resumed.snapshot(again), arrays)
    for step in range(2, 4):
        _, _, again = resumed.step(*batch(step), again, 0.02)
    assert_same(resumed.parameters(), straight.parameters())
    assert_same(resumed.snapshot(again), straight.snapshot(state))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_learns(optimizer):
    """Catches an optimizer without its rate or parameter groups: the four patterns must be memorised."""
    engine = TorchEngine(EngineChoice("torch"), architecture(hidden=16), settings(optimizer=optimizer))
    engine.load(initial_parameters(engine.network.architecture, 0))
    inputs = np.tile(np.arange(4), (2, 3))
    rate = {"sgd": 0.5, "adagrad": 0.2, "rmsprop": 0.01}.get(optimizer, 0.05)
    for _ in range(60):
        nats, count, _ = engine.step(inputs, (inputs + 1) % 4, None, rate)
    assert nats / count < 0.1


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_bf16_is_close_to_fp32_and_keeps_masters_in_float32(cell):
    """Catches weights, moments or a state that are rounded to a mantissa of 8 bits."""
    skip_where_bf16_is_refused("bf16", cell)
    shape = architecture(cell, layers=2, hidden=16)
    full, half = made(shape, precision="fp32"), made(shape, precision="bf16")
    nats, count, _ = full.step(*batch(), None, 0.01)
    rounded, _, state = half.step(*batch(), None, 0.01)
    assert "bfloat16" in half.description
    assert nats != rounded
    assert nats / count == pytest.approx(rounded / count, rel=0.02)
    assert all(value.dtype == np.float32 for value in half.snapshot(state).values() if value.ndim)
    for name, value in half.parameters().items():
        assert not np.array_equal(torch.tensor(value).bfloat16().float().numpy(), value), name


def test_bf16_that_pytorch_lacks_is_refused_at_once(monkeypatch):
    """Catches a traceback of PyTorch at the first step, and fp32 without a notice if the precision is `bf16`."""
    monkeypatch.setattr(torch_device, "trains_in_bf16", lambda device, cell: cell != "lstm")
    asked = settings(engine="torch", precision="bf16")
    with pytest.raises(DeviceError, match=r"^`precision='bf16'` needs a CPU .* cell 'lstm' .*use `precision='fp32'`$"):
        choose_engine(asked, "lstm")
    choose_engine(asked, "gru")


def test_auto_trains_in_fp32_and_says_so_where_pytorch_lacks_bf16(monkeypatch):
    """Catches an error, or a slow run without a notice, on a processor whose bf16 units PyTorch does not use."""
    asked = settings(engine="torch", precision="auto")
    monkeypatch.setattr(torch_device, "has_matrix_units", lambda: True)
    monkeypatch.setattr(torch_device, "trains_in_bf16", lambda device, cell: True)
    assert choose_engine(asked, "lstm").precision == "bf16"
    assert slower_than_asked(asked, "lstm") is None
    monkeypatch.setattr(torch_device, "trains_in_bf16", lambda device, cell: False)
    assert choose_engine(asked, "lstm").precision == "fp32"
    assert "cannot train the cell 'lstm' in bf16" in slower_than_asked(asked, "lstm")
    assert slower_than_asked(asked, "gru") is None


def test_a_restored_snapshot_is_checked():
    """Catches a KeyError for a damaged resume file, and damage without an error."""
    shape = architecture(layers=2)
    engine = made(shape)
    _, _, state = engine.step(*batch(), None, 0.01)
    good = engine.snapshot(state)
    one = "optimizer.head.bias.exp_avg"
    damaged = {
        "steps must": {name: value for name, value in good.items() if name != "steps"},
        f"{one} is missing": {name: value for name, value in good.items() if name != one},
        "optimizer.odd.step is not expected": good | {"optimizer.odd.step": np.array(1.0)},
        f"{one} must be finite": good | {one: np.full(V, np.nan, np.float32)},
        f"{one} must be": good | {one: np.zeros(V + 1, np.float32)},
        "state.1 is missing": {name: value for name, value in good.items() if name != "state.1"},
        "state.0 must": good | {"state.0": good["state.0"][:1]},
        "state.1 must": good | {"state.1": good["state.1"][0]},
    }
    for message, arrays in damaged.items():
        with pytest.raises(ModelError, match=f"resume.safetensors: {message}"):
            made(shape).restore(arrays, len(batch()[0]))


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_here_is_one_clear_error(device):
    if {"cuda": torch.cuda, "mps": torch.backends.mps}[device].is_available():
        pytest.skip(f"{device} is here")
    with pytest.raises(DeviceError, match=f"^`device='{device}'` needs .* this machine has: cpu$"):
        choose_engine(settings(device=device), "lstm")


def test_auto_takes_what_is_here_and_says_so():
    asked = TrainingSettings(steps=1, engine="torch")
    engine = TorchEngine(choose_engine(asked, "lstm"), architecture(), asked)
    assert engine.description.startswith(f"torch {torch.__version__} on ")
    assert any(word in engine.description for word in ("float32", "bfloat16"))
