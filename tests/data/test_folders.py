"""The order of a folder's files, and the files in it that are never read."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from charloom.data.folders import in_folder, matching
from charloom.errors import TextError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("text")


ORDERED = [
    *("A/9b/1.txt", "A/10/1.txt", "ch.txt", "ch0.txt", "ch00.txt", "ch01.txt", "ch1.txt", "ch1a.txt", "ch2/x.txt"),
    *("ch2.txt", "ch10.txt", "ch10b2.txt", "ch10b11.txt", "ch123456789012345678901.txt", "part 2, ch 3.txt"),
    *("part 10, ch 1.txt", "v1.2.10.txt", "v1.10.txt", "²3.txt", "٣.txt"),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_numbers_in_names_count(here: Path, seed: int):
    """Catches chapter 10 before chapter 2, the order of the file system, and digits that are not ASCII."""
    make(*(f"d/{name}" for name in random.Random(seed).sample(ORDERED, len(ORDERED))))
    assert in_folder("d").files == matching("d/**").files == [f"d/{name}" for name in ORDERED]


@pytest.mark.parametrize(
    ("names", "ours"),
    [
        (["run.toml", "log.jsonl"], True),
        (["run.toml", "data/ids.bin"], True),
        (["run.toml"], False),
        (["log.jsonl"], False),
        (["config.json", "vocabulary.json", "model.safetensors"], True),
        (["config.json", "model.safetensors"], False),
    ],
)
def test_what_makes_a_run_or_a_model(here: Path, names: list[str], ours: bool):
    """Catches a user's own config.json or run.toml that is taken for charloom's."""
    make(*(f"d/x/{name}" for name in names))
    found = in_folder("d")
    assert found.ours == (["d/x"] if ours else [])
    assert len(found.files) == (0 if ours else len(names))
    assert in_folder("d/x").ours == (["d/x"] if ours else [])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user who may not read everything")
def test_a_folder_that_cannot_be_read(here: Path):
    """Catches an unreadable subfolder that ends the run, and one that is named but skipped."""
    make("d/a.txt", "d/locked/b.txt")
    Path("d/locked").chmod(0)
    found = in_folder("d")
    assert found.files == ["d/a.txt"]
    assert "d/locked cannot be read" in found.notices[0]
    with pytest.raises(TextError, match="d/locked cannot be read"):
        in_folder("d/locked")
    Path("d/locked").chmod(0o700)
