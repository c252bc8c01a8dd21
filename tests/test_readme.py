"""The README's Python example runs as printed; without this it would rot with the first renamed argument."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.processor

README = Path(__file__).parents[1] / "README.md"


def test_the_python_example_runs(tmp_path: Path, corpus: str) -> None:
    examples = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert max(len(example.splitlines()) for example in examples) <= 10
    example = "".join(examples)
    assert example.count("minutes=5") == 1, "the test shortens the budget, and must find it"
    (tmp_path / "my.txt").write_text("Hello, Dear. Once there was a text.\n" + corpus, encoding="utf-8")
    program = example.replace("minutes=5", "steps=3, hidden=16")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d\.\d\d bits per character, \d+% guessed right\n", done.stdout)
    assert re.search(r"0 ['\"].*['\"] length\n", done.stdout)


def test_advice_to_install_names_packages_that_an_index_has():
    """`pip install 'charloom[torch]'`: charloom itself is on no index yet. Catches names that charloom does not use."""
    root = Path(__file__).parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    packages = {re.split(r"[^\w.-]", requirement)[0] for requirement in needed} - {"charloom"}
    texts = [path.read_text(encoding="utf-8") for path in (root / "src").rglob("*.py")]
    advised = {name for text in texts for name in re.findall(r"pip install ([^\s\"`;]+)", text)}
    assert advised
    assert advised <= packages
