"""The checks of a snapshot before an engine restores it."""

from __future__ import annotations

import numpy as np
import pytest

from charloom.architecture import Architecture
from charloom.config import TrainingSettings
from charloom.engines.resume import OPTIMIZER_MEMORY, checked_steps, state_parts
from charloom.errors import ModelError

SHAPE = Architecture(
    cell="lstm", nonlinearity="tanh", layers=2, hidden=3, input="onehot", embedding=2, vocabulary_size=5
)


def snapshot(steps=7, optimizer="adamw"):
    arrays = {"steps": np.array(steps), **{f"state.{n}": np.zeros((2, 4, 3), np.float32) for n in (0, 1)}}
    for name, shape in SHAPE.shapes.items():
        for key in OPTIMIZER_MEMORY[optimizer]:
            arrays[f"optimizer.{name}.{key}"] = np.zeros(() if key == "step" else shape, np.float32)
    return arrays


def checked(arrays, batch=4, **options):
    return checked_steps(arrays, SHAPE, TrainingSettings(steps=1, **options), batch)


def test_whole_snapshots_are_taken():
    """Catches a check that refuses a valid snapshot: of step 0, without a state, in any precision."""
    assert checked(snapshot()) == 7
    assert checked({name: value for name, value in snapshot().items() if "state" not in name}, 0) == 7
    assert checked({name: np.asarray(v, v.dtype if name == "steps" else float) for name, v in snapshot().items()}) == 7
    assert checked({"steps": np.array(0)}, 0) == 0
    assert checked({"steps": np.array(9)}, 0, optimizer="sgd", momentum=0.0) == 9
    assert checked(snapshot(0, "adagrad"), optimizer="adagrad") == 0


def test_a_state_that_the_next_step_does_not_read_is_no_obstacle():
    """Catches an error for a state that the next step does not read, as earlier versions saved it."""
    assert checked(snapshot(), 0) == 7
    assert state_parts(snapshot(), 0) == []
    assert [part.shape for part in state_parts(snapshot(), 4)] == [(2, 4, 3)] * 2


@pytest.mark.parametrize("batch", [1, 3, 5, 8])
def test_the_state_must_have_as_many_rows_as_the_next_step(batch):
    """Catches a read beyond the state: the kernels read one row for each sequence."""
    with pytest.raises(ModelError, match=rf"state.0 must be finite \(2, {batch}, 3\); found float32 \(2, 4, 3\)"):
        checked(snapshot(), batch)
    with pytest.raises(ModelError, match=r"state.0 is missing"):
        checked({name: value for name, value in snapshot().items() if "state" not in name}, batch)


@pytest.mark.parametrize(
    ("message", "name", "value"),
    [
        ("steps must be a count; it is missing or damaged", "steps", None),
        ("steps must be a count; it is missing or damaged", "steps", np.array(-1)),
        ("steps must be a count; it is missing or damaged", "steps", np.array(1.0)),
        ("optimizer.head.bias.exp_avg is missing", "optimizer.head.bias.exp_avg", None),
        ("optimizer.odd.step is not expected", "optimizer.odd.step", np.array(1.0)),
        (
            r"optimizer.head.bias.exp_avg must be finite \(5,\); found float64 \(6,\)",
            "optimizer.head.bias.exp_avg",
            np.zeros(6),
        ),
        ("optimizer.head.bias.exp_avg must be finite", "optimizer.head.bias.exp_avg", np.full(5, np.nan)),
        ("optimizer.head.bias.step must be finite", "optimizer.head.bias.step", np.array(1)),
        ("optimizer.head.bias.step must be a count from 0 to 7", "optimizer.head.bias.step", np.array(-1.0)),
        ("optimizer.head.bias.step must be a count from 0 to 7", "optimizer.head.bias.step", np.array(8.0)),
        ("state.1 is missing", "state.1", None),
        ("state.0 must be finite", "state.0", np.zeros((1, 4, 3))),
        ("state.1 must be finite", "state.1", np.zeros((2, 5, 3))),
    ],
)
def test_damage_is_named(message, name, value):
    """Catches a KeyError for a damaged resume file, and damage without an error."""
    arrays = {key: array for key, array in snapshot().items() if key != name}
    if value is not None:
        arrays[name] = value
    with pytest.raises(ModelError, match=f"^resume.safetensors: {message}"):
        checked(arrays)


def test_the_settings_say_what_must_be_there():
    """Catches Adam's arrays for a run with rmsprop: they have another meaning."""
    with pytest.raises(ModelError, match=r"is (missing|not expected)"):
        checked(snapshot(), optimizer="rmsprop")
