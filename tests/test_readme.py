"""The README's Python example runs as printed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click

from charloom.cli.main import cli

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
    assert (tmp_path / "my-model" / "config.json").exists()


def test_its_commands_have_the_flags_that_it_names():
    """Catches a flag or a command that has another name now."""
    text = README.read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    found = re.findall(r"`(charloom [a-z][^`]*)`", text) + re.findall(r"^(charloom [^#\n]+)", blocks, re.MULTILINE)
    assert len(found) > 25
    for line in found:
        _, name, *arguments = shlex.split(line)
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, line
        known = {flag for parameter in command.params for flag in parameter.opts}
        assert {word for word in arguments if word.startswith("--") and word != "--help"} <= known, line


def test_advice_to_install_names_packages_that_an_index_has():
    """Catches `pip install 'charloom[torch]'`, because charloom is on no index yet, and names of packages that it does
    not use.
    """
    root = Path(__file__).parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    packages = {re.split(r"[^\w.-]", requirement)[0] for requirement in needed} - {"charloom"}
    texts = [path.read_text(encoding="utf-8") for path in (root / "src").rglob("*.py")]
    advised = {name for text in texts for name in re.findall(r"pip install ([^\s\"`;]+)", text)}
    assert advised
    assert advised <= packages
