"""Python arguments in messages, shown as flags; and a library that names no flags."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click
import pytest

import charloom
from charloom.cli.flags import as_flags
from charloom.cli.generate import command as generate
from charloom.cli.train import command as train

LIBRARY = Path(charloom.__file__).parent
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
OTHER_COMMANDS = {"checkpoint.py": {"--prompt"}, "data/packed.py": {"--to", "--output"}}
"""Allowed flags: those in the command of a model card, and those of pandoc."""


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("`hidden` must be 8; got 9", "--hidden must be 8; got 9"),
        ("pass `unknown='skip'`.", "pass --unknown skip."),
        ("use `keep_order=True`, or (`wrap=False`)", "use --keep-order, or (--no-wrap)"),
        ("such as `minutes=2.5`; `steps=10`: `stop='a b'`?", "such as --minutes 2.5; --steps 10: --stop 'a b'?"),
        ("leave out `prompt`", "leave out --prompt"),
        ("with `records=kind`", "with --records kind"),
    ],
)
def test_arguments_are_flags(message: str, shown: str):
    """Catches a value in Python's quotes, a switch with a value, and punctuation that hides an argument."""
    assert as_flags(message, generate) == shown


@pytest.mark.parametrize(
    "message",
    [
        "`charloom train` writes it; `slots` and `waiting` are for Python; see `Model.stream`",
        "`cell` must be 'rnn' or 'gru'; got 'my `lr` text'".replace("`cell`", "it"),
        'it must be so; got "the `lr` it\'s"',
        "`lr`.txt: no such file or folder",
        "files/`lr` cannot be read",
        "the network's `lr",
    ],
)
def test_what_is_no_argument_stays(message: str):
    """Catches a command, an attribute, a file name or a text of the user that becomes a flag."""
    assert as_flags(message, train) == message


def test_parameters_have_the_names_of_python():
    """Catches `base_model` shown as it is where the command says --from, and a file that is called `paths`."""
    assert as_flags("`base_model` and `paths`", train) == "--from and PATH"
    assert as_flags("`out`", click.Command("info")) == "`out`"


def test_the_command_that_runs_is_known():
    """Catches a notice of a run that names `base_model`: only errors are given their command."""
    with train.make_context("train", ["x.txt"]):
        assert as_flags("start with `base_model`") == "start with --from"
    assert as_flags("start with `base_model`") == "start with `base_model`"


def strings(path: Path) -> list[str]:
    """The string literals of a module, but not its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    statements = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in statements]
    return [node.value for node in constants if isinstance(node.value, str)]


def test_the_library_names_no_flag():
    """Catches a message, a notice, a verdict or a description of a setting that means nothing in Python."""
    for path in LIBRARY.rglob("*.py"):
        name = path.relative_to(LIBRARY).as_posix()
        if not name.startswith("cli/"):
            found = {flag for text in strings(path) for flag in FLAG.findall(text)}
            assert found <= OTHER_COMMANDS.get(name, set()), name


MISTAKES = [
    (["train", "TEXT", "--hidden", "0"], "--hidden"),
    (["train", "TEXT", "--keep-order"], "--records line"),
    (["train", "TEXT", "--records", "field"], "--field"),
    (["train", "TEXT", "--records", "line", "--wrap"], "--keep-order"),
    (["train", "TEXT", "--binary", "--vocabulary", "characters"], "--binary"),
    (["train", "TEXT", "--nesterov"], "--optimizer sgd"),
    (["train", "TEXT", "--out", "TEXT"], "--out"),
    (["train", "TEXT", "--from", "MODEL", "--hidden", "9"], "--from"),
    (["train", "TEXT", "--preset", "none"], "--preset"),
    (["train", "TEXT", "--min-count", "100000"], "--min-count"),
    (["train", "TEXT", "--field", "text"], "--field"),
    (["train", "NUL"], "--encoding utf-16-le"),
    (["generate", "MODEL", "--prompt", "é"], "--unknown skip"),
    (["generate", "MODEL", "--records", "2"], "--records line"),
    (["generate", "MODEL", "--stop", ""], "--stop"),
    (["generate", "MODEL", "--count", "0"], "--count"),
    (["eval", "MODEL", "NUL"], "--encoding utf-16-le"),
    (["eval", "MODEL", "ODD"], "--unknown replace"),
    (["lesson", "alphabet", "TEXT"], "PATH"),
]


@pytest.mark.parametrize(("arguments", "flag"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_answered_with_flags_that_exist(charloom, tmp_path, tiny, corpus_file, arguments, flag):
    """Catches a Python argument in an error of the command line, and a flag that no command has."""
    (tmp_path / "nul.txt").write_bytes(b"ab\0cd")
    (tmp_path / "odd.txt").write_text("é" * 9, encoding="utf-8")
    places = {"TEXT": str(corpus_file), "MODEL": str(tiny), "NUL": "nul.txt", "ODD": "odd.txt"}
    ended = charloom(*[places.get(word, word) for word in arguments])
    assert ended.status in (1, 2)
    assert flag in ended.complaint
    assert "`" not in ended.complaint
    known = {option for each in (train, generate) for parameter in each.params for option in parameter.opts}
    assert {*FLAG.findall(ended.complaint)} <= known
