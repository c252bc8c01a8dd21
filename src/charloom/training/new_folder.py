"""A new folder for a run: the one that the user names, or the next free one in `runs/`."""

from __future__ import annotations

import itertools
from contextlib import suppress
from pathlib import Path

from charloom.errors import SettingsError
from charloom.files import make_folder, sync


def new_folder(out: Path | None, name: str) -> Path:
    """Makes `out`, or the first free `runs/<name>-<n>`.

    Raises:
        SettingsError: if `out` exists and is not empty, or cannot be made.
    """
    try:
        return _first_free(name) if out is None else _empty(out)
    except OSError as error:
        if out is None:
            why = f"a new run goes to the folder runs, which cannot be written here: {error.strerror}"
            raise SettingsError(f"{why}; pass another folder as `out`") from None
        raise SettingsError(
            f"`out` must be a folder that can be written; {error.filename or out}: {error.strerror}"
        ) from None


def _first_free(name: str) -> Path:
    """Makes `runs/<name>-<n>`. If two runs start at the same time, each gets its own folder."""
    runs = Path("runs")
    make_folder(runs)
    for number in itertools.count(1):
        folder = runs / f"{name}-{number}"
        with suppress(FileExistsError):
            folder.mkdir()
            break
    sync(runs)
    return folder


def _empty(folder: Path) -> Path:
    make_folder(folder)
    if any(folder.iterdir()):
        raise SettingsError(f"`out` must be a new or empty folder; {folder} holds files; choose another name")
    return folder
