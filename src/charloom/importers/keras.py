"""Models of Keras: `.keras`, `.weights.h5` and the HDF5 files of Keras 2 (`model.save("x.h5")`).

h5py reads them. There are three layouts:

- Keras 3: a group `vars` for every layer, with arrays `0`, `1`, …; groups are named after the layer's class and
  numbered (`lstm`, `lstm_1`, …) in the order of the model's layers. A `.keras` file is a zip of one and `config.json`.
- Keras 2: `layer_names` lists the groups and each group's `weight_names` its arrays (`lstm/lstm_cell/kernel:0`), below
  `model_weights` if the whole model was saved, with its configuration in the attribute `model_config`.

Keras multiplies from the left (x W), so every matrix is transposed. Gate orders: LSTM i, f, c, o, which are PyTorch's
i, f, g, o; GRU z, r, h, which are PyTorch's z, r, n in another order, and z keeps the old state in both.

Shapes: V vocabulary size, E embedding, X a layer's input size, H hidden, G gates times H.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charloom.cells import Floats
from charloom.data.reading import Notify
from charloom.errors import DeviceError, ModelError
from charloom.files import LARGEST_TEXT
from charloom.importers.imported import ImportedLayer, ImportedModel
from charloom.importers.keras_config import KerasConfig, read_config, refuse_code, refuse_without_weights
from charloom.importers.limits import check_unpacked_size

WEIGHTS, CONFIG = "model.weights.h5", "config.json"  # the members of a .keras file
GATE_ORDER = {1: (0,), 3: (1, 0, 2), 4: (0, 1, 2, 3)}  # for PyTorch's gates in order: the position in Keras's order
NOT_LAYERS = re.compile(r"^optimizer/|^_?(compile_)?metrics/|/seed_generator/")  # other groups with `vars`, in Keras 3


@dataclass(frozen=True, eq=False)
class KerasLayer:
    """The arrays of one layer, as in the file. hint: another name of the layer in the file."""

    name: str
    hint: str
    arrays: tuple[Floats, ...]

    @property
    def recurrent(self) -> bool:
        """Whether the arrays are a kernel, a recurrent kernel and perhaps a bias."""
        return len(self.arrays) in (2, 3) and self.arrays[1].ndim == 2

    @property
    def embedding(self) -> bool:
        """Whether this is an embedding; only its name tells it from a linear layer without a bias."""
        return len(self.arrays) == 1 and "emb" in f"{self.name} {self.hint}".lower()


def read_archive(path: Path, notice: Notify) -> ImportedModel:
    """The network in a `.keras` file; arguments and errors of `read_hdf5`."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.getinfo(name) for name in (CONFIG, WEIGHTS)}
        check_unpacked_size(sum(part.file_size for part in parts.values()), path.stat().st_size)
        if parts[CONFIG].file_size > LARGEST_TEXT:
            raise ModelError(f"{CONFIG} must be at most {LARGEST_TEXT} bytes; it has {parts[CONFIG].file_size}")
        config, weights = archive.read(CONFIG), archive.read(WEIGHTS)
    model_config = read_config(json.loads(config))
    return _network("Keras (.keras)", _stored(io.BytesIO(weights), len(weights))[0], model_config, notice)


def read_hdf5(path: Path, notice: Notify) -> ImportedModel:
    """The network in an HDF5 file of any Keras. Nothing in the file is run.

    Args:
        path: of the file.
        notice: called with one line for each assumption.

    Raises:
        DeviceError: without h5py.
        ModelError: if charloom does not have such a network, or the file unpacks to too many bytes.
    """
    layers, config_json, layout = _stored(path, path.stat().st_size)
    model_config = None if config_json is None else read_config(json.loads(config_json))
    return _network(f"{layout} {'weights' if model_config is None else 'model'}", layers, model_config, notice)


def _stored(file: Path | io.BytesIO, size: int) -> tuple[list[KerasLayer], str | bytes | None, str]:
    """(layers with arrays in the model's order, the configuration as JSON or None, the layout's name)."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise DeviceError("Keras files need h5py, which is not installed; run: pip install h5py") from None
    with h5py.File(file, "r") as root:
        group = _child(root, "model_weights") if "model_weights" in root else root
        if "layer_names" in group.attrs:
            return _keras_2(group, size), root.attrs.get("model_config"), "Keras HDF5"
        return _keras_3(root, size), None, "Keras 3"


def _child(group: Any, name: str) -> Any:
    """A member of a group; a link is refused, because it may point into another file."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ModelError(f"{name} must be in the file itself; found a link to it, or nothing")
    return group[name]


