"""Model folders and the state that a run resumes from. Killing the process at any moment loses neither.

`files.py` writes a folder. For a moment only the old one may exist, as `NAME.old`, so a reader tries that name second.
Weights are safetensors and all other files are JSON, so loading runs no code. All values are checked before use. An
error names the file and the field.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom import earlier
from charloom.architecture import Architecture
from charloom.config import Cleaning, RecordKind, TextSettings
from charloom.data.vocabulary import Vocabulary
from charloom.errors import CharloomError, ModelError, SettingsError, in_a_file
from charloom.files import checked_path, opened, read, replace_folder
from charloom.validation import validated

FORMAT = 3  # raised when an older charloom cannot read a folder correctly
HEADER_SPARE = 1 << 20  # bytes that a safetensors file may have besides its values

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ModelFolder:
    """The content of a model folder.

    records: the kind of record in training; metadata: corpus, split, losses and version, for people to read;
    keep_order: whether records were read in order, with the state carried; if not, each started from the zero state;
    place: the absolute path of the folder that it was read from; None for a model made in memory.
    """

    architecture: Architecture
    vocabulary: Vocabulary = field(repr=False)
    parameters: dict[str, NDArray[np.float32]] = field(repr=False)
    cleaning: Cleaning = Cleaning()
    records: RecordKind = "none"
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    keep_order: bool = True
    place: Path | None = field(default=None, compare=False)

    @property
    def reset_id(self) -> int | None:
        """The id that is always read from the zero state, or None."""
        return None if self.keep_order else self.vocabulary.separator_id


def save_model(path: Path, model: ModelFolder, resume: tuple[dict[str, Any], Arrays] | None = None) -> None:
    """Writes a model folder to `path`; it replaces an older one. With `resume`, also the progress and arrays of a run.

    Raises:
        OSError: if the disk is full or not writable, or the parent folder is missing. Then an older folder at `path`
            stays.
    """
    from safetensors.numpy import save

    vocabulary, weights = _json(model.vocabulary.to_json()), save(model.parameters, metadata={"format": "pt"})
    sha256 = {"vocabulary.json": _sha256(vocabulary), "model.safetensors": _sha256(weights)}
    files = {
        "config.json": _json(_config(model) | {"sha256": sha256}),
        "vocabulary.json": vocabulary,
        "README.md": model_card(model).encode(errors="replace"),  # a file name may not be UTF-8
        "model.safetensors": weights,
    }
    if resume is not None:
        progress, arrays = resume
        remembered = save({name: np.asarray(a, order="C") for name, a in arrays.items()})
        files["resume.json"] = _json(progress | {"sha256": {"resume.safetensors": _sha256(remembered)}})
        files["resume.safetensors"] = remembered
    replace_folder(path, files)


def save_new_model(folder: Path, model: ModelFolder) -> None:
    """Writes a new model folder, whole or not at all.

    It is written under a temporary name and renamed. The rename succeeds if `folder` is missing or empty.

    Raises:
        SettingsError: if the folder exists and is not empty, or cannot be written.
    """
    folder = Path(os.path.abspath(folder))
    check_new_folder(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".charloom-", dir=folder.parent) as beside:
            save_model(Path(beside) / "model", model)
            (Path(beside) / "model").rename(folder)
    except OSError as error:
        raise SettingsError(f"a model must go to a folder that can be written; {folder}: {error.strerror}") from None


def check_new_folder(folder: Path) -> None:
    """Checks that a model can be written to this path.

    Raises:
        SettingsError: if it exists and is not an empty folder.
    """
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise SettingsError(f"a model must go to a new or empty folder; {folder} exists; choose another name")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def find_model(path: str | os.PathLike[str]) -> Path:
    """The model folder for a path: the path itself, or the best model of a run folder, or its last one.

    Raises:
        ModelError: if there is no model.
    """
    if not checked_path(path, "path"):
        raise ModelError("a model must be a folder that charloom wrote; the path is empty; name a folder")
    path = Path(path)
    for place in (path, path / "best", path / "last"):
        if (folder := _whole(place)) is not None:
            return folder
    if not os.path.lexists(path):
        raise ModelError(f"a model must be a folder that charloom wrote; {path} does not exist")
    raise ModelError(
        f"a model must be a folder with a config.json, or a run folder; {path} is neither{_run_inside(path)}"
    )


def _whole(place: Path) -> Path | None:
    """The model folder at this place; `NAME.old` while a new one takes its place; None if there is neither."""
    folder = place if os.path.lexists(place) else place.parent / (place.name + ".old")
    # Unlike Path.is_file, os.path.isfile raises no OSError: the path may be any string.
    return folder if os.path.isfile(folder / "config.json") else None


def _run_inside(path: Path) -> str:
    """Advice to name a model or a run in this folder, if it contains one."""
    with suppress(OSError):
        for inside in sorted(path.iterdir()):
            if _whole(inside) or _whole(inside / "best"):
                return f"; did you mean {inside}?"
    return ""


def load_model(path: str | os.PathLike[str]) -> ModelFolder:
    """Reads and checks a model folder, or the best model of a run folder.

    Raises:
        ModelError: naming the file and the field that is missing, damaged, of a newer version or mismatched.
    """
    folder = find_model(path)
    try:
        return _load(folder)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from None
    except CharloomError as error:
        raise ModelError(f"{folder}: config.json: {in_a_file(error)}") from None


def _load(folder: Path) -> ModelFolder:
    config = earlier.renamed(read_json(folder / "config.json"), earlier.CONFIG)
    found = config.get("format")
    if type(found) is not int or found < 1:
        raise ModelError(f"config.json: format must be a number from 1; found {found!r}; this is not a charloom model")
    if found > FORMAT:
        raise ModelError(f"config.json: format must be at most {FORMAT}; found {found}; update charloom to read it")
    architecture = validated(Architecture, earlier.renamed(_section(config, "architecture"), earlier.ARCHITECTURE))
    vocabulary = Vocabulary.from_json(read_json(folder / "vocabulary.json"))
    if vocabulary.size != architecture.vocabulary_size:
        raise ModelError(
            f"vocabulary.json has {vocabulary.size} tokens, config.json says vocabulary_size "
            f"{architecture.vocabulary_size}; the files must come from one model"
        )
    cleaning = validated(Cleaning, _section(config, "cleaning"))
    records: RecordKind = validated(TextSettings, {"records": config.get("records"), "field": ""}).records
    keep_order = config.get("keep_order", True)
    if not isinstance(keep_order, bool):
        raise ModelError(f"config.json: keep_order must be true or false; found {keep_order!r}")
    parameters = _load_parameters(folder / "model.safetensors", architecture)
    for name in ("vocabulary.json", "model.safetensors"):
        check_sha256(folder / name, config, "config.json")
    metadata = _section(config, "metadata")
    place = folder.resolve()
    return ModelFolder(architecture, vocabulary, parameters, cleaning, records, metadata, keep_order, place)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of bounded size.

    Raises:
        ModelError: if it is missing, too large, not JSON, or not an object.
    """
    try:
        data = json.loads(read(path).decode("utf-8"), parse_float=_finite, parse_constant=_finite)
    except OSError as error:
        raise ModelError(f"{path.name} must be readable; {error.strerror}; was the folder copied whole?") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} must be JSON; it is damaged: {error}") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path.name} must hold an object; found {type(data).__name__}")
    return data


