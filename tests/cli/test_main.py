"""The command line: help, commands, exit statuses, and start-up time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from charloom.cli.main import COMMANDS, cli, main
from charloom.errors import ProcessLostError


def imported(err: str) -> set[str]:
    """The modules that `python -X importtime` names."""
    return {line.rpartition("|")[2].strip() for line in err.splitlines() if line.startswith("import time:")}


def test_help_needs_click_alone(cold):
    """Catches `--help` that imports NumPy, pydantic or PyTorch."""
    ended = cold("--help", python=["-X", "importtime"])
    assert ended.status == 0
    modules = imported(ended.err)
    assert "click" in modules
    assert not modules & {"numpy", "torch", "pydantic", "rich"}


def test_generate_needs_no_torch(cold, tiny):
    """Catches `generate` that imports PyTorch, or modules for progress bars and downloads."""
    ended = cold("generate", tiny, "--length", "3", python=["-X", "importtime"])
    assert ended.status == 0
    modules = imported(ended.err)
    assert "numpy" in modules
    assert not modules & {"torch", "rich", "fsspec", "pooch", "requests", "charset_normalizer"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(charloom, command):
    """Catches a listed command that does not exist, and markup in the help."""
    ended = charloom(command, "--help")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith(f"Usage: charloom {command} ")
    assert "\\b" not in ended.out
    assert max(map(len, ended.out.splitlines())) <= 100


def test_the_list_of_commands(charloom):
    """Catches markup, and a list that differs from the commands."""
    ended = charloom("--help")
    assert "\\b" not in ended.out
    assert all(f"  {command} " in ended.out for command in COMMANDS)
    assert "\n  charloom demo\n" in ended.out.replace("    ", "  ")


def test_nothing_asked_is_answered_with_the_help(charloom):
    """Catches `charloom` without arguments that prints all of the help in one error line."""
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
    """Catches a misspelt word without a suggestion, in more than one line, or without status 2."""
    ended = charloom(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert says in ended.complaint


def test_an_error_that_nobody_foresaw(cold, tmp_path):
    """Catches a traceback that the user did not request, and no traceback on request."""
    (tmp_path / "sitecustomize.py").write_text("import charloom.data.named as n\nn.listing = lambda: 1 / 0\n")
    env = {"PYTHONPATH": str(tmp_path)}
    ended = cold("corpora", env=env)
    assert (ended.status, ended.out) == (1, "")
    assert ended.complaint.startswith("this is a bug in charloom, ZeroDivisionError: division by zero; please report")
    lines = cold("corpora", env=env | {"CHARLOOM_TRACEBACK": "1"}).err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == f"charloom: {ended.complaint}"


@pytest.mark.parametrize(
    ("rank", "local_rank", "shown"),
    [("0", "0", True), ("1", "1", False), ("1", "0", True)],
    ids=["first", "second", "on another machine"],
)
def test_a_lost_process_is_told_once_on_each_machine(monkeypatch, capsys, rank, local_rank, shown):
    """Catches a machine whose screen says nothing, and a line for each process."""
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "here", "RANK": rank, "LOCAL_RANK": local_rank}
    for name, value in place.items():
        monkeypatch.setenv(name, value)

    def lost(*_, **__):
        raise ProcessLostError("every process must answer")

    monkeypatch.setattr(cli, "main", lost)
    monkeypatch.setattr(sys.modules[main.__module__], "ignore_interrupts", lambda: None)  # it would hold for all tests
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 1
    assert ("every process must answer" in capsys.readouterr().err) == shown


def test_a_part_that_does_not_load(cold, tmp_path):
    """Catches a page of advice from NumPy if memory is short, instead of the first error, which has the reason."""
    (tmp_path / "numpy.py").write_text("try:\n    import no_such_part\nexcept ImportError as error:\n"
                                       "    raise ImportError('many lines of advice') from error\n")  # fmt: skip
    ended = cold("generate", "x", env={"PYTHONPATH": str(tmp_path)})
    assert (ended.status, ended.out) == (1, "")
    assert ended.complaint.startswith("every package must load; No module named 'no_such_part'; ")


def test_the_version(charloom):
    """Catches a version that differs from pyproject.toml, or is not on stdout."""
    from importlib.metadata import version

    assert charloom("--version").out == f"charloom {version('charloom')}\n"


def test_the_installed_command_is_this_one():
    """Catches an entry point for another function."""
    from importlib.metadata import entry_points

    from charloom.cli.main import main

    (command,) = entry_points(group="console_scripts", name="charloom")
    assert command.load() is main


def test_a_shell_can_complete_commands_and_flags():
    """Catches a line in the README for shell completion that does not work."""
    for words, expected in (("charloom ge", "generate"), ("charloom train --hid", "--hidden")):
        env = {"_CHARLOOM_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        code = "from charloom.cli.main import main; main()"
        ended = subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True)
        assert f"plain,{expected}" in ended.stdout
