"""Every error that a person can cause, and the exit status each ends in.

A message says what must hold, what was found and what to do, in one line. The command line prints it and nothing
else; from Python it is an exception like any other. `assert` is for mistakes of our own.
"""


class CharloomError(Exception):
    """The root of all of charloom's own errors; exit status 1."""

    exit_status = 1


class SettingsError(CharloomError, ValueError):
    """A setting, flag or argument that cannot be used; exit status 2.

    setting: its name, where the message begins with it, so that the command line can show it as a flag.
    """

    exit_status = 2

    def __init__(self, message: str, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


class TextError(CharloomError):
    """A text that cannot be found, read, decoded or used."""


class UnknownCharacterError(TextError, ValueError):
    """A character of a prompt or a scored text that the model's vocabulary does not hold."""


class ModelError(CharloomError):
    """A model or run folder that is missing, damaged, from the future, or not one at all."""


class DeviceError(CharloomError):
    """A device, engine or optional dependency that was asked for and is not here."""


class TrainingError(CharloomError):
    """Training cannot go on: the loss is not finite a second time, or a checkpoint cannot be written."""


class QueueFullError(CharloomError):
    """More requests wait for a model than its scheduler takes."""


class Interrupted(CharloomError):
    """Ctrl-C, SIGTERM or SIGHUP: the step was finished and everything is saved; exit status 130."""

    exit_status = 130
