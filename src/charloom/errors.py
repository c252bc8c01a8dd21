"""Every error that a user can cause, with its exit status.

A message says what must hold, what was found and what to do, in one line. The command line prints only the message.
`assert` is for errors in charloom itself.
"""

from __future__ import annotations

from pathlib import Path


class CharloomError(Exception):
    """The base class of charloom's errors; exit status 1.

    run: the folder of a run that can be resumed, if an error ended one.
    """

    exit_status = 1

    def __init__(self, message: str, run: Path | None = None) -> None:
        super().__init__(message)
        self.run = run


class SettingsError(CharloomError, ValueError):
    """An invalid setting, flag or argument; exit status 2.

    setting: its name, if the message begins with it; the command line then shows it as a flag.
    """

    exit_status = 2

    def __init__(self, message: str, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


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


class QueueFullError(CharloomError):
    """More requests wait for a model than its scheduler takes."""


class Interrupted(CharloomError):
    """A run was asked to stop: the step was completed and everything was saved in `run`; exit status 130."""

    exit_status = 130
    run: Path

    def __init__(self, message: str, run: Path) -> None:
        super().__init__(message, run)
