"""Names in files that an earlier version wrote, and the names that they have now.

A reader passes each object through `renamed` before it checks anything, so the rest of the code knows one name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONFIG = {"provenance": "metadata"}
ARCHITECTURE = {"symbols": "vocabulary_size"}
VOCABULARY = {"boundary": "separator"}
PROGRESS = {"symbols": "tokens", "train_symbols": "train_tokens"}
"""Of `config.json`, its `architecture`, `vocabulary.json` and `resume.json`, in formats 1 and 2."""


def renamed(data: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The same object under the names of now; an object that has both names of a value keeps both, and is refused."""
    return {name if names.get(name) in data else names.get(name, name): value for name, value in data.items()}
