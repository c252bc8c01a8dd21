"""What reaches a terminal: no control characters, and lines of a bounded length."""

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
    """A stream that says it is a terminal, so that nothing is taken out on the way."""

    def isatty(self) -> bool:
        return True


def shown_on_stderr(monkeypatch) -> Terminal:
    """What a person sees of it; in a test itself, since pytest takes stderr over between a fixture and its test."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_nothing_steers_the_terminal(monkeypatch):
    """A title that is set, a screen that is cleared, a line that is written over: by a name in an untrusted file."""
    terminal = shown_on_stderr(monkeypatch)
    screen.tell_line(f"model: {STEERING}{STEERING} is\tnot expected")
    assert terminal.getvalue() == "model: ·]0;owned··[2J·1m ·]0;owned··[2J·1m is not expected\n"


@pytest.mark.parametrize("length", [1000, 1001, 1_000_000])
def test_a_line_has_a_bounded_length(length):
    """A name of a megabyte on the screen, or the advice at the end cut off."""
    line = screen.one_line("begin " + "A" * (length - 12) + " do it")
    assert len(line) <= 1100
    assert line.startswith("begin ")
    assert line.endswith(" do it")
    assert ("characters are left out" in line) == (length > 1000)


def test_every_display_is_safe(monkeypatch):
    """Notices, samples and the folder of a run, as lines and on the live display."""
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
    """The whole of it in an error's one line."""
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
    """A new notice that forgets to be safe."""
    package = Path(screen.__file__).parents[1]
    texts = {str(path.relative_to(package)): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    assert [name for name, text in texts.items() if " err=True" in text or "sys.stderr.write" in text] == [
        str(Path("cli", "screen.py"))
    ]
