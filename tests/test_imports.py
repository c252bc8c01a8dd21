"""Imports that import-linter cannot see. Its contracts are in pyproject.toml, and `make check` runs them."""

import re
from pathlib import Path

import charloom

BY_STRING = re.compile(
    r"""(?:import_module|__import__)\(\s*f?["'](\.|(?:charloom|torch|h5py|keras|pickle|click|rich)\b)"""
)
COMMANDS_AND_LESSONS = {"cli/main.py", "lessons/__init__.py"}  # each imports modules of its own package by name


def test_no_string_imports_what_a_contract_is_about() -> None:
    """Catches: `importlib.import_module("torch")`, which is only a string for a linter that reads imports."""
    root = Path(charloom.__file__).parent
    files = {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in root.rglob("*.py")}
    assert {name for name, source in files.items() if BY_STRING.search(source)} == COMMANDS_AND_LESSONS
