"""Output for a terminal: no control characters, and lines of a bounded length."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

from charloom.cli import display, screen
from charloom.training.events import Notice, Planned, Sample, Started

STEERING = "\x1b]0;owned\x07\x1b[2J\x9b1m\r\n"


class Terminal(io.StringIO):
    """A stream that claims to be a terminal, so that nothing is removed on the way."""

    def isatty(self) -> bool:
        return True


def shown_on_stderr(monkeypatch) -> Terminal:
    """The stderr of the test. It must be set in the test, because pytest replaces stderr between a fixture and its
    test.
    """
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_nothing_steers_the_terminal(monkeypatch):
    """Catches a name in an untrusted file that sets the title, clears the screen or overwrites a line."""
    terminal = shown_on_stderr(monkeypatch)
    screen.tell_line(f"model: {STEERING}{STEERING} is\tnot expected")
    assert terminal.getvalue() == "model: ·]0;owned··[2J·1m ·]0;owned··[2J·1m is not expected\n"


@pytest.mark.parametrize("length", [1000, 1001, 1_000_000])
def test_a_line_has_a_bounded_length(length):
    """Catches a name of a megabyte on the screen, and a message without its final advice."""
    line = screen.one_line("begin " + "A" * (length - 12) + " do it")
    assert len(line) <= 1100
    assert line.startswith("begin ")
    assert line.endswith(" do it")
    assert ("characters are left out" in line) == (length > 1000)


def test_every_display_is_safe(monkeypatch):
    """Catches control characters from notices, samples and run folders, in lines and on the live display."""
    events = [
        Notice(f"a {STEERING} b"),
        Started(STEERING, STEERING, "gru", 2, 8, 9, 9, "char", 9, 9, 0, False),
        Planned(1.0, 9, 9, 0, 0.0, 1.0, ()),
        Sample(1, STEERING),
    ]
    terminal = shown_on_stderr(monkeypatch)
    plain, live = display.PlainDisplay(), display.LiveDisplay(Console(file=terminal, width=100, color_system=None))
    for event in events:
        plain.report(event)
        live.report(event)
    assert "a ·]0;owned" in terminal.getvalue()
    assert not set("\x1b\x07\x9b") & {*terminal.getvalue()}


def test_a_key_of_a_megabyte(charloom, tmp_path, tiny):
    """Catches a key of a megabyte in an error."""
    shutil.copytree(tiny / "best", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["cleaning"]["\x1b[2J" + "A" * 1_000_000] = 1
    path.write_text(json.dumps(config))
    complaint = charloom("info", "model").complaint
    assert len(complaint) < 1100
    assert complaint.startswith("model: config.json: ")
    assert complaint.endswith("is an unknown name; leave it out")


def test_one_place_writes_to_stderr():
    """Catches a new notice that is printed without the checks."""
    package = Path(screen.__file__).parents[1]
    texts = {str(path.relative_to(package)): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    assert [name for name, text in texts.items() if " err=True" in text or "sys.stderr.write" in text] == [
        str(Path("cli", "screen.py"))
    ]
