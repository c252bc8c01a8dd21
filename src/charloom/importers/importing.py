"""`charloom import`: a checkpoint of PyTorch or Keras → a model folder.

The content of a file decides its format, not its name. No reader runs code from a file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from charloom.checkpoint import ModelFolder
from charloom.data.reading import Notify
from charloom.errors import ModelError, SettingsError
from charloom.files import opened
from charloom.importers import keras, pytorch
from charloom.importers.imported import ImportedModel, to_model
from charloom.importers.tokens import read_characters

HDF5 = b"\x89HDF\r\n\x1a\n"  # HDF5 File Format Specification 3.0, II.A
TORCH7 = (b"\3\0\0\0\1\0\0\0", b"\4\0\0\0\1\0\0\0", b"3\n1\n", b"4\n1\n")
"""The first bytes of a Torch7 file, binary or text: type (3 table, 4 object) and number of its first object."""
DAMAGED = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    *(zipfile.BadZipFile, zlib.error),
)
"""The exceptions of the libraries for damaged files."""


def import_model(path: Path, characters: Path | None, notice: Notify) -> ModelFolder:
    """The model in a PyTorch or Keras checkpoint; its logits equal the original's, except for rounding.

    Args:
        path: the checkpoint.
        characters: a file with the characters in the order of their indices, for a checkpoint without them.
        notice: called with one line for each assumption about what the file does not say.

    Raises:
        ModelError: if the file is missing or damaged, needs code to be run, or holds another kind of network.
        SettingsError: if `characters` is missing, not needed, or does not fit.
        DeviceError: if the package that reads such files is not installed.
    """
    digest = _digest(path)
    try:
        imported = _read(path, notice)
        model = to_model(imported, _tokens(imported, path.name, characters), notice)
    except ModelError as error:
        raise ModelError(f"{path.name}: {error}") from None
    metadata = {"imported_from": path.name, "format": imported.format, "file_sha256": digest}
    return dataclasses.replace(model, metadata=metadata)


def _digest(path: Path) -> str:
    try:
        with opened(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"a checkpoint must be a file that can be read; {path}: {error.strerror}") from None


def _read(path: Path, notice: Notify) -> ImportedModel:
    """The network; every exception about a damaged file becomes a ModelError."""
    try:
        return _reader(path)(path, notice)
    except DAMAGED as error:
        raise ModelError(f"the file must be whole; it is damaged: {repr(error)[:200]}") from None


def _reader(path: Path) -> Callable[[Path, Notify], ImportedModel]:
    """The reader for this file, by its content."""
    with path.open("rb") as file:
        begin = file.read(len(HDF5))
    if begin == HDF5:
        return keras.read_hdf5
    if begin.startswith(TORCH7):
        raise ModelError(
            "the file must come from PyTorch or Keras; it is one of Torch7 (Lua), as char-rnn saved them in 2015; "
            "read it with the Python package torchfile, and save {'state_dict': ..., 'tokens': ...} by torch.save"
        )
    if not zipfile.is_zipfile(path):
        return pytorch.read_pytorch  # of PyTorch before 1.6, or an unknown format
    with zipfile.ZipFile(path) as archive:
        parts = {*archive.namelist()}
    return keras.read_archive if {keras.CONFIG, keras.WEIGHTS} <= parts else pytorch.read_pytorch


def _tokens(imported: ImportedModel, name: str, characters: Path | None) -> tuple[str, ...]:
    """The tokens in the order of the file, from the file itself or from `characters`."""
    if imported.tokens is not None:
        if characters is not None:
            raise SettingsError(f"`characters` must be left out for {name}, which contains its characters")
        return imported.tokens
    if characters is None:
        raise SettingsError(
            f"`characters` must be given for {name}: a file with the network's {len(imported.head_VH)} characters, "
            "in the order of their indices"
        )
    return read_characters(characters, len(imported.head_VH))
