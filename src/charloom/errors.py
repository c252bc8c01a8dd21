"""Every error that a user can cause, with its exit status.

A message says what must hold, what was found and what to do, in one line. It names Python arguments in backquotes, with
Python values: `lr`, `keep_order=True`, `unknown='skip'`. The command line shows these as flags. Text that a user typed
is quoted with `repr`. `assert` is for errors in charloom itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CharloomError(Exception):
    """The base class of charloom's errors; exit status 1.

    run: the folder of a run that can be resumed, if an error ended one; the command line adds the command for it.
    """

    exit_status = 1

    def __init__(self, message: str, run: Path | None = None) -> None:
        super().__init__(message)
        self.run = run


class SettingsError(CharloomError, ValueError):
    """An invalid setting or argument; exit status 2."""

    exit_status = 2


class TextError(CharloomError):
    """A corpus or text that cannot be found, read, decoded or used."""


class UnknownCharacterError(TextError, ValueError):
    """A character of a prompt or a scored text that is not in the model's vocabulary."""


class ModelError(CharloomError):
    """A model or run folder that is missing, damaged, of a newer version, or something else."""


class DeviceError(CharloomError):
    """A device, engine or optional dependency that is not available."""


class TrainingError(CharloomError):
    """Training cannot continue: the loss is not finite a second time, or a checkpoint cannot be written."""


class ProcessLostError(TrainingError):
    """Training by several processes cannot continue: one of them ended or does not answer.

    reason: what was seen of it; advice: what to do.
    """

    START_AGAIN = "start all processes again"

    def __init__(self, reason: str, advice: str = START_AGAIN, run: Path | None = None) -> None:
        super().__init__(
            f"every process of a run must answer; one ended or cannot be reached ({reason}); {advice}", run
        )
        self.reason = reason


class QueueFullError(CharloomError):
    """The queue of a scheduler is full: too many requests wait for a model."""


class Interrupted(CharloomError):
    """A run was asked to stop: the step was completed and everything was saved in `run`; exit status 130."""

    exit_status = 130

    run: Path

    def __init__(self, message: str, run: Path) -> None:
        super().__init__(message, run)


@contextmanager
def full_memory_in_one_line() -> Iterator[None]:
    """A context that turns a MemoryError into an error that says what to do.

    Raises:
        CharloomError: if the memory is full.
    """
    try:
        yield
    except MemoryError:
        raise CharloomError("the memory is full; use a smaller `batch_size`, `seq_length` or `hidden`") from None


def in_a_file(error: Exception) -> str:
    """The message for a wrong value in a file, without backquotes: there its name is not an argument."""
    return str(error).replace("`", "")