def _finite(number: str) -> float:
    """A finite number of a JSON file; NaN, Infinity and numbers like 1e400 are errors."""
    if not math.isfinite(value := float(number)):
        raise ValueError(f"numbers must be finite; found {number}")
    return value


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    if not isinstance(section, dict):
        raise ModelError(f"config.json: {name} must be an object; found {section!r}")
    return section


def _load_parameters(path: Path, architecture: Architecture) -> dict[str, NDArray[np.float32]]:
    """The weights, with names, shapes, types and values checked against the architecture."""
    arrays = read_arrays(path, architecture.size * 4)
    if arrays.keys() != architecture.shapes.keys():
        odd = sorted(arrays.keys() ^ architecture.shapes.keys())[0]
        raise ModelError(f"{path.name}: {odd} is {'not expected' if odd in arrays else 'missing'}")
    for name, shape in architecture.shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float32:
            raise ModelError(f"{path.name}: {name} must be float32 {shape}; found {array.dtype} {array.shape}")
        if not np.isfinite(array).all():
            raise ModelError(f"{path.name}: {name} must be finite; it holds NaN or infinity")
    return arrays


def read_arrays(path: Path, most: int) -> Arrays:
    """All arrays of a safetensors file; they may take `most` bytes.

    Raises:
        ModelError: if it is missing, larger, truncated or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        with opened(path, most + HEADER_SPARE):  # checked first: the library would map any file
            return load_file(path)
    except OSError as error:
        reason = error.strerror or "no such file"
        raise ModelError(f"{path.name} must be readable; {reason}; was the folder copied whole?") from None
    except (AttributeError, TypeError) as error:  # NumPy lacks bfloat16 and 8-bit floats
        raise ModelError(
            f"{path.name} must hold numbers that NumPy has, such as float32; it does not: {error}"
        ) from None
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path.name} must be a whole safetensors file; it is damaged: {error}") from None


def check_sha256(path: Path, given: dict[str, Any], where: str) -> None:
    """Checks the checksum of a file. Nothing else finds a weight that a damaged disk changed.

    Args:
        path: of the file.
        given: the content of the JSON file beside it; older versions wrote no `sha256`.
        where: the name of that JSON file.

    Raises:
        ModelError: if the checksum differs.
    """
    if "sha256" not in given:
        return
    sha256 = given["sha256"]
    if not isinstance(sha256, dict) or path.name not in sha256:
        raise ModelError(f"{where}: sha256 must hold the checksum of {path.name}; found {sha256!r}")
    with opened(path) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256[path.name] != found:
        raise ModelError(
            f"{path.name} must have the SHA-256 that {where} gives; found another; the file is damaged: copy it again "
            f"(or, if you changed it on purpose, remove sha256 from {where})"
        )


def _config(model: ModelFolder) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "charloom": version("charloom"),
        "architecture": model.architecture.model_dump(),
        "cleaning": model.cleaning.model_dump(),
        "records": model.records,
        "keep_order": model.keep_order,
        "metadata": model.metadata,
    }


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def facts(model: ModelFolder) -> dict[str, Any]:
    """What a model is, for people: its network, its vocabulary and how text is prepared for it."""
    a, v = model.architecture, model.vocabulary
    special = [name for name in ("unknown", "separator") if getattr(v, name)]
    binary, further = " (binary)" * v.binary, f" and {', '.join(special)}" if special else ""
    return {
        "network": f"{a.cell_name}, {a.layers} x {a.hidden}, {a.input} input",
        "parameters": a.size,
        "vocabulary": f"{v.plain} {v.kind}{binary}{further}",
        "records": model.records,
        "cleaning": ", ".join(f"{k}={x!r}" for k, x in model.cleaning.model_dump().items() if x) or "none",
    }


def model_card(model: ModelFolder) -> str:
    """A Hugging Face model card."""
    made, a = model.metadata, model.architecture
    nats, characters = made.get("validation_nats"), made.get("characters")
    loss, length = "not measured", "unknown"  # metadata may come from a file, with any content
    if isinstance(nats, float):
        loss = f"{nats:.4f} nats and {nats / np.log(2):.4f} bits per {model.vocabulary.unit}"
    if isinstance(characters, int):
        length = f"{characters:,}"
    return f"""---
