"""The optimizers, compared with values computed by hand. `test_against_torch.py` has many steps of each."""

from __future__ import annotations

import numpy as np
import pytest

from charloom.config import TrainingSettings
from charloom.engines.numpy import optimizers
from charloom.engines.resume import OPTIMIZER_MEMORY

KINDS = ["adamw", "adam", "rmsprop", "adagrad", "sgd"]


def after(gradients, rate=0.1, start=2.0, shape=(1, 1), **options):
    """The parameter after one step for each of these gradients."""
    settings = TrainingSettings(steps=1, **{"weight_decay": 0.0, **options})
    p = np.full(shape, start)
    keys = OPTIMIZER_MEMORY[settings.optimizer]
    memories = {"p": {key: np.zeros(() if key == "step" else shape) for key in keys}}
    for gradient in gradients:
        optimizers.step({"p": p}, {"p": np.full(shape, gradient)}, memories, rate, settings)
    return p.ravel()[0]


def test_two_steps_of_each():
    """Catches a momentum that is a mean, a root before the sum, and a missing bias correction."""
    assert after([1.0, 3.0], optimizer="sgd", momentum=0) == pytest.approx(2 - 0.1 - 0.3)
    assert after([1.0, 3.0], optimizer="sgd", momentum=0.5) == pytest.approx(2 - 0.1 * 1 - 0.1 * 3.5)
    assert after([1.0, 3.0], optimizer="sgd", momentum=0.5, nesterov=True) == pytest.approx(2 - 0.1 * 1.5 - 0.1 * 4.75)
    assert after([3.0, 4.0], optimizer="adagrad") == pytest.approx(2 - 0.1 * 3 / 3 - 0.1 * 4 / 5)
    assert after([1.0, 3.0], optimizer="rmsprop", beta2=0.75) == pytest.approx(
        2 - 0.1 * 1 / 0.25**0.5 - 0.1 * 3 / (0.75 * 0.25 + 0.25 * 9) ** 0.5
    )
    v = (0.75 * 0.25 * 1 + 0.25 * 9) / (1 - 0.75**2)
    for beta1, m in ((0.9, (0.9 * 0.1 * 1 + 0.1 * 3) / (1 - 0.81)), (0.5, (0.5 * 0.5 * 1 + 0.5 * 3) / 0.75), (0, 3)):
        for optimizer in ("adam", "adamw"):
            found = after([1.0, 3.0], optimizer=optimizer, beta1=beta1, beta2=0.75)
            assert found == pytest.approx(2 - 0.1 * 1 - 0.1 * m / v**0.5)


def test_epsilon_is_added_to_the_root_of_the_unbiased_square():
    """Catches epsilon inside the root or before the bias correction: then a gradient of epsilon's size takes half a
    step.
    """
    assert after([1e-8], optimizer="adam", beta2=0.75) == pytest.approx(2 - 0.1 / 2)
    assert after([1e-8], optimizer="rmsprop", beta2=0.75) == pytest.approx(2 - 0.1 / 1.5)
    assert after([1e-10], optimizer="adagrad") == pytest.approx(2 - 0.1 / 2)


@pytest.mark.parametrize("optimizer", KINDS)
def test_weight_decay_is_on_matrices_only(optimizer):
    """Catches a bias that decays, a matrix that does not, and AdamW's decay in the moments."""
    options = {"optimizer": optimizer, "weight_decay": 0.5, "momentum": 0.0}
    assert after([0.0], shape=(1,), **options) == 2.0
    decayed = {"adamw": 2 * (1 - 0.1 * 0.5), "sgd": 2 - 0.1 * 0.5 * 2, "rmsprop": 2 - 0.1 / 0.01**0.5}
    assert after([0.0], **options) == pytest.approx(decayed.get(optimizer, 2 - 0.1))


@pytest.mark.parametrize("optimizer", KINDS)
def test_a_parameter_without_gradients_stays_where_it_is(optimizer):
    """Catches 0 / 0 for a parameter that never had a gradient."""
    assert after([0.0, 0.0], optimizer=optimizer) == 2.0