def _datasets(group: Any, size: int, without: re.Pattern[str]) -> dict[str, Floats]:
    """All arrays below a group, by path. No link to another file is followed."""
    import h5py

    found: dict[str, Any] = {}
    group.visititems(lambda path, item: found.update({path: item}) if isinstance(item, h5py.Dataset) else None)
    found = {path: item for path, item in found.items() if not without.search(path.replace("\\", "/"))}
    for path, item in found.items():
        if item.external or item.is_virtual or item.dtype.kind != "f":
            raise ModelError(f"{path} must be floats in the file itself; found {item.dtype}, or a link to another file")
    check_unpacked_size(sum(item.nbytes for item in found.values()), size)
    return {path: item[()] for path, item in found.items()}


def _keras_2(group: Any, size: int) -> list[KerasLayer]:
    datasets, layers = _datasets(group, size, re.compile("^$")), []
    for layer in _names(group.attrs["layer_names"]):
        refuse_code(layer, "Lambda" if _numbered(layer)[0][0] == "lambda" else "")
        weights = _names(_child(group, layer).attrs["weight_names"])
        layers.append(KerasLayer(layer, " ".join(weights), tuple(datasets[f"{layer}/{weight}"] for weight in weights)))
    return [layer for layer in layers if layer.arrays]


def _names(attribute: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in attribute]


def _keras_3(root: Any, size: int) -> list[KerasLayer]:
    """Layers from their numbered groups; layers of one class are in the model's order."""
    if "layers" in root:
        _check_without_weights(_child(root, "layers"))
    places: dict[str, dict[int, Floats]] = {}
    for path, array in _datasets(root, size, NOT_LAYERS).items():
        place, _, number = path.rpartition("/vars/")
        if not number.isdecimal():
            raise ModelError(f"a Keras weights file must hold arrays in groups named vars; found {path}")
        places.setdefault(place, {})[int(number)] = array
    layers = []
    for place, arrays in sorted(places.items(), key=lambda item: _numbered(item[0])):
        # Strings are read only if needed: for a damaged string, the HDF5 library did not return.
        hint = _given_name(root[place]) if len(arrays) == 1 and "emb" not in place else ""
        layers.append(KerasLayer(_layer_name(place), hint, tuple(arrays[number] for number in sorted(arrays))))
    return layers


def _numbered(place: str) -> list[tuple[str, int]]:
    """A key that sorts `lstm`, `lstm_2`, `lstm_10` by number. On Windows, TensorFlow's Keras used backslashes."""
    parts = [re.fullmatch(r"(.*?)_?(\d*)", part) for part in place.replace("\\", "/").split("/")]
    return [(part[1], int(part[2] or 0)) for part in parts if part]


def _layer_name(place: str) -> str:
    """The name of a layer from its group's path: layers/lstm_1/cell is lstm_1."""
    inner = [part for part in place.replace("\\", "/").split("/") if part not in ("layer", "cell")]
    return "/".join(inner[1:] if inner[0] in ("layers", "_layer_checkpoint_dependencies") else inner) or place


def _given_name(group: Any) -> str:
    """The name that the model's author gave to the layer of a group."""
    return str(group["vars"].attrs.get("name", ""))


def _check_without_weights(layers: Any) -> None:
    """Refuses a weights file with a layer that has no weights and still changes the result."""
    for name in layers:
        inside: list[str] = []
        _child(layers, name).visit(inside.append)
        if not any("vars/" in path for path in inside):
            wrapped = _given_name(layers[name]["layer"]) if "layer" in inside else name  # TimeDistributed(Dropout)
            refuse_without_weights(name, _numbered(wrapped)[0][0])


