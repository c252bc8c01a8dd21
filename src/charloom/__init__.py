"""charloom trains recurrent character-level language models on any text, and generates text with them.

Most programs need only `charloom.train` and `charloom.load`; both return a `charloom.Model`.
"""

from __future__ import annotations

from importlib import import_module

_PLACES = {
    "api": ("import_model", "load", "plan", "resume", "train"),
    "data.vocabulary": ("RECORD_SEPARATOR",),
    "errors": (
        *("CharloomError", "DeviceError", "ModelError", "QueueFullError", "SettingsError", "TextError"),
        *("TrainingError", "UnknownCharacterError"),
    ),
    "evaluation.report": ("Report",),
    "model": ("Model",),
    "score": ("Score",),
    "trace": ("Trace",),
    "training.events": (
        *(
            "Event",
            "EventHandler",
            "Finished",
            "Notice",
            "Planned",
            "PlannedChoice",
            "Sample",
            "Started",
            "Step",
            "Validation",
        ),
    ),
    "training.keywords": ("SettingsKeywords",),
}
"""The modules that define the names of this package. Each is imported on use, so `import charloom` stays fast."""

__all__ = sorted(["__version__", *(name for names in _PLACES.values() for name in names)])  # noqa: PLE0605

TYPE_CHECKING = False  # type checkers take it as true; importing `typing` takes 8 ms
if TYPE_CHECKING:  # the same names again, for type checkers
    from charloom.api import import_model as import_model
    from charloom.api import load as load
    from charloom.api import plan as plan
    from charloom.api import resume as resume
    from charloom.api import train as train
    from charloom.data.vocabulary import RECORD_SEPARATOR as RECORD_SEPARATOR
    from charloom.errors import CharloomError as CharloomError
    from charloom.errors import DeviceError as DeviceError
    from charloom.errors import ModelError as ModelError
    from charloom.errors import QueueFullError as QueueFullError
    from charloom.errors import SettingsError as SettingsError
    from charloom.errors import TextError as TextError
    from charloom.errors import TrainingError as TrainingError
    from charloom.errors import UnknownCharacterError as UnknownCharacterError
    from charloom.evaluation.report import Report as Report
    from charloom.model import Model as Model
    from charloom.score import Score as Score
    from charloom.trace import Trace as Trace
    from charloom.training.events import Event as Event
    from charloom.training.events import EventHandler as EventHandler
    from charloom.training.events import Finished as Finished
    from charloom.training.events import Notice as Notice
    from charloom.training.events import Planned as Planned
    from charloom.training.events import PlannedChoice as PlannedChoice
    from charloom.training.events import Sample as Sample
    from charloom.training.events import Started as Started
    from charloom.training.events import Step as Step
    from charloom.training.events import Validation as Validation
    from charloom.training.keywords import SettingsKeywords as SettingsKeywords

    __version__: str
else:  # a type checker that sees this function accepts any name

    def __getattr__(name: str) -> object:
        """The object that the package offers under this name."""
        if name == "__version__":
            from importlib.metadata import version

            return version("charloom")
        for place, names in _PLACES.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{place}"), name)
        raise AttributeError(f"module 'charloom' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The names for completion: the whole API, imported or not."""
    return __all__
