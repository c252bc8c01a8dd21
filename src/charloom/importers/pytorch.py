"""Checkpoints of PyTorch's character-level lessons: a dictionary with a `state_dict` and the characters.

The best known is Udacity's "Character-level LSTM in PyTorch" (`rnn_20_epoch.net`, Anna Karenina): `lstm` on one-hot
characters, `fc` as the head, `tokens` in the order of a Python set. Its many copies have other names and cells. So the
reader recognises layers by shapes and by PyTorch's own names (`weight_ih_l0`), and ignores all names in front of them,
such as those of `DataParallel` and `torch.compile`.

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

from charloom.cells import Floats
from charloom.data.reading import Notify
from charloom.errors import DeviceError, ModelError
from charloom.importers.imported import ImportedLayer, ImportedModel
from charloom.importers.limits import check_unpacked_size
from charloom.importers.tokens import in_order

STATES = ("state_dict", "model_state_dict", "model", "net")
TOKENS = ("tokens", "chars", "characters", "vocab", "int2char", "char2int", "idx2char", "char2idx", "itos", "stoi")
PARAMETER = re.compile(r"^(.*?)\.?(weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)(?:_l(\d+))?(_reverse)?$")

ArraysByLayer = dict[tuple[str, int], dict[str, Floats]]


def read_pytorch(path: Path, notice: Notify) -> ImportedModel:
    """The network in a PyTorch checkpoint. Nothing in the file is run.

    Args:
        path: of the file, a zip archive or the format before PyTorch 1.6.
        notice: called with one line for each assumption.

    Raises:
        DeviceError: without PyTorch.
        ModelError: if reading it needs code to be run, it is damaged, or it holds another kind of network.
    """
    checkpoint = _load(path)
    if not isinstance(checkpoint, Mapping):
        raise ModelError(f"the file must hold a dictionary with a state_dict; found a {type(checkpoint).__name__}")
    recurrent, others = _sorted({key: _array(key, tensor) for key, tensor in _state(checkpoint).items()})
    layers = [_layer(*item) for item in recurrent.items()]
    if not layers:
        raise ModelError("the file must hold a recurrent network (weight_ih_l0, …); found none")
    embedding_VE, head_VH, head_V = _ends(others)
    _report_assumptions(layers, recurrent, notice)
    return ImportedModel("PyTorch", tuple(layers), head_VH, head_V, embedding_VE, tokens=_tokens(checkpoint))


def _load(path: Path) -> Any:
    """The content of the file, read with `weights_only`: tensors, numbers, strings and containers of them."""
    try:
        import torch
    except ModuleNotFoundError:
        raise DeviceError("PyTorch files need PyTorch, which is not installed; run: pip install torch") from None
    file: Path | io.BytesIO = path
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_unpacked_size(sum(part.file_size for part in archive.infolist()), path.stat().st_size)
    else:  # from a file, torch allocates memory for a string of any declared size; from memory it reads real bytes only
        file = io.BytesIO(path.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols; an unreadable file is an error below
        try:
            return torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251 - weights_only runs no code
        except Exception as error:  # torch raises many classes
            raise ModelError(_refusal(str(error))) from None


def _refusal(message: str) -> str:
    """Why torch refused, in one line; its own message is a page long and advises to run the code."""
    if code := re.search(r"GLOBAL (\S+)", message):
        return (
            f"the file must hold only tensors, strings and numbers; it also needs {code[1]}, and no code is run "
            "from a file; save {'state_dict': net.state_dict(), 'tokens': list(net.chars)} instead"
        )
    return "the file must be a whole PyTorch, .keras or HDF5 checkpoint; it is damaged, or has another format"


def _state(checkpoint: Mapping[Any, Any]) -> dict[str, Any]:
    """The state dict: the value of one of its usual names, or all tensors of the checkpoint."""
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
    """A tensor as an array. Its memory is checked first: with strides of 0, one number would become terabytes."""
    if not _dense(tensor) or not tensor.is_floating_point() or str(tensor.layout) != "torch.strided":
        raise ModelError(f"{key} must be a tensor of floats; found {getattr(tensor, 'dtype', type(tensor).__name__)}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ModelError(f"{key} must have all its {tensor.numel():,} numbers in the file; it has fewer")
    try:
        array: Floats = tensor.detach().float().numpy()
    except RuntimeError:  # such as 4-bit numbers, two in a byte
        raise ModelError(f"{key} must be floats that PyTorch can convert to float32; found {tensor.dtype}") from None
    return array


def _sorted(state: Mapping[str, Floats]) -> tuple[ArraysByLayer, dict[str, dict[str, Floats]]]:
    """The arrays of recurrent layers by (module, layer), lowest first, and all other arrays by module."""
    recurrent: ArraysByLayer = {}
    others: dict[str, dict[str, Floats]] = {}
    for key, array in state.items():
        if match := PARAMETER.match(key):
            _check_array(key, match[2], match[4], array)
            recurrent.setdefault((match[1], int(match[3] or 0)), {})[match[2]] = array
        else:
            module, _, name = key.rpartition(".")
            others.setdefault(module, {})[name] = array
    modules = list(dict.fromkeys(module for module, _ in recurrent))
    places = sorted(recurrent, key=lambda place: (modules.index(place[0]), place[1]))
    for module, number in places:
        if number and (module, number - 1) not in recurrent:
            raise ModelError(f"{module} must have all its layers; number {number - 1} is missing")
    return {place: recurrent[place] for place in places}, others


def _check_array(key: str, name: str, reverse: str | None, array: Floats) -> None:
    if reverse:
        raise ModelError(f"a network that generates text must read forwards only; {key} belongs to a bidirectional one")
    if name == "weight_hr":
        raise ModelError(f"a layer must output all its units; {key} shows a projection (proj_size)")
    if array.ndim != (2 if name.startswith("weight") else 1):
        raise ModelError(f"{key} must be a {'matrix' if name.startswith('weight') else 'vector'}; found {array.shape}")


def _layer(place: tuple[str, int], arrays: dict[str, Floats]) -> ImportedLayer:
    """One layer; without biases (`bias=False`) both are zeros."""
    name = f"{place[0]} layer {place[1]}"
    missing = [part for part in ("weight_ih", "weight_hh") if part not in arrays]
    if missing:
        raise ModelError(f"{name} must have a {missing[0]}; the file has none")
    zeros_G = np.zeros(len(arrays["weight_hh"]), np.float32)
    biases = (arrays.get("bias_ih", zeros_G), arrays.get("bias_hh", zeros_G))
    return ImportedLayer(name, arrays["weight_ih"], arrays["weight_hh"], *biases)


def _ends(others: dict[str, dict[str, Floats]]) -> tuple[Floats | None, Floats, Floats]:
    """(embedding_VE or None, head_VH, head_V) from the modules that are not recurrent.

    Of two modules, the embedding is the one without a bias, else the first.
    """
    for module, arrays in others.items():
        if not {"weight"} <= arrays.keys() <= {"weight", "bias"} or arrays["weight"].ndim != 2:
            raise ModelError(
                f"beside recurrent layers there may be an embedding and one linear layer; {module} is neither: "
                f"{', '.join(sorted(arrays))}"
            )
    named = sorted(others.values(), key=lambda arrays: "bias" in arrays)
    if len(named) not in (1, 2) or sum("bias" in arrays for arrays in named) > 1:
        raise ModelError(
            "beside recurrent layers there must be one linear layer, and at most an embedding; "
            f"found {', '.join(others) or 'neither'}"
        )
    head = named[-1]
    bias_V = head.get("bias", np.zeros(len(head["weight"]), np.float32))
    return named[0]["weight"] if len(named) == 2 else None, head["weight"], bias_V


def _report_assumptions(layers: list[ImportedLayer], places: ArraysByLayer, notice: Notify) -> None:
    if layers[0].cell == "rnn":
        notice("the file does not say which nonlinearity the rnn has; assumed: tanh, PyTorch's default")
    modules = list(dict.fromkeys(module for module, _ in places))
    if len(modules) > 1:
        notice(f"the file does not say how its recurrent layers are connected; assumed: {' → '.join(modules)}")
