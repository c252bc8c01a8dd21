"""Uses of the weights of a run: a model to save, and a sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from charloom.architecture import Architecture
from charloom.checkpoint import ModelFolder
from charloom.config import Cleaning, TrainingSettings
from charloom.data.vocabulary import Vocabulary
from charloom.engines.initial import initial_parameters
from charloom.training.weights import NotFinite, sample, trained_model

VOCABULARY = Vocabulary("characters", ("a", "b", "c"))


class Engine:
    """An engine that only has parameters."""

    def __init__(self, parameters):
        self._parameters = parameters

    def parameters(self):
        return self._parameters


@pytest.fixture
def model():
    architecture = Architecture(
        cell="rnn", nonlinearity="relu", layers=1, hidden=4, input="onehot", embedding=2, vocabulary_size=3
    )
    return ModelFolder(
        architecture, VOCABULARY, initial_parameters(architecture, 0), Cleaning(), "none", {"corpus": "x"}
    )


def test_a_model_has_the_weights_of_the_engine_and_the_figures(model):
    """Catches the initial weights in place of the trained ones, and lost metadata."""
    weights = {name: value + 1 for name, value in model.parameters.items()}
    made = trained_model(model, Engine(weights), 7, {"validation_nats": 1.5})
    assert made.metadata == {"corpus": "x", "step": 7, "validation_nats": 1.5}
    assert made.parameters == weights
    assert model.metadata == {"corpus": "x"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_make_no_model(model, bad):
    """Catches a model that cannot be loaded, saved in place of a good one."""
    weights = dict(model.parameters)
    weights["head.bias"] = np.array([0, bad, 0], np.float32)
    with pytest.raises(NotFinite):
        trained_model(model, Engine(weights), 1, {})


def test_greedy_samples_differ_by_step(model):
    """Catches greedy samples that all begin with the same character."""
    settings = TrainingSettings(steps=1, sample_temperature=0, sample_length=1)
    assert len({sample(model, settings, step) for step in range(20)}) > 1


def test_a_state_that_explodes_gives_no_sample(model):
    """Catches an error that ends a run because a sample failed."""
    huge = {"rnn.weight_hh_l0": np.full((4, 4), 3e38, np.float32), "rnn.bias_hh_l0": np.ones(4, np.float32)}
    weights = {**model.parameters, **huge, "head.weight": np.full((3, 4), 3e38, np.float32)}
    assert sample(replace(model, parameters=weights), TrainingSettings(steps=1), 1) is None
