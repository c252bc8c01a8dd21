"""Checkpoints of PyTorch's character-level lessons: a dictionary with a `state_dict` and the characters.

The best known is Udacity's "Character-level LSTM in PyTorch" (`rnn_20_epoch.net`, Anna Karenina): `lstm` on one-hot
characters, `fc` as the head, `tokens` in the order of a Python set. Names and cells vary in the many copies of it, so
the parts are told by shapes and by PyTorch's own names (`weight_ih_l0`), not by what the lesson called them, nor by
what `DataParallel` or `torch.compile` put in front.

Shapes: V vocabulary size, E embedding, X a layer's input size, H hidden, G gates times H.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from charloom.data.reading import Notify
from charloom.errors import DeviceError, ModelError
from charloom.importers.imported import Floats, ImportedModel, Recurrent
from charloom.importers.limits import check_room
from charloom.importers.tokens import in_order

STATES = ("state_dict", "model_state_dict", "model", "net")
TOKENS = ("tokens", "chars", "characters", "vocab", "int2char", "char2int", "idx2char", "char2idx", "itos", "stoi")
PIECE = re.compile(r"^(.*?)\.?(weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)(?:_l(\d+))?(_reverse)?$")

Pieces = dict[tuple[str, int], dict[str, Floats]]


def read_pytorch(path: Path, notice: Notify) -> ImportedModel:
    """The network in a PyTorch checkpoint. Nothing in the file is run.

    Args:
        path: of the file, zipped or from before PyTorch 1.6.
        notice: told in a line what the file could not tell.

    Raises:
        DeviceError: without PyTorch.
        ModelError: if only running code could read it, or it is damaged, or of another kind.
    """
    checkpoint = _load(path)
    if not isinstance(checkpoint, Mapping):
        raise ModelError(f"the file must hold a dictionary with a state_dict; found a {type(checkpoint).__name__}")
    recurrent, others = _sorted({key: _array(key, tensor) for key, tensor in _state(checkpoint).items()})
    layers = [_layer(*item) for item in recurrent.items()]
    if not layers:
        raise ModelError("the file must hold a recurrent network (weight_ih_l0, …); found none")
    embedding_VE, head_VH, head_V = _ends(others)
    _say_what_is_assumed(layers, recurrent, notice)
    return ImportedModel("PyTorch", tuple(layers), head_VH, head_V, embedding_VE, tokens=_tokens(checkpoint))


def _load(path: Path) -> Any:
    """What the file holds, by `weights_only` alone: tensors, numbers, strings and containers of them."""
    try:
        import torch
    except ModuleNotFoundError:
        raise DeviceError("PyTorch files need PyTorch, which is not installed; run: pip install torch") from None
    file: Path | io.BytesIO = path
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_room(sum(part.file_size for part in archive.infolist()), path.stat().st_size)
    else:  # a pickle may claim a string of 4 GB: a file would make room for it before it finds that there is none
        file = io.BytesIO(path.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickle protocols: what cannot be read is refused below
        try:
            return torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251 - weights_only runs no code
        except Exception as error:  # torch raises whatever its parts raise
            raise ModelError(_refusal(str(error))) from None


def _refusal(message: str) -> str:
    """Why torch refused, in one line; its own page-long message recommends to run the code."""
    if code := re.search(r"GLOBAL (\S+)", message):
        return (
            f"the file must hold tensors, strings and numbers only; to read it, {code[1]} would have to run, and no "
            "code is run from a file; save {'state_dict': net.state_dict(), 'tokens': list(net.chars)} instead"
        )
    return "the file must be a whole PyTorch, .keras or HDF5 checkpoint; it is damaged, or something else"


def _state(checkpoint: Mapping[Any, Any]) -> dict[str, Any]:
    """The state dict: under one of its usual names, or all tensors of the checkpoint itself."""
    state = next((checkpoint[name] for name in STATES if isinstance(checkpoint.get(name), Mapping)), None)
    if state is None:
        state = {key: value for key, value in checkpoint.items() if _dense(value)}
    return {str(key): value for key, value in state.items()}


def _dense(value: Any) -> bool:
    return type(value).__name__ in ("Tensor", "Parameter")


def _tokens(checkpoint: Mapping[Any, Any]) -> tuple[str, ...] | None:
    found = next((checkpoint[name] for name in TOKENS if name in checkpoint), None)
    return None if found is None else in_order(found)


def _array(key: str, tensor: Any) -> Floats:
    """A tensor's numbers. Its memory is looked at first: strides of 0 make terabytes out of one number."""
    if not _dense(tensor) or not tensor.is_floating_point() or str(tensor.layout) != "torch.strided":
        raise ModelError(f"{key} must be a tensor of floats; found {getattr(tensor, 'dtype', type(tensor).__name__)}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ModelError(f"{key} must have all its {tensor.numel():,} numbers in the file; it has fewer")
    try:
        array: Floats = tensor.detach().float().numpy()
    except RuntimeError:  # two numbers of 4 bits in a byte
        raise ModelError(f"{key} must be floats that PyTorch can convert to float32; found {tensor.dtype}") from None
    return array


def _sorted(state: Mapping[str, Floats]) -> tuple[Pieces, dict[str, dict[str, Floats]]]:
    """The recurrent layers' pieces by (module, layer) from the lowest up, and all other arrays by module."""
    recurrent: Pieces = {}
    others: dict[str, dict[str, Floats]] = {}
    for key, array in state.items():
        if piece := PIECE.match(key):
            _check_piece(key, piece[2], piece[4], array)
            recurrent.setdefault((piece[1], int(piece[3] or 0)), {})[piece[2]] = array
        else:
            module, _, name = key.rpartition(".")
            others.setdefault(module, {})[name] = array
    modules = list(dict.fromkeys(module for module, _ in recurrent))
    places = sorted(recurrent, key=lambda place: (modules.index(place[0]), place[1]))
    for module, number in places:
        if number and (module, number - 1) not in recurrent:
            raise ModelError(f"{module} must have all its layers; number {number - 1} is missing")
    return {place: recurrent[place] for place in places}, others


def _check_piece(key: str, name: str, reverse: str | None, array: Floats) -> None:
    if reverse:
        raise ModelError(f"a network must read forwards only, to write; {key} says that this one is bidirectional")
    if name == "weight_hr":
        raise ModelError(f"a layer must pass on all its units; {key} says that this one projects them (proj_size)")
    if array.ndim != (2 if name.startswith("weight") else 1):
        raise ModelError(f"{key} must be a {'matrix' if name.startswith('weight') else 'vector'}; found {array.shape}")


def _layer(place: tuple[str, int], pieces: dict[str, Floats]) -> Recurrent:
    """One layer; `bias=False` leaves both biases out."""
    name = f"{place[0]} layer {place[1]}"
    missing = [piece for piece in ("weight_ih", "weight_hh") if piece not in pieces]
    if missing:
        raise ModelError(f"{name} must have a {missing[0]}; the file has none")
    zeros_G = np.zeros(len(pieces["weight_hh"]), np.float32)
    biases = (pieces.get("bias_ih", zeros_G), pieces.get("bias_hh", zeros_G))
    return Recurrent(name, pieces["weight_ih"], pieces["weight_hh"], *biases)


def _ends(others: dict[str, dict[str, Floats]]) -> tuple[Floats | None, Floats, Floats]:
    """(embedding_VE or None, head_VH, head_V) of what is not recurrent.

    Of two, the embedding is the one without a bias, or the first.
    """
    for module, pieces in others.items():
        if not {"weight"} <= pieces.keys() <= {"weight", "bias"} or pieces["weight"].ndim != 2:
            raise ModelError(
                f"beside recurrent layers there may be an embedding and one linear layer; {module} is neither: "
                f"{', '.join(sorted(pieces))}"
            )
    named = sorted(others.values(), key=lambda pieces: "bias" in pieces)
    if len(named) not in (1, 2) or sum("bias" in pieces for pieces in named) > 1:
        raise ModelError(
            "beside recurrent layers there must be one linear layer, and at most an embedding; "
            f"found {', '.join(others) or 'neither'}"
        )
    head = named[-1]
    bias_V = head.get("bias", np.zeros(len(head["weight"]), np.float32))
    return named[0]["weight"] if len(named) == 2 else None, head["weight"], bias_V


def _say_what_is_assumed(layers: list[Recurrent], places: Pieces, notice: Notify) -> None:
    if layers[0].cell == "rnn":
        notice("a file does not tell which nonlinearity an rnn has: tanh is assumed, PyTorch's default")
    modules = list(dict.fromkeys(module for module, _ in places))
    if len(modules) > 1:
        notice(f"the file does not tell how its recurrent layers are connected: assumed {' → '.join(modules)}")
