"""Fine-tuning: a model's weights under a new text's vocabulary.

Tokens are matched by what they are, never by index: a known character keeps its rows, a new one gets fresh ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charloom.checkpoint import ModelFolder
from charloom.config import ModelSettings, Settings
from charloom.data.vocabulary import RECORD_SEPARATOR, Vocabulary
from charloom.errors import SettingsError


def settings_like(base: ModelFolder, values: Mapping[str, Any]) -> Settings:
    """Settings with these values, and with all that the base model fixes.

    It fixes the architecture, the cleaning, and the kinds of the vocabulary and of the records.

    Raises:
        SettingsError: for a value that contradicts the model, or is outside its range.
    """
    fixed: dict[str, Any] = {"vocabulary": base.vocabulary.kind, **base.cleaning.model_dump()}
    if fixed["allow"] is not None:
        fixed["allow"] = "".join(sorted({*fixed["allow"]}))  # older models hold them as they were typed
    if base.vocabulary.binary or base.vocabulary.kind == "characters":  # bytes of old may have been binary: as is asked
        fixed["binary"] = base.vocabulary.binary
    fixed |= {name: getattr(base.architecture, name) for name in ModelSettings.model_fields}
    if base.vocabulary.separator:
        fixed["records"] = base.records
    like_base = {"records": base.records, "keep_order": base.keep_order} if base.records != "none" else {}
    asked = Settings.from_flat({**like_base, **values})
    for name, value in fixed.items():
        if name in values and (found := asked.flat[name]) not in (value, "auto"):
            raise SettingsError(f"`{name}` must be {value!r}, as in the model that `base_model` names; got {found!r}")
    return asked.replaced(fixed)


def adapt(base: ModelFolder, fresh: ModelFolder, notice: Callable[[str], None]) -> ModelFolder:
    """`fresh` with the weights of `base`, row by row where a parameter has a row (or column) for each token.

    Raises:
        SettingsError: if a model with scalar input would need new tokens, which would change what each number means.
    """
    places = _places(base.vocabulary, fresh.vocabulary)
    known, new = len(places), fresh.vocabulary.size - len(places)
    if new and base.architecture.input == "scalar":
        raise SettingsError(
            f"a model with scalar input cannot learn new characters; the text has {new}; train a new model"
        )
    notice(f"fine-tuning: {known} known tokens keep their weights, {new} new ones start from initial weights")
    onehot = base.architecture.input == "onehot"
    parameters = {
        name: _adapted(name, base.parameters[name], value, places, onehot) for name, value in fresh.parameters.items()
    }
    return dataclasses.replace(fresh, parameters=parameters)


def _places(old: Vocabulary, new: Vocabulary) -> list[tuple[int, int]]:
    """(id in the old vocabulary, id in the new one) of every token that both have."""
    ids = {token: index for index, token in enumerate(_tokens(old))}
    return [(ids[token], index) for index, token in enumerate(_tokens(new)) if token in ids]


def _tokens(vocabulary: Vocabulary) -> list[str]:
    plain = vocabulary.characters or [f"byte {value}" for value in range(256)]
    return [*plain] + ["unknown"] * vocabulary.unknown + [RECORD_SEPARATOR] * vocabulary.separator


def _adapted(
    name: str, old: NDArray[Any], fresh: NDArray[Any], places: list[tuple[int, int]], onehot: bool
) -> NDArray[np.float32]:
    """One parameter: for each known token its row, its column where one-hot characters enter, else copied whole."""
    before, after = [was for was, _ in places], [now for _, now in places]
    result = fresh.copy()
    if name.startswith(("embedding.", "head.")):
        result[after] = old[before]
    elif name == "rnn.weight_ih_l0" and onehot:
        result[:, after] = old[:, before]
    else:
        result[...] = old
    return result
