"""The configuration of a Keras model; networks that charloom does not have are refused.

The configuration is JSON. No code is run: the name of its class identifies a layer. A Lambda layer holds marshalled
bytecode, and a custom class needs its author's program. Both are refused, like every layer that is not listed here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from charloom.errors import ModelError

RECURRENT = {"LSTM", "GRU", "SimpleRNN"}
IDENTITY = {
    "InputLayer",
    "Dropout",
    "SpatialDropout1D",
    "AlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "ActivityRegularization",
}
"""Layers that return their input unchanged after training."""
RANKS = {"Embedding": 0, **dict.fromkeys(RECURRENT, 1), "Dense": 2, "Activation": 3, "Softmax": 3}
"""The order of layers: a layer of lower rank must not follow one of higher rank."""


@dataclass(frozen=True)
class KerasConfig:
    """Facts that weights do not contain. nonlinearity: of SimpleRNN layers; recurrent: number of recurrent layers."""

    nonlinearity: Literal["tanh", "relu"]
    recurrent: int


def read_config(model: Any) -> KerasConfig:
    """Checks the configuration of a model.

    Args:
        model: the content of `config.json` or of the attribute `model_config`.

    Raises:
        ModelError: naming the first layer that charloom does not have.
    """
    _refuse_custom("the model", model)
    config = model["config"]
    entries = config if isinstance(config, list) else config.get("layers")  # a bare list before Keras 2.2.3
    if model["class_name"] not in ("Sequential", "Functional", "Model") or not entries:
        raise ModelError(
            f"a whole model must be Sequential or Functional; found {model['class_name']!r}, which is code; no code is "
            "run from a file; save only its weights: model.save_weights('x.weights.h5')"
        )
    _check_chain(entries)
    layers = [_unwrapped(entry) for entry in entries]
    for kind, layer in layers:
        _check_layer(kind, layer)
    _check_order([(kind, layer["name"]) for kind, layer in layers if kind not in IDENTITY])
    if sum(kind == "Softmax" or layer.get("activation") == "softmax" for kind, layer in layers) > 1:
        raise ModelError("a model must apply softmax once; found it twice")
    return KerasConfig(_nonlinearity(layers), sum(kind in RECURRENT for kind, _ in layers))


def refuse_without_weights(name: str, group: str) -> None:
    """Refuses a layer without weights, unless charloom has it, or it does nothing.

    Args:
        name: of the layer.
        group: its class as Keras 3 names groups, `input_layer`.

    Raises:
        ModelError: if it would change the result.
    """
    classes = {kind.lower(): kind for kind in (*IDENTITY, *RANKS, "Lambda")}
    kind = classes.get(group.replace("_", ""), group)
    refuse_code(name, kind)
    if kind not in classes.values():
        raise ModelError(f"{name} is a layer that charloom's networks do not have")


def refuse_code(name: str, kind: str) -> None:
    """Refuses a layer that is code.

    Raises:
        ModelError: for a Lambda layer.
    """
    if kind == "Lambda":
        raise ModelError(f"{name} is a Lambda layer, which is code; no code is run from a file")


def _refuse_custom(name: str, entry: Mapping[str, Any]) -> None:
    """Refuses a custom class: it has a registered name with `>`, or is not in Keras's module."""
    module, registered = str(entry.get("module") or "keras"), str(entry.get("registered_name") or "")
    if ">" in registered or not module.startswith("keras"):
        raise ModelError(f"{name} is of a custom class, {registered or module}; no code is run from a file")


def _unwrapped(entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A layer's class and configuration; for TimeDistributed, those of a Dense or similar layer inside."""
    kind, config = entry["class_name"], entry["config"]
    name = config.get("name", kind)
    refuse_code(name, kind)
    _refuse_custom(name, entry)
    if kind == "TimeDistributed":
        inner, inside = _unwrapped(config["layer"])
        if inner in IDENTITY | {"Dense", "Activation"}:
            return inner, inside
    return kind, {**config, "name": name}


def _check_layer(kind: str, layer: Mapping[str, Any]) -> None:
    name = layer["name"]
    if kind == "Bidirectional" or layer.get("go_backwards"):
        raise ModelError(f"a network that generates text must read forwards only; {name} reads backwards ({kind})")
    if kind not in IDENTITY and kind not in RANKS:
        raise ModelError(f"{name} is a layer that charloom's networks do not have, {kind}")
    if kind in RECURRENT:
        _check_recurrent(kind, layer)
    if kind in ("Dense", "Activation"):
        _check_option(layer, "activation", "linear", "softmax")
    if layer.get("mask_zero"):
        raise ModelError(f"{name} must read every character; with mask_zero it skips those of index 0")


def _check_recurrent(kind: str, layer: Mapping[str, Any]) -> None:
    """Checks the equations of a cell: tanh, the logistic function, and `reset_after` for a GRU."""
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
    """Checks the order of layers: embedding, cells, head."""
    for (below, _), (kind, name) in itertools.pairwise(layers):
        if RANKS[kind] < RANKS[below]:
            raise ModelError(f"{name} ({kind}) must not follow a {below}: the order is Embedding, cells, Dense")


def _check_chain(entries: list[Mapping[str, Any]]) -> None:
    """Checks that a functional model is a chain: the input of every layer is the layer before it, and nothing else."""
    for before, entry in zip([None, *entries], entries, strict=False):
        if "inbound_nodes" not in entry:
            continue
        expected = [] if before is None else [(_name(before), 0)]
        if _sources(entry["inbound_nodes"]) != expected:
            raise ModelError(
                f"a model must be a chain of layers; the input of {_name(entry)} is not the layer before it"
            )


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("name") or entry["config"]["name"])


def _sources(node: Any) -> list[tuple[str, int]]:
    """(layer, index of its output) of all tensors in `inbound_nodes`: every Keras writes [layer, node, output, …]."""
    if isinstance(node, list) and len(node) > 2 and isinstance(node[0], str) and isinstance(node[2], int):
        return [(node[0], node[2]), *_sources(node[3:])]
    inside = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [source for item in inside for source in _sources(item)]


def _nonlinearity(layers: list[tuple[str, dict[str, Any]]]) -> Literal["tanh", "relu"]:
    found = {layer["activation"] for kind, layer in layers if kind == "SimpleRNN"}
    if len(found) > 1:
        raise ModelError("all SimpleRNN layers must have the same activation; found tanh and relu")
    return "relu" if "relu" in found else "tanh"
