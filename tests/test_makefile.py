"""The Makefile in a folder whose path is not plain ASCII words."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"


@pytest.mark.skipif(not MAKEFILE.exists() or not shutil.which("make"), reason="not a checkout, or no make")
@pytest.mark.parametrize("target", ["kernels", "check-kernels", "fuzz"])
def test_a_path_with_spaces_and_umlauts(tmp_path: Path, target: str):
    """Catches a path that the shell splits: CMake then searches a program with the name of its first word."""
    folder = tmp_path / "Wörter und Sätze"
    for name in ("pyproject.toml", "requirements.lock", ".venv/installed", ".venv/installed-development"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    shutil.copy(MAKEFILE, folder)
    done = subprocess.run(["make", "--dry-run", target], cwd=folder, capture_output=True, text=True, check=True)
    words = shlex.split(done.stdout, comments=False)
    python = [word for word in words if word.startswith("-DPython_EXECUTABLE=")]
    assert python == [f"-DPython_EXECUTABLE={folder}/.venv/bin/python"]
    assert f"-DCMAKE_MAKE_PROGRAM={folder}/.venv/bin/ninja" in words
    split = [word for word in words if "Sätze" in word and str(folder) not in word]
    assert not split