def _network(layout: str, layers: list[KerasLayer], model_config: KerasConfig | None, notice: Notify) -> ImportedModel:
    """The network from its layers: recurrent ones, a linear one, perhaps an embedding."""
    for layer in layers:
        if re.search("bidirectional|backward", f"{layer.name} {layer.hint}"):
            raise ModelError(
                f"a network that generates text must read forwards only; {layer.name} reads backwards as well"
            )
    recurrent = _chained([layer for layer in layers if layer.recurrent])
    embeddings = [layer for layer in layers if layer.embedding]
    heads = [layer for layer in layers if not layer.recurrent and not layer.embedding]
    if not recurrent or len(heads) != 1 or len(embeddings) > 1:
        raise ModelError(
            "the file must hold LSTM, GRU or SimpleRNN layers, one Dense and at most one Embedding; "
            f"found {', '.join(layer.name for layer in layers) or 'no layers'}"
        )
    if model_config is None:
        _report_assumptions(recurrent, notice)
    elif model_config.recurrent != len(recurrent):
        raise ModelError(
            f"the configuration has {model_config.recurrent} recurrent layers, the weights {len(recurrent)}"
        )
    embedding_VE = _embedding(embeddings[0]) if embeddings else None
    converted = tuple(_recurrent(layer, model_config is not None) for layer in recurrent)
    return ImportedModel(
        layout, converted, *_head(heads[0]), embedding_VE, model_config.nonlinearity if model_config else "tanh"
    )


def _chained(layers: list[KerasLayer]) -> list[KerasLayer]:
    """The layers in order: first the one whose input size is not its hidden size, whatever its name."""
    return sorted(layers, key=lambda layer: layer.arrays[0].shape[0] == layer.arrays[1].shape[0])


def _embedding(layer: KerasLayer) -> Floats:
    """embedding_VE of an Embedding layer."""
    if layer.arrays[0].ndim != 2:
        raise ModelError(f"{layer.name} must be an Embedding, a matrix; found {layer.arrays[0].shape}")
    return layer.arrays[0]


def _head(layer: KerasLayer) -> tuple[Floats, Floats]:
    """(head_VH, head_V) of a Dense layer; without a bias, zeros."""
    kernel_HV, *bias = layer.arrays
    if kernel_HV.ndim != 2 or len(bias) > 1:
        raise ModelError(f"{layer.name} must be a Dense layer; found {[a.shape for a in layer.arrays]}")
    return kernel_HV.T, bias[0] if bias else np.zeros(kernel_HV.shape[1], np.float32)


def _recurrent(layer: KerasLayer, checked: bool) -> ImportedLayer:
    """A layer in PyTorch's layout.

    Args:
        layer: kernel_XG, recurrent_HG and perhaps a bias.
        checked: whether there was a configuration, in which `reset_after` has been checked.
    """
    name = layer.name
    kernel_XG, recurrent_HG, *bias = layer.arrays
    hidden, columns = recurrent_HG.shape
    gates = columns // max(1, hidden)
    if gates not in GATE_ORDER or columns != gates * hidden or kernel_XG.shape[1:] != (columns,):
        raise ModelError(
            f"{name} must be an LSTM, GRU or SimpleRNN; found a kernel {kernel_XG.shape} and {recurrent_HG.shape}"
        )
    if gates == 3 and not bias and not checked:
        raise ModelError(f"{name} is a GRU without a bias; only a whole model has its reset_after; use model.save()")
    zeros = np.zeros((2, columns) if gates == 3 else columns)
    input_G, hidden_G = _biases(name, gates, columns, bias[0] if bias else zeros)
    arrays = (_gates_first(array, gates) for array in (kernel_XG, recurrent_HG, input_G, hidden_G))
    return ImportedLayer(name, *arrays)


def _biases(name: str, gates: int, columns: int, bias: Floats) -> tuple[Floats, Floats]:
    """(bias of the input product, bias of the hidden one), in Keras's gate order.

    A GRU with `reset_after` has both: r scales the hidden product and its bias (the equation of cuDNN and PyTorch).
    Without it (Cho et al. 2014), r scales the state before the product; no weights make the two equal.
    """
    if bias.shape == ((2, columns) if gates == 3 else (columns,)):
        return (bias[0], bias[1]) if gates == 3 else (bias, np.zeros_like(bias))
    if gates == 3 and bias.shape == (columns,):
        raise ModelError(f"{name} must be a GRU with reset_after=True, the equation of charloom's cell; it has False")
    raise ModelError(f"{name} has a bias of the unknown shape {bias.shape}; layers of CuDNN cannot be imported")


def _gates_first(array: Floats, gates: int) -> Floats:
    """[..., G] in Keras's gate order to [G, ...] in PyTorch's."""
    split = array.reshape(*array.shape[:-1], gates, -1)[..., list(GATE_ORDER[gates]), :]
    return split.reshape(array.shape).T


def _report_assumptions(layers: list[KerasLayer], notice: Notify) -> None:
    names = " → ".join(layer.name for layer in layers)
    notice(
        f"a weights file contains neither activations nor connections; assumed: Keras's defaults (tanh and sigmoid, "
        f"read forwards), layers in the order {names}"
    )
