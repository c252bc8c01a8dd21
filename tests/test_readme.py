"""The README's Python example runs as printed; without this it would rot with the first renamed argument."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processor

README = Path(__file__).parents[1] / "README.md"


def test_the_python_example_runs(tmp_path: Path, corpus: str) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert example.count("minutes=5") == 1, "the test shortens the budget, and must find it"
    assert len(example.splitlines()) <= 10
    (tmp_path / "my.txt").write_text("Once there was a text.\n" + corpus, encoding="utf-8")
    program = example.replace("minutes=5", "steps=3, hidden=16")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d\.\d\d bits per character, \d+% guessed right\n$", done.stdout)
