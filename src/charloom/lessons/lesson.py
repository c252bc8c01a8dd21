"""What all lessons use: the text, the runs, and the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charloom.config import Settings, TextSettings
from charloom.data.corpus import open_corpus
from charloom.data.dataset import Dataset, open_dataset
from charloom.errors import SettingsError, TextError
from charloom.files import replace_file
from charloom.model import Model
from charloom.presets import over, with_preset
from charloom.training.events import Event, EventHandler, Finished, Sample, Validation
from charloom.training.start import Stop, start


@dataclass(frozen=True)
class LessonRun:
    """A training run of a lesson: its end, and its events."""

    finished: Finished
    events: Sequence[Event] = field(repr=False)

    @property
    def model(self) -> Model:
        """The best model."""
        return Model.load(self.finished.run)

    @property
    def dataset(self) -> Dataset:
        """The text of the run as token ids."""
        return open_dataset(Path(self.finished.run) / "data")

    @property
    def validations(self) -> list[Validation]:
        """All validations in order; errors as in `nats`."""
        self._check_validation()
        return [event for event in self.events if isinstance(event, Validation)]

    @property
    def nats(self) -> float:
        """The loss of the best model over the whole validation split, nats/char.

        Raises:
            TextError: if the text was too short for a validation split.
        """
        return self._check_validation()

    def _check_validation(self) -> float:
        if self.finished.validation_nats is None:
            raise TextError("this lesson needs a text long enough for a validation part; this one leaves none")
        return self.finished.validation_nats

    @property
    def samples(self) -> dict[int, str]:
        """The samples of the run, by step."""
        return {event.step: event.text for event in self.events if isinstance(event, Sample)}

    @property
    def predictions_per_second(self) -> float:
        """Characters that the run learned to predict in one second, as a mean over the run."""
        return self.finished.predictions / self.finished.seconds


@dataclass(frozen=True)
class Lesson:
    """One lesson that is running.

    name: of the lesson and of its preset; paths: the text; quick: train on less text, with a smaller network; folder:
    for the runs of the lesson; values: settings of the user, which take precedence over those of the preset; say:
    prints a line of the lesson; report: called with every event of a run; stop: called after each step.
    """

    name: str
    paths: Sequence[str]
    quick: bool
    folder: Path
    values: Mapping[str, Any]
    say: Callable[[str], None]
    report: EventHandler
    stop: Stop

    def train(
        self,
        name: str,
        paths: Sequence[str] | None = None,
        preset: str | None = None,
        always: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> LessonRun:
        """A run in the lesson's folder. Its settings: the preset's, then `changes`, then the user's, then `always`.

        Args:
            name: of the run's folder.
            paths: the text; by default that of the lesson.
            preset: the preset; by default that of the lesson.
            always: settings that this run needs; no flag changes them.
            changes: settings that differ from the preset's, unless the user set them.
        """
        events: list[Event] = []

        def report(event: Event) -> None:
            events.append(event)
            self.report(event)

        settings = over(self._settings(preset, changes), always or {})
        finished = start(paths or self.paths, settings, self.folder / name, None, report, self.stop)
        return LessonRun(finished, events)

    def described(self, **changes: Any) -> str:
        """The network that the lesson's preset trains with these changes, in a few words."""
        model = Settings.from_flat(self._settings(None, changes)).model
        return f"{model.cell.upper()}, {model.layers} x {model.hidden} units"

    def check_validation(self) -> None:
        """Checks that there is a validation split, for lessons that need one for their proof.

        Raises:
            SettingsError: if there is none.
        """
        settings = Settings.from_flat(self._settings(None, {}))
        if settings.text.fractions[1] == 0:
            raise SettingsError(f"`split` must leave a validation split for this lesson; got {settings.text.split!r}")

    def _settings(self, preset: str | None, changes: Mapping[str, Any]) -> dict[str, Any]:
        return over(with_preset(preset or self.name, changes), self.values)

    def write_text(self, text: str, name: str = "text.txt") -> str:
        """Writes a text into the lesson's folder and returns its path."""
        path = self.folder / name
        replace_file(path, text.encode())
        return str(path)

    def shortened(self, most: int) -> Sequence[str]:
        """The paths of the text; for a quick lesson the path of a file with its first `most` characters."""
        return [self.write_text(self.text()[:most])] if self.quick else self.paths

    def text(self) -> str:
        """The lesson's text."""
        return open_corpus(self.paths, TextSettings(), notice=lambda _: None).text()

    def verdict(self, proven: bool, found: str) -> bool:
        """Prints the verdict, the last line. Returns `proven`."""
        self.say(f"\nverdict: {'PASS' if proven else 'FAIL'} · {found}")
        return proven
