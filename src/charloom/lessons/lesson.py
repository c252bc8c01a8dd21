"""What every lesson works with: its text, its runs, and its voice."""

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
    """A training that a lesson made: how it ended, and what it reported on the way."""

    finished: Finished
    events: Sequence[Event] = field(repr=False)

    @property
    def model(self) -> Model:
        """The best model."""
        return Model.load(self.finished.run)

    @property
    def dataset(self) -> Dataset:
        """Its text as token ids."""
        return open_dataset(Path(self.finished.run) / "data")

    @property
    def validations(self) -> list[Validation]:
        """The curve; errors of `nats`."""
        self._check_validation()
        return [event for event in self.events if isinstance(event, Validation)]

    @property
    def nats(self) -> float:
        """The best model's loss over the whole validation split.

        Raises:
            TextError: if the text was too short to have one.
        """
        return self._check_validation()

    def _check_validation(self) -> float:
        if self.finished.validation_nats is None:
            raise TextError("this lesson needs a text long enough for a validation part; this one leaves none")
        return self.finished.validation_nats

    @property
    def samples(self) -> dict[int, str]:
        """Its samples, by step."""
        return {event.step: event.text for event in self.events if isinstance(event, Sample)}

    @property
    def predictions_per_second(self) -> float:
        """How many characters it learned to predict in a second, in the mean over the run."""
        return self.finished.predictions / self.finished.seconds


@dataclass(frozen=True)
class Lesson:
    """One lesson under way.

    name: also its preset's; paths: the text; quick: a smaller text and network, the same mechanics; folder: where the
    lesson's runs go; values: settings that a person gave, which win; say: takes a line of the lesson; report: takes
    what happens in a run; stop: asked after each step.
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
        """A run in the lesson's folder: the preset's settings, changed; then a person's; then what is always so.

        Args:
            name: of the run's folder.
            paths: another text than the lesson's.
            preset: another one than the lesson's.
            always: settings that are the point of this run: no flag changes them.
            changes: settings that differ from the preset's, unless a person gave them.
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
        """For lessons that prove something on text that was never learnt.

        Raises:
            SettingsError: if there would be none.
        """
        settings = Settings.from_flat(self._settings(None, {}))
        if settings.text.fractions[1] == 0:
            raise SettingsError(f"`split` must leave a validation split for this lesson; got {settings.text.split!r}")

    def _settings(self, preset: str | None, changes: Mapping[str, Any]) -> dict[str, Any]:
        return over(with_preset(preset or self.name, changes), self.values)

    def write_text(self, text: str, name: str = "text.txt") -> str:
        """Writes a text into the lesson's folder; its path."""
        path = self.folder / name
        replace_file(path, text.encode())
        return str(path)

    def shortened(self, most: int) -> Sequence[str]:
        """The text's paths; in a quick lesson that of a file with its first so many characters."""
        return [self.write_text(self.text()[:most])] if self.quick else self.paths

    def text(self) -> str:
        """The lesson's text."""
        return open_corpus(self.paths, TextSettings(), notice=lambda _: None).text()

    def verdict(self, proven: bool, found: str) -> bool:
        """The last line; passes on whether the proof held."""
        self.say(f"\nverdict: {'PASS' if proven else 'FAIL'} · {found}")
        return proven
