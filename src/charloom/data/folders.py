"""The files that a folder or a glob names, in order.

Hidden files are left out, and so are folders with a run or a model of charloom. Otherwise a model trained on a folder
of texts and runs would learn logs and samples.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Set
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from charloom.data.sources import shown_path
from charloom.errors import TextError

MODEL = {"config.json", "vocabulary.json", "model.safetensors"}
DIGITS = re.compile("0*([0-9]+)")


@dataclass
class FoundFiles:
    """files: to be read, in order; ours: skipped folders of runs and models; notices: about unreadable folders."""

    files: list[str] = field(default_factory=list)
    ours: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def in_folder(folder: str) -> FoundFiles:
    """Every file below a folder; no hidden files, no pipes, no devices.

    Raises:
        TextError: the folder itself cannot be read. For a folder inside it, there is a notice instead.
    """
    found = FoundFiles()

    def unreadable(error: OSError) -> None:
        line = f"{shown_path(str(error.filename))} cannot be read: {error.strerror}"
        if error.filename == folder:
            raise TextError(line)
        found.notices.append(f"{line}; skipped")

    for parent, folders, files in os.walk(folder, onerror=unreadable):
        if is_ours({*folders, *files}):
            found.ours.append(parent)
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        found.files += [os.path.join(parent, name) for name in files if not name.startswith(".")]
    return _in_order(found)


def matching(pattern: str) -> FoundFiles:
    """Every file that a glob matches (`**` for any depth), without the files of a run that only its wildcards match."""
    named = literal_folder(pattern)
    found = FoundFiles()
    holds_ours = cache(lambda folder: is_ours({*os.listdir(folder)}))
    for path in glob.glob(pattern, recursive=True):
        parents = [str(parent) for parent in Path(path).parents if len(parent.parts) > len(Path(named).parts)]
        if ours := [parent for parent in parents if holds_ours(parent)]:
            found.ours.append(ours[-1])
        else:
            found.files.append(path)
    return _in_order(found)


def literal_folder(pattern: str) -> str:
    """The folder before the first wildcard of a glob; empty for the current folder."""
    return os.path.dirname(re.split(r"[*?\[]", pattern)[0])


def _in_order(found: FoundFiles) -> FoundFiles:
    files = sorted(filter(os.path.isfile, found.files), key=order_of)
    return FoundFiles(files, sorted({*found.ours}, key=order_of), found.notices)


def is_ours(names: Set[str]) -> bool:
    """Whether a folder with these names in it is a run or a model."""
    return names >= MODEL or ("run.toml" in names and not names.isdisjoint({"log.jsonl", "data"}))


def order_of(path: str) -> tuple[tuple[str, str], ...]:
    """The sort key of a path: files of a folder together, numbers by value, the same on any system and in any locale.

    The number of digits comes before each number, because a number with more digits is larger.
    """
    return tuple(
        (DIGITS.sub(lambda number: f"{len(number[1]):03}{number[1]}", part), part) for part in Path(path).parts
    )
