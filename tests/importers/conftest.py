"""Small imported models, and their comparison with the logits of the original."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from charloom.inference.network import InferenceNetwork
from charloom.inference.weights import InferenceWeights

ALPHABET = "dZ b\naé→c?"  # in no order, like a Python set


@pytest.fixture(scope="session")
def keras() -> ModuleType:
    """Keras on PyTorch, so that TensorFlow is not needed."""
    pytest.importorskip("torch")
    pytest.importorskip("h5py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        return pytest.importorskip("keras")


@pytest.fixture(scope="session")
def alphabet():
    """Ten characters in the order of the file, two of them not ASCII."""
    return tuple(ALPHABET)


@pytest.fixture(scope="session")
def characters(tmp_path_factory, alphabet):
    """The file of these characters."""
    path = tmp_path_factory.mktemp("characters") / "characters.txt"
    path.write_bytes("".join(alphabet).encode())
    return path


@pytest.fixture(scope="session")
def apart():
    """The largest difference between the logits of an imported model and of the original, over 40 random sequences.

    Computed in the original's precision. Tokens are matched here by what they are, independently of how the import
    renumbers them.
    """

    def apart(model, alphabet, original, last=False, softmax=False) -> float:
        ids_BT = np.random.default_rng(1).integers(0, len(alphabet), (40, 13))
        theirs_BTV = original(ids_BT)
        known = {character: index for index, character in enumerate(model.vocabulary.characters)}
        ours_V = np.array([known.get(token, model.vocabulary.unknown_id) for token in alphabet])
        parameters = {name: array.astype(theirs_BTV.dtype) for name, array in model.parameters.items()}
        network = InferenceNetwork(InferenceWeights(model.architecture, parameters))
        logits_BTV, _ = network.sequence(ours_V[ids_BT], network.initial_state(len(ids_BT)))
        logits_BTV = (logits_BTV[:, -1] if last else logits_BTV)[..., ours_V]
        if softmax:
            theirs_BTV, logits_BTV = np.log(theirs_BTV), logits_BTV - np.log(np.exp(logits_BTV).sum(-1, keepdims=True))
        assert theirs_BTV.shape == logits_BTV.shape
        assert np.ptp(theirs_BTV, axis=0).max() > 0.1, "an original that hardly depends on its input tests nothing"
        return float(np.abs(logits_BTV - theirs_BTV).max())

    return apart
