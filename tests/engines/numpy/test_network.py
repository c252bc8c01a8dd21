"""The gradients of the whole network, compared with central differences of its loss in float64."""

from __future__ import annotations

import numpy as np
import pytest

from charloom.engines.masks import dropout_stream
from charloom.engines.numpy.network import NOTHING, NumpyNetwork
from charloom.inference.network import InferenceNetwork, State
from charloom.inference.weights import InferenceWeights

V = 5


def batch(rows=2, width=3, seed=3):
    generator = np.random.default_rng(seed)
    return generator.integers(0, V, (rows, width)), generator.integers(0, V, (rows, width))


def state_of(network, random, rows):
    return tuple(random(*part.shape) for part in network.zero_state(rows))


def judge(network, inputs, targets, state, assert_slope, masks=None, d_state=None):
    """Compares the gradient of every parameter, and of the state."""

    def value():
        done = network.forward(inputs, targets, state, masks)
        return done.nats + sum(
            float((a * d).sum()) for a, d in zip(done.state, d_state or (), strict=d_state is not None)
        )

    found = network.backward(network.forward(inputs, targets, state, masks), d_state)
    assert found.parameters.keys() == network.parameters.keys()
    for name, gradient in found.parameters.items():
        assert_slope(value, network.parameters[name], gradient, name)
    for part, gradient in zip(state, found.state, strict=True):
        assert_slope(value, part, gradient, "state")


@pytest.mark.parametrize("loss", ["every", "last"])
def test_gradients_are_the_slopes_of_the_loss(
    random, architecture, weights, assert_slope, cell, layers, input_kind, loss
):
    """Catches a layer or an input without a backward pass, a wrong target, and a missing gradient of the state."""
    shape = architecture(cell, layers, input_kind)
    network = NumpyNetwork(shape, weights(shape))
    inputs, targets = batch()
    if loss == "last":
        targets[:, :-1] = NOTHING
    else:
        targets[0, 2] = targets[1, 0] = NOTHING
    judge(network, inputs, targets, state_of(network, random, 2), assert_slope)


@pytest.mark.parametrize("rows", [1, 2])
def test_gradients_of_a_single_step(random, architecture, weights, assert_slope, cell, layers, rows):
    """Catches a removed axis, and steps taken for rows, with T = 1 and B = 1."""
    shape = architecture(cell, layers)
    network = NumpyNetwork(shape, weights(shape))
    judge(network, *batch(rows, width=1), state_of(network, random, rows), assert_slope)


def test_a_gradient_can_come_in_from_beyond_the_last_step(random, architecture, weights, assert_slope, cell, layers):
    """Catches a gradient from the next batch that is ignored, or added to another layer."""
    shape = architecture(cell, layers)
    network = NumpyNetwork(shape, weights(shape))
    state, d_state = state_of(network, random, 2), state_of(network, random, 2)
    judge(network, *batch(), state, assert_slope, d_state=d_state)


def test_two_halves_chained_by_the_state_are_the_whole(random, architecture, weights, cell, layers):
    """Catches a wrong gradient of the state: passed to the batch before, it must give the gradient of one long
    batch.
    """
    shape = architecture(cell, layers)
    network = NumpyNetwork(shape, weights(shape))
    inputs, targets = batch(width=6)
    state = state_of(network, random, 2)
    whole = network.backward(network.forward(inputs, targets, state))
    first = network.forward(inputs[:, :4], targets[:, :4], state)
    second = network.forward(inputs[:, 4:], targets[:, 4:], first.state)
    late = network.backward(second)
    early = network.backward(first, late.state)
    for name, gradient in whole.parameters.items():
        np.testing.assert_allclose(early.parameters[name] + late.parameters[name], gradient, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(early.state, whole.state, rtol=1e-9, atol=1e-12)
    for n in range(layers):
        parts = np.concatenate([early.layers[n].hidden_TBH, late.layers[n].hidden_TBH])
        np.testing.assert_allclose(parts, whole.layers[n].hidden_TBH, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("locked", [False, True])
def test_gradients_with_dropout(random, architecture, weights, assert_slope, cell, layers, locked):
    """Catches a mask that is missing in the backward pass, and the mask of another layer."""
    shape = architecture(cell, layers, hidden=4)
    network = NumpyNetwork(shape, weights(shape))
    inputs, targets = batch()
    targets[1, 1] = NOTHING
    masks = network.dropout_masks(targets, 0.4, dropout_stream(1, 5), locked)
    assert all(0 < (mask == 0).mean() < 1 for mask in (*masks.between, masks.head))
    judge(network, inputs, targets, state_of(network, random, 2), assert_slope, masks)


def test_masks_differ_between_layers_and_follow_the_targets(architecture, weights):
    """Catches one mask for all layers, a head mask with rows without targets, and a locked mask with a time axis."""
    shape = architecture(layers=3, hidden=8)
    _, targets = batch()
    targets[0, 0] = NOTHING
    network = NumpyNetwork(shape, weights(shape))
    masks = network.dropout_masks(targets, 0.5, dropout_stream(0, 0))
    assert [mask.shape for mask in (*masks.between, masks.head)] == [(3, 2, 8), (3, 2, 8), (5, 8)]
    assert not np.array_equal(*masks.between)
    masks = network.dropout_masks(targets, 0.5, dropout_stream(0, 0), locked=True)
    assert [mask.shape for mask in (*masks.between, masks.head)] == [(1, 2, 8), (1, 2, 8), (2, 8)]


def test_logits_and_state_are_the_generators(random, architecture, weights, cell, layers, input_kind):
    """Catches training and generation with different cells: a low loss, but nonsense as text."""
    shape = architecture(cell, layers, input_kind)
    parameters = weights(shape)
    network, judge = NumpyNetwork(shape, parameters), InferenceNetwork(InferenceWeights(shape, parameters))
    inputs, targets = batch()
    state = state_of(network, random, 2)
    done = network.forward(inputs, targets, state)
    logits_BTV, after = judge.sequence(inputs, State(*state))
    expected = np.exp(logits_BTV) / np.exp(logits_BTV).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(done.head.probabilities_NV, expected.reshape(-1, V), rtol=1e-11)
    np.testing.assert_allclose(done.state[0], after.h_LBH, rtol=1e-11)
    if shape.cell == "lstm":
        np.testing.assert_allclose(done.state[1], after.c_LBH, rtol=1e-11)


def test_nothing_that_was_handed_in_is_changed(random, architecture, weights, cell):
    """Catches an in-place product that changes the caller's state or weights."""
    shape = architecture(cell, layers=2)
    parameters = weights(shape)
    network = NumpyNetwork(shape, parameters)
    inputs, targets = batch()
    state = state_of(network, random, 2)
    given = [inputs, targets, *state, *parameters.values()]
    kept = [array.copy() for array in given]
    done = network.forward(inputs, targets, state)
    after = [part.copy() for part in done.state]
    network.backward(done, state)
    for array, before in zip([*given, *done.state], [*kept, *after], strict=True):
        np.testing.assert_array_equal(array, before)
