"""The engine contract on NumPy: resuming, dropout, padding, clipping. `test_network.py` tests its gradients."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from charloom.config import TrainingSettings
from charloom.engines.cpu import CpuEngine
from charloom.engines.engine import EngineChoice
from charloom.engines.initial import initial_parameters
from charloom.engines.numpy.arithmetic import NumpyArithmetic
from charloom.inference.network import InferenceNetwork
from charloom.inference.weights import InferenceWeights
from charloom.score import cross_entropy

OPTIMIZERS = ["adamw", "adam", "rmsprop", "adagrad", "sgd"]
PLAIN = {"optimizer": "sgd", "momentum": 0, "weight_decay": 0}
V, NOTHING = 5, -1


def settings(**values):
    return TrainingSettings(**{"steps": 10, "engine": "numpy", "threads": 1, "dropout": 0.0, **values})


def made(shape, dropout=0.0, dtype=np.float32, **values):
    """An engine with parameters large enough that no gate is linear."""
    engine = CpuEngine(EngineChoice("numpy"), shape, settings(dropout=dropout, **values), dtype=dtype)
    generator = np.random.default_rng(7)
    engine.load({name: generator.normal(0, 0.7, size) for name, size in shape.shapes.items()})
    return engine


def batch(seed=0, rows=3, width=4):
    generator = np.random.default_rng(seed)
    return generator.integers(0, V, (rows, width)), generator.integers(0, V, (rows, width))


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        assert (one[name].dtype, one[name].shape) == (two[name].dtype, two[name].shape), name
        assert one[name].tobytes() == two[name].tobytes(), name


def change(engine, inputs, targets, state=None):
    """The change of the parameters in one step of plain descent at rate 1: the gradient that the optimizer received."""
    before = engine.parameters()
    engine.step(inputs, targets, state, 1.0)
    after = engine.parameters()
    return np.concatenate([(before[name] - after[name]).ravel() for name in before])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_restored_engine_goes_on_bit_for_bit(architecture, cell, optimizer):
    """Catches a moment, a step count, a state or a dropout position that the snapshot lacks, or shares with the
    engine.
    """
    shape = architecture(cell, layers=2, hidden=8)
    options = {"optimizer": optimizer, "seed": 4, "threads": 2}
    straight, state = made(shape, dropout=0.3, **options), None
    for step in range(4):
        if step == 2:
            parameters, arrays = straight.parameters(), straight.snapshot(state)
        _, _, state = straight.step(*batch(step, rows=16), state, 0.02)
    resumed = CpuEngine(EngineChoice("numpy"), shape, settings(dropout=0.3, **options))
    resumed.load(parameters)
    again = resumed.restore(arrays, 16)
    assert_same(resumed.snapshot(again), arrays)
    for step in range(2, 4):
        _, _, again = resumed.step(*batch(step, rows=16), again, 0.02)
    assert_same(resumed.parameters(), straight.parameters())
    assert_same(resumed.snapshot(again), straight.snapshot(state))


def test_before_the_first_step_there_is_little_to_remember(architecture):
    """Catches a snapshot of step 0, which every run saves, that cannot be restored."""
    for optimizer in OPTIMIZERS:
        engine = made(architecture(), optimizer=optimizer)
        arrays = engine.snapshot(None)
        assert made(architecture(), optimizer=optimizer).restore(arrays, 0) is None
        assert len(arrays) == (1 + 2 * len(architecture().shapes) if optimizer == "adagrad" else 1)


def test_everything_stays_float32(architecture, cell, input_kind):
    """Catches a float64 number, which makes all that follows half as fast."""
    engine = made(architecture(cell, layers=2, input_kind=input_kind), dropout=0.3, clip=0.1, clip_value=0.05)
    _, _, state = engine.step(*batch(), None, 0.01)
    assert all(part.dtype == np.float32 for part in state)
    done = engine._network.forward(*batch(), state)
    gradients = engine._network.backward(done)
    arrays = [*gradients.parameters.values(), *gradients.state, done.head.probabilities_NV, *gradients.layers[0][:1]]
    assert all(array.dtype == np.float32 for array in arrays)
    snapshot = engine.snapshot(state)
    assert all(value.dtype == np.float32 for name, value in snapshot.items() if name != "steps")


def test_score_is_what_the_generator_makes_of_the_same_weights(architecture, cell):
    """Catches: values in another order than the targets, a value without a target, a state that is not carried."""
    shape = architecture(cell, layers=2)
    engine = made(shape, dtype=np.float64, threads=2)
    inputs, targets = batch(rows=20)
    judge = InferenceNetwork(
        InferenceWeights(shape, {name: value.astype(float) for name, value in engine._parameters.items()})
    )
    logits_BTV, after = judge.sequence(inputs, judge.initial_state(20))
    targets[3, 1:] = NOTHING
    wanted = targets != NOTHING
    nats_N, correct_N, state = engine.score(inputs, targets, None)
    both = zip(logits_BTV[wanted], targets[wanted], strict=True)
    singly = [cross_entropy(logits_V[None], target[None]) for logits_V, target in both]
    np.testing.assert_allclose(nats_N, [nats for nats, _ in singly], rtol=1e-12)
    assert correct_N.tolist() == [bool(correct) for _, correct in singly]
    np.testing.assert_allclose(state[0], after.h_LBH, rtol=1e-12)


def test_a_long_sequence_is_scored_in_chunks(architecture, cell):
    """Catches: a state that is not carried to the next chunk, a missing last chunk, values in the order of chunks."""
    engine = made(architecture(cell, layers=2), dtype=np.float64)
    inputs, targets = batch(rows=2, width=2 * NumpyArithmetic.CHUNK + 5)
    targets[0, NumpyArithmetic.CHUNK - 3 :: 2] = NOTHING
    nats_N, correct_N, state = engine.score(inputs, targets, None)
    whole = engine._network.forward(inputs, targets)
    np.testing.assert_allclose(nats_N, whole.nats_N, rtol=1e-12)
    np.testing.assert_array_equal(correct_N, whole.correct_N)
    np.testing.assert_allclose(state, whole.state, rtol=1e-12)


def test_padding_changes_neither_loss_nor_gradient(architecture, cell):
    """Catches padding that is predicted, counted in the mean, or read before the sequence."""
    shape = architecture(cell, layers=2)
    inputs, targets = batch(rows=2, width=5)
    targets[1, 3:] = NOTHING
    inputs[1, 3:] = 0
    other = inputs.copy()
    other[1, 3:] = V - 1

    def gradient(inputs, targets):
        return change(made(shape, dtype=np.float64, clip=0, **PLAIN), inputs, targets)

    np.testing.assert_array_equal(gradient(other, targets), gradient(inputs, targets))
    alone, cut = gradient(inputs[:1], targets[:1]), gradient(inputs[1:, :3], targets[1:, :3])
    np.testing.assert_allclose(gradient(inputs, targets), (5 * alone + 3 * cut) / 8, atol=1e-6)
    assert made(shape).step(inputs, targets, None, 0.1)[1] == 8


def test_a_batch_without_targets_learns_nothing_and_carries_the_state(architecture):
    """Catches a mean over no targets: it is NaN and would end the run."""
    shape = architecture()
    inputs, targets = batch()
    engine = made(shape, **PLAIN)
    before = engine.parameters()
    nats, count, state = engine.step(inputs, np.full_like(targets, NOTHING), None, 0.1)
    assert (nats, count) == (0, 0)
    assert_same(before, engine.parameters())
    np.testing.assert_array_equal(state, engine.score(inputs, targets, None)[2])


def test_scoring_leaves_training_as_it_was(architecture):
    """Catches a validation that uses dropout's random numbers, counts as a step, drops units, or changes the state."""
    shape = architecture(layers=2, hidden=8)
    straight, measured = made(shape, dropout=0.3), made(shape, dropout=0.3)
    ends = []
    for engine, scores in ((straight, False), (measured, True)):
        state = None
        for step in range(3):
            _, _, state = engine.step(*batch(step), state, 0.02)
            if scores:
                engine.score(*batch(50), state)
        ends.append((engine.parameters(), engine.snapshot(state)))
    assert_same(ends[0][0], ends[1][0])
    assert_same(ends[0][1], ends[1][1])
    plain, dropped = (made(shape, dropout=share).score(*batch(), None)[0] for share in (0.0, 0.5))
    np.testing.assert_array_equal(plain, dropped)


