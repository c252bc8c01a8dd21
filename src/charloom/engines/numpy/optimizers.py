"""Five kinds of gradient descent. Each equals PyTorch's, including all constants.

An update changes a parameter p and its memory (under PyTorch's names) in place. d is the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from charloom.cells import Floats
from charloom.config import TrainingSettings

Memory = dict[str, Floats]
Update = Callable[[Floats, Floats, Memory, float], None]

EPSILON, ADAGRAD_EPSILON = 1e-8, 1e-10  # PyTorch's: they keep a step finite if all gradients were zero


def step(
    parameters: Mapping[str, Floats],
    gradients: Mapping[str, Floats],
    memories: Mapping[str, Memory],
    rate: float,
    settings: TrainingSettings,
) -> None:
    """One step of every parameter by the optimizer of the settings. Makes the gradients invalid.

    Weight decay adds the gradient of ½ decay p² (L2) to p's gradient. AdamW instead subtracts the decay from p itself,
    outside the mean of gradients (Loshchilov & Hutter 2019).
    """
    update = _update(settings)
    for name, p in parameters.items():
        d, memory = gradients[name], memories[name]
        if settings.optimizer == "adamw":
            np.multiply(p, 1 - rate * decay(p, settings), out=p)
        elif decay(p, settings):
            d += decay(p, settings) * p
        if "step" in memory:
            memory["step"] += 1
        update(p, d, memory, rate)


def decay(p: Floats, settings: TrainingSettings) -> float:
    """The weight decay of a parameter. It applies to matrices only: biases do not need it."""
    return settings.weight_decay if p.ndim > 1 else 0.0


def sgd(p: Floats, d: Floats, memory: Memory, rate: float, momentum: float = 0.0, nesterov: bool = False) -> None:
    """v ← μ v + d; p ← p - rate v (momentum, Polyak 1964), or p ← p - rate (d + μ v) (Nesterov's, in the form of
    Sutskever et al. 2013). μ = 0 is plain gradient descent, which has no memory.
    """
    if momentum:
        velocity = memory["momentum_buffer"]
        velocity *= momentum
        velocity += d
        d = d + momentum * velocity if nesterov else velocity
    p -= rate * d


def adagrad(p: Floats, d: Floats, memory: Memory, rate: float) -> None:
    """s ← s + d²; p ← p - rate d / (√s + ε) (Duchi, Hazan & Singer 2011)."""
    memory["sum"] += d * d
    p -= _quotient(rate * d, memory["sum"], ADAGRAD_EPSILON)


def rmsprop(p: Floats, d: Floats, memory: Memory, rate: float, beta2: float) -> None:
    """s ← β s + (1 - β) d²; p ← p - rate d / (√s + ε) (Tieleman & Hinton 2012)."""
    _average(memory["square_avg"], d * d, beta2)
    p -= _quotient(rate * d, memory["square_avg"], EPSILON)


def adam(p: Floats, d: Floats, memory: Memory, rate: float, beta1: float, beta2: float) -> None:
    """m ← β₁ m + (1 - β₁) d; v ← β₂ v + (1 - β₂) d²; p ← p - rate m̂ / (√v̂ + ε) (Kingma & Ba 2015).

    m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ) correct for the start at 0, t steps ago.
    """
    t = float(memory["step"])
    _average(memory["exp_avg"], d, beta1)
    _average(memory["exp_avg_sq"], d * d, beta2)
    unbiased_rate, epsilon = adam_corrections(rate, beta1, beta2, t)
    p -= _quotient(unbiased_rate * memory["exp_avg"], memory["exp_avg_sq"], epsilon)


def adam_corrections(rate: float, beta1: float, beta2: float, t: float) -> tuple[float, float]:
    """(rate', ε') such that rate' m / (√v + ε') = rate m̂ / (√v̂ + ε)."""
    return rate * (1 - beta2**t) ** 0.5 / (1 - beta1**t), EPSILON * (1 - beta2**t) ** 0.5


def _average(mean: Floats, value: Floats, kept: float) -> None:
    """mean ← kept mean + (1 - kept) value, in place."""
    mean *= kept
    mean += (1 - kept) * value


def _quotient(above: Floats, square: Floats, epsilon: float) -> Floats:
    """above / (√square + ε), in place of `above`."""
    root = np.sqrt(square)
    root += epsilon
    above /= root
    return above


def _update(settings: TrainingSettings) -> Update:
    """The update that the settings name."""
    if settings.optimizer == "sgd":
        return partial(sgd, momentum=settings.momentum, nesterov=settings.nesterov)
    if settings.optimizer == "adagrad":
        return adagrad
    if settings.optimizer == "rmsprop":
        return partial(rmsprop, beta2=settings.beta2)
    return partial(adam, beta1=settings.beta1, beta2=settings.beta2)
