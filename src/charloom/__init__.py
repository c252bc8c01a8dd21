"""charloom trains recurrent character-level language models on any text, and generates text with them.

`charloom.train` and `charloom.load` are all that most programs need; both return a `charloom.Model`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from charloom.api import Model, load, train

__all__ = ["Model", "load", "train"]


def __getattr__(name: str) -> Any:
    """Imports the API when it is first used, so that `import charloom` costs nothing."""
    if name in __all__:
        from charloom import api

        return getattr(api, name)
    raise AttributeError(f"module 'charloom' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What completion shows: the API, imported or not."""
    return sorted({*globals(), *__all__})