def test_dropout_differs_by_step_and_by_seed_and_not_by_threads(architecture):
    """Catches the same dropped units in every step, and others with another number of threads."""
    shape = architecture(layers=2, hidden=8)

    def losses(seed, threads=1):
        engine = made(shape, dropout=0.5, seed=seed, threads=threads)
        return [engine.step(*batch(rows=16), None, 0.0)[0] for _ in range(3)]

    assert losses(0) == losses(0)
    assert losses(0, threads=2) == pytest.approx(losses(0), rel=1e-6)
    assert len({*losses(0), *losses(1)}) == 6


def test_threads_share_a_batch_and_repeat_bit_for_bit(architecture):
    """Catches gradients summed in the order in which threads end, and BLAS threads inside our threads."""
    shape = architecture(hidden=32)
    inputs, targets = batch(rows=32, width=16)
    one = change(made(shape, threads=1, **PLAIN), inputs, targets)
    several = [change(made(shape, threads=3, **PLAIN), inputs, targets) for _ in range(5)]
    for other in several:
        np.testing.assert_array_equal(other, several[0])
    np.testing.assert_allclose(several[0], one, atol=1e-5)


def test_blas_has_one_thread_at_work_and_as_many_as_before_after_it(architecture, monkeypatch):
    """Catches OpenBLAS threads inside our threads, and a limit that stays in the program that imported charloom."""
    engine, seen = made(architecture()), []
    work = engine._network.forward

    def spied(*rows):
        seen.extend(found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas")
        return work(*rows)

    monkeypatch.setattr(engine._network, "forward", spied)
    with engine._arithmetic._libraries.limit(limits=2, user_api="blas"):
        before = threadpool_info()
        engine.step(*batch(), None, 0.1)
        assert threadpool_info() == before
    assert set(seen) <= {1}  # empty if threadpoolctl does not know NumPy's BLAS


def test_clipping_is_by_value_first_and_then_by_norm(architecture):
    """Catches a norm of the values before clipping, a short gradient made longer, and clipping per parameter."""
    whole = change(made(architecture(), clip=0, **PLAIN), *batch())
    assert abs(whole).max() > 0.02
    by_value = change(made(architecture(), clip=0, clip_value=0.01, **PLAIN), *batch())
    np.testing.assert_allclose(by_value, whole.clip(-0.01, 0.01), atol=1e-6)
    both = change(made(architecture(), clip=0.02, clip_value=0.01, **PLAIN), *batch())
    np.testing.assert_allclose(both, by_value * 0.02 / np.linalg.norm(by_value), atol=1e-6)
    np.testing.assert_array_equal(change(made(architecture(), clip=1000.0, **PLAIN), *batch()), whole)


def test_numbers_that_overflow_end_in_a_loss_that_is_not_finite(architecture):
    """Catches a warning about overflow: the trainer checks the loss and returns to the last checkpoint."""
    engine = made(architecture(("rnn", "relu")))
    engine.load({name: np.full(shape, 3e38) for name, shape in architecture(("rnn", "relu")).shapes.items()})
    assert not np.isfinite(engine.step(*batch(), None, 0.1)[0])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_learns(architecture, optimizer):
    """Catches an optimizer without its rate or moments: the four patterns must be memorised."""
    shape = architecture(hidden=16)
    engine = CpuEngine(EngineChoice("numpy"), shape, settings(optimizer=optimizer))
    engine.load(initial_parameters(shape, 0))
    inputs = np.tile(np.arange(4), (2, 3))
    rate = {"sgd": 0.5, "adagrad": 0.2, "rmsprop": 0.01}.get(optimizer, 0.05)
    for _ in range(60):
        nats, count, _ = engine.step(inputs, (inputs + 1) % 4, None, rate)
    assert nats / count < 0.1


def test_parameters_are_copies(architecture):
    """Catches weights for a checkpoint that change while they are saved."""
    engine = made(architecture())
    taken = engine.parameters()
    kept = {name: value.copy() for name, value in taken.items()}
    engine.step(*batch(), None, 0.1)
    assert_same(taken, kept)


def test_description_names_engine_precision_and_threads(architecture):
    assert made(architecture(), threads=2).description == f"numpy {np.__version__} by hand, float32, 2 threads"
    assert made(architecture(), threads=1).description.endswith("float32, 1 thread")
