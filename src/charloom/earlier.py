"""Names that an earlier version used in files, flags and keywords, and their current names.

A reader passes each object through a function of this file before it checks anything. So all other code knows only one
name for each thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONFIG = {"provenance": "metadata"}
ARCHITECTURE = {"symbols": "vocabulary_size"}
VOCABULARY = {"boundary": "separator"}
PROGRESS = {"symbols": "tokens", "train_symbols": "train_tokens"}
"""For `config.json`, its `architecture`, `vocabulary.json` and `resume.json`, in formats 1 and 2."""

SETTINGS: dict[str, str] = {}
"""Settings with another name in the last version: flags, keywords and lines of `run.toml`. None has changed yet."""


def renamed(data: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The same object with the current names. If it has both names of a value, both stay, and the reader refuses it."""
    return {name if names.get(name) in data else names.get(name, name): value for name, value in data.items()}


def run_settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of `run.toml` as this version has them.

    In version 0.1 `dropout` was in the section `model`. Before records could be shuffled, all were read in order.
    """
    sections = {name: renamed(s, SETTINGS) if isinstance(s, dict) else s for name, s in data.items()}
    text, model, training = (sections.get(name) for name in ("text", "model", "training"))
    if isinstance(text, dict) and "keep_order" not in text:
        text["keep_order"] = text.get("records", "none") != "none"
    if isinstance(model, dict) and isinstance(training, dict) and "dropout" in model and "dropout" not in training:
        training["dropout"] = model.pop("dropout")
    return sections
