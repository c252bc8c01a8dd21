"""The command line: help, commands, statuses, and how fast it starts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from charloom.cli.main import COMMANDS


def imported(err: str) -> set[str]:
    """The modules that `python -X importtime` names."""
    return {line.rpartition("|")[2].strip() for line in err.splitlines() if line.startswith("import time:")}


def test_help_needs_click_alone(cold):
    """`--help` that waits for NumPy, pydantic or PyTorch."""
    ended = cold("--help", python=["-X", "importtime"])
    assert ended.status == 0
    modules = imported(ended.err)
    assert "click" in modules
    assert not modules & {"numpy", "torch", "pydantic", "rich"}


def test_generate_needs_no_torch(cold, tiny):
    """The first character must not wait for PyTorch, nor for what draws progress or fetches corpora."""
    ended = cold("generate", tiny, "--length", "3", python=["-X", "importtime"])
    assert ended.status == 0
    modules = imported(ended.err)
    assert "numpy" in modules
    assert not modules & {"torch", "rich", "fsspec", "pooch", "requests", "charset_normalizer"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(charloom, command):
    """A command in the list that does not exist, or help that shows its markup."""
    ended = charloom(command, "--help")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith(f"Usage: charloom {command} ")
    assert "\\b" not in ended.out
    assert max(map(len, ended.out.splitlines())) <= 100


def test_the_list_of_commands(charloom):
    """Markup, or a list of commands that is not the one there is."""
    ended = charloom("--help")
    assert "\\b" not in ended.out
    assert all(f"  {command} " in ended.out for command in COMMANDS)
    assert "\n  charloom demo\n" in ended.out.replace("    ", "  ")


def test_nothing_asked_is_answered_with_the_help(charloom):
    """`charloom` alone: all of the help squeezed into an error's one line."""
    ended = charloom()
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("Usage: charloom ")
    assert len(ended.err.splitlines()) > 10


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian", "x.txt"], "'trian' is not a command of charloom; did you mean train?"),
        (["fly"], "'fly' is not a command of charloom; the commands are train, generate,"),
        (["--fast"], "--fast"),
        (["train", "x.txt", "--hiden", "3"], "`charloom train --help`"),
    ],
)
def test_wrong_words(charloom, arguments, says):
    """A newcomer's slip must be answered with what is nearest, in one line, status 2."""
    ended = charloom(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert says in ended.complaint


def test_an_error_that_nobody_foresaw(cold, tmp_path):
    """A page of traceback for a person who cannot read it; none for who asks, and wants to report it."""
    (tmp_path / "sitecustomize.py").write_text("import charloom.data.named as n\nn.listing = lambda: 1 / 0\n")
    env = {"PYTHONPATH": str(tmp_path)}
    ended = cold("corpora", env=env)
    assert (ended.status, ended.out) == (1, "")
    assert ended.complaint.startswith("this is a bug in charloom, ZeroDivisionError: division by zero; please report")
    lines = cold("corpora", env=env | {"CHARLOOM_TRACEBACK": "1"}).err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == f"charloom: {ended.complaint}"


def test_a_part_that_does_not_load(cold, tmp_path):
    """A page of advice from NumPy, where the memory is too small to load it: the first error says why."""
    (tmp_path / "numpy.py").write_text("try:\n    import no_such_part\nexcept ImportError as error:\n"
                                       "    raise ImportError('many lines of advice') from error\n")  # fmt: skip
    ended = cold("generate", "x", env={"PYTHONPATH": str(tmp_path)})
    assert (ended.status, ended.out) == (1, "")
    assert ended.complaint.startswith("every package must load; No module named 'no_such_part'; ")


def test_the_version(charloom):
    """The number in pyproject.toml, on stdout."""
    from importlib.metadata import version

    assert charloom("--version").out == f"charloom {version('charloom')}\n"


def test_the_installed_command_is_this_one():
    """An entry point that leads elsewhere."""
    from importlib.metadata import entry_points

    from charloom.cli.main import main

    (command,) = entry_points(group="console_scripts", name="charloom")
    assert command.load() is main


def test_a_shell_can_complete_commands_and_flags():
    """The line in the README that turns completion on."""
    for words, expected in (("charloom ge", "generate"), ("charloom train --hid", "--hidden")):
        env = {"_CHARLOOM_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        code = "from charloom.cli.main import main; main()"
        ended = subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True)
        assert f"plain,{expected}" in ended.stdout
