"""Fine-tuning: the weights of a base model with the vocabulary of a new text.

Tokens are matched by their character or byte, not by their id. Known tokens keep their rows; new ones get initial rows.
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
    """Settings with these values, and with the settings that the base model fixes.

    It fixes the architecture, the cleaning, and the kinds of vocabulary and records.

    Raises:
        SettingsError: if a value contradicts the model, or is outside its range.
    """
    fixed: dict[str, Any] = {"vocabulary": base.vocabulary.kind, **base.cleaning.model_dump()}
    if fixed["allow"] is not None:
        fixed["allow"] = "".join(sorted({*fixed["allow"]}))  # older models store them in the order of typing
    # Older byte models do not store whether they were binary; the value of the user counts.
    if base.vocabulary.binary or base.vocabulary.kind == "characters":
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
    """`fresh` with the weights of `base`. A parameter with a row or column for each token is copied token by token.

    Raises:
        SettingsError: if a model with scalar input needs new tokens: they would change the input number of each token.
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
    """One parameter: the rows of known tokens; their columns if the input is one-hot; or the whole array."""
    before, after = [was for was, _ in places], [now for _, now in places]
    result = fresh.copy()
    if name.startswith(("embedding.", "head.")):
        result[after] = old[before]
    elif name == "rnn.weight_ih_l0" and onehot:
        result[:, after] = old[:, before]
    else:
        result[...] = old
    return result
