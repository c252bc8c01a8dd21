"""What a Keras configuration tells of a network, and the refusal of all that charloom's cells do not compute.

The configuration is JSON and is only read: a layer is known by its class's name. A Lambda layer holds marshalled
bytecode, a custom class needs its author's program; both are refused, like every layer that is not listed here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from charloom.errors import ModelError

RECURRENT = {"LSTM", "GRU", "SimpleRNN"}
QUIET = {
    "InputLayer",
    "Dropout",
    "SpatialDropout1D",
    "AlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "ActivityRegularization",
}
"""Layers that pass on what they get once training is over."""
RANKS = {"Embedding": 0, **dict.fromkeys(RECURRENT, 1), "Dense": 2, "Activation": 3, "Softmax": 3}
"""The order in which layers may stand."""


@dataclass(frozen=True)
class Told:
    """What the weights do not say: the nonlinearity of SimpleRNN layers, and how many recurrent layers there are."""

    nonlinearity: Literal["tanh", "relu"]
    recurrent: int


def told_by(model: Any) -> Told:
    """Checks a model's configuration.

    Args:
        model: what `config.json` or the attribute `model_config` holds.

    Raises:
        ModelError: naming the first layer that charloom's networks cannot be.
    """
    _refuse_custom("the model", model)
    config = model["config"]
    entries = config if isinstance(config, list) else config.get("layers")  # a bare list before Keras 2.2.3
    if model["class_name"] not in ("Sequential", "Functional", "Model") or not entries:
        raise ModelError(
            f"a whole model must be Sequential or Functional; found {model['class_name']!r}, which is code: no code is "
            "run from a file; save its weights alone: model.save_weights('x.weights.h5')"
        )
    _check_chain(entries)
    layers = [_unwrapped(entry) for entry in entries]
    for kind, layer in layers:
        _check_layer(kind, layer)
    _check_order([(kind, layer["name"]) for kind, layer in layers if kind not in QUIET])
    if sum(kind == "Softmax" or layer.get("activation") == "softmax" for kind, layer in layers) > 1:
        raise ModelError("a model must apply softmax once; found it twice, which is another function")
    return Told(_nonlinearity(layers), sum(kind in RECURRENT for kind, _ in layers))


def refuse_silent(name: str, group: str) -> None:
    """Refuses a layer that has no weights, unless it does nothing but what charloom's networks do.

    Args:
        name: of the layer.
        group: its class as Keras 3 names groups, `input_layer`.

    Raises:
        ModelError: if it would change what is computed.
    """
    classes = {kind.lower(): kind for kind in (*QUIET, *RANKS, "Lambda")}
    kind = classes.get(group.replace("_", ""), group)
    refuse_code(name, kind)
    if kind not in classes.values():
        raise ModelError(f"{name} is a layer that charloom's networks do not have")


def refuse_code(name: str, kind: str) -> None:
    """Refuses what only running code could compute.

    Raises:
        ModelError: for a Lambda layer.
    """
    if kind == "Lambda":
        raise ModelError(f"{name} is a Lambda layer, which is code; no code is run from a file")


def _refuse_custom(name: str, entry: Mapping[str, Any]) -> None:
    """A class of the author's own has a name of its own in Keras's registry, or comes from another module."""
    module, registered = str(entry.get("module") or "keras"), str(entry.get("registered_name") or "")
    if ">" in registered or not module.startswith("keras"):
        raise ModelError(f"{name} is of a custom class, {registered or module}; no code is run from a file")


def _unwrapped(entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A layer's class and configuration; TimeDistributed only says that its layer is applied to every step."""
    kind, config = entry["class_name"], entry["config"]
    name = config.get("name", kind)
    refuse_code(name, kind)
    _refuse_custom(name, entry)
    if kind == "TimeDistributed":
        inner, inside = _unwrapped(config["layer"])
        if inner in QUIET | {"Dense", "Activation"}:
            return inner, inside
    return kind, {**config, "name": name}


def _check_layer(kind: str, layer: Mapping[str, Any]) -> None:
    name = layer["name"]
    if kind == "Bidirectional" or layer.get("go_backwards"):
        raise ModelError(f"a network must read forwards only, to write; {name} reads backwards ({kind})")
    if kind not in QUIET and kind not in RANKS:
        raise ModelError(f"{name} is a layer that charloom's networks do not have, {kind}")
    if kind in RECURRENT:
        _check_recurrent(kind, layer)
    if kind in ("Dense", "Activation"):
        _check_option(layer, "activation", "linear", "softmax")
    if layer.get("mask_zero"):
        raise ModelError(f"{name} must read every character; with mask_zero it skips those of index 0")


def _check_recurrent(kind: str, layer: Mapping[str, Any]) -> None:
    """The cell's equation: charloom's cells have tanh and the logistic function, and a GRU that resets after."""
    _check_option(layer, "activation", *(("tanh", "relu") if kind == "SimpleRNN" else ("tanh",)))
    if kind != "SimpleRNN":
        _check_option(layer, "recurrent_activation", "sigmoid")
    if kind == "GRU" and not layer.get("reset_after"):
        raise ModelError(
            f"{layer['name']} must be a GRU with reset_after=True, the equation of charloom's cell; it has False"
        )


def _check_option(layer: Mapping[str, Any], name: str, *allowed: str) -> None:
    if layer.get(name) not in allowed:
        raise ModelError(
            f"{layer['name']}: {name} must be {' or '.join(allowed)}, as in charloom's networks; "
            f"found {layer.get(name)!r}"
        )


def _check_order(layers: list[tuple[str, str]]) -> None:
    """Embedding, cells, head; anything else in that place would be another network."""
    for (below, _), (kind, name) in itertools.pairwise(layers):
        if RANKS[kind] < RANKS[below]:
            raise ModelError(f"{name} ({kind}) must not stand behind a {below}: the order is Embedding, cells, Dense")


def _check_chain(entries: list[Mapping[str, Any]]) -> None:
    """A functional model must be a chain: every layer fed by the one before it and by nothing else."""
    for before, entry in zip([None, *entries], entries, strict=False):
        if "inbound_nodes" not in entry:
            continue
        expected = [] if before is None else [(_name(before), 0)]
        if _sources(entry["inbound_nodes"]) != expected:
            raise ModelError(
                f"a model must be a chain of layers; {_name(entry)} is fed by another than the one before it"
            )


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("name") or entry["config"]["name"])


def _sources(node: Any) -> list[tuple[str, int]]:
    """(layer, which of its outputs) of all tensors in `inbound_nodes`: any Keras writes [layer, node, output, …]."""
    if isinstance(node, list) and len(node) > 2 and isinstance(node[0], str) and isinstance(node[2], int):
        return [(node[0], node[2]), *_sources(node[3:])]
    inside = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [source for item in inside for source in _sources(item)]


def _nonlinearity(layers: list[tuple[str, dict[str, Any]]]) -> Literal["tanh", "relu"]:
    found = {layer["activation"] for kind, layer in layers if kind == "SimpleRNN"}
    if len(found) > 1:
        raise ModelError("all SimpleRNN layers must have the same activation; found tanh and relu")
    return "relu" if "relu" in found else "tanh"
