"""charloom trains recurrent character-level language models on any text, and generates text with them.

`charloom.train` and `charloom.load` are all that most programs need; both return a `charloom.Model`.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # type checkers take it as true; typing itself takes 8 ms to import
if TYPE_CHECKING:
    from charloom.api import import_model, load, plan, resume, train
    from charloom.data.vocabulary import RECORD_SEPARATOR
    from charloom.errors import (
        CharloomError,
        DeviceError,
        ModelError,
        QueueFullError,
        SettingsError,
        TextError,
        TrainingError,
        UnknownCharacterError,
    )
    from charloom.model import Model
    from charloom.training.events import (
        Event,
        Finished,
        Notice,
        Planned,
        PlannedChoice,
        Report,
        Sample,
        Started,
        Step,
        Validation,
    )
    from charloom.training.keywords import SettingsKeywords

    __version__: str

__all__ = [
    "RECORD_SEPARATOR",
    "CharloomError",
    "DeviceError",
    "Event",
    "Finished",
    "Model",
    "ModelError",
    "Notice",
    "Planned",
    "PlannedChoice",
    "QueueFullError",
    "Report",
    "Sample",
    "SettingsError",
    "SettingsKeywords",
    "Started",
    "Step",
    "TextError",
    "TrainingError",
    "UnknownCharacterError",
    "Validation",
    "__version__",
    "import_model",
    "load",
    "plan",
    "resume",
    "train",
]


_PLACES = (
    "charloom.errors",
    "charloom.training.events",
    "charloom.training.keywords",
    "charloom.data.vocabulary",
    "charloom.api",
)
"""Where the names of `__all__` are defined; the last one imports most."""


if not TYPE_CHECKING:  # with it, a type checker would take any name

    def __getattr__(name: str) -> object:
        """Imports what is used when it is first used, so that `import charloom` costs nothing."""
        if name == "__version__":
            from importlib.metadata import version

            return version("charloom")
        if name in __all__:
            for place in _PLACES:
                if (found := getattr(import_module(place), name, None)) is not None:
                    return found
        raise AttributeError(f"module 'charloom' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What completion shows: the API, imported or not."""
    return sorted(__all__)