library_name: charloom
pipeline_tag: text-generation
tags: [char-rnn, {a.cell}]
---
# A {model.vocabulary.kind[:-1]}-level {a.cell.upper()}

{a.layers} x {a.hidden} units, {a.cell_name}, {a.size:,} parameters, {a.vocabulary_size} tokens.
{_trained_or_imported(made)} with [charloom](https://pypi.org/project/charloom/) {version("charloom")}.

- Text: {made.get("corpus", "unknown")}, {length} characters
- SHA-256 of the text: `{made.get("sha256", "unknown")}`
- Validation loss: {loss} (split {made.get("split", "unknown")})

```sh
charloom generate PATH_OF_THIS_FOLDER{_prompt(made)}
```
"""


def _prompt(made: dict[str, Any]) -> str:
    """The option with the prompt that training suggests, for a shell; empty without one."""
    prompt = made.get("prompt")
    if not isinstance(prompt, str) or not prompt.isprintable() or "`" in prompt:
        return ""
    return f" --prompt {shlex.quote(prompt)}"


def _trained_or_imported(made: dict[str, Any]) -> str:
    """Whether charloom trained, fine-tuned or imported the model."""
    if "imported_from" in made:
        return f"Imported from `{made['imported_from']}` ({made.get('format', 'unknown format')})"
    return f"Fine-tuned from `{made['base_model']}`" if "base_model" in made else "Trained"
