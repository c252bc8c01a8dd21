"""Events as TensorBoard scalars, in `tensorboard/` of the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from charloom.errors import DeviceError
from charloom.training.events import Event, Finished, Started, Step, Validation


class TensorBoard:
    """A listener for events; it opens its file when a run has started.

    Raises:
        DeviceError: if the package is not installed.
    """

    def __init__(self) -> None:
        try:
            from tensorboard.summary import Writer  # type: ignore[import-untyped]
        except ModuleNotFoundError:
            raise DeviceError("TensorBoard events need the package tensorboard; run: pip install tensorboard") from None
        self._open: Any = Writer
        self._writer: Any = None

    def report(self, event: Event) -> None:
        """Writes the curves that this event has values for."""
        if isinstance(event, Started):
            self._writer = self._open(str(Path(event.run) / "tensorboard"))
        elif isinstance(event, Step):
            self._add(event, "train_nats", "learning_rate", "tokens_per_second")
        elif isinstance(event, Validation):
            self._add(event, "validation_nats", "accuracy")
        elif isinstance(event, Finished):
            self._writer.flush()

    def _add(self, event: Step | Validation, *names: str) -> None:
        for name in names:
            if (value := getattr(event, name)) is not None:
                self._writer.add_scalar(name, value, event.step)

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()
