"""The display of events, on consoles that record their output."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from charloom.cli import display
from charloom.training.events import Finished, Notice, Sample, Started, Step, Validation

STARTED = Started("runs/a-1", "torch 2 on cpu", "gru", 2, 1024, 12_345_678, 1_065, "char", 10**9, 10**8, 0, False)
STEP = Step(1_234_567, 12, 1.23456, 0.01, 1_234_567.8, 3600.4, 100_000.0, 0.25)
VALIDATION = Validation(1_234_567, 12, 1.25, 1.5, 0.5, True, 3600.4)
FINISHED = Finished("runs/a-1", 1000, 3, 61.0, 900, 1.5, 0.5, 1.6)


def test_validations_are_a_table_that_fits_80_columns():
    """Catches columns that are not below their labels, and nats or bits without a label."""
    lines = display.EventLines()
    head, first = lines.of(VALIDATION)
    (second,) = lines.of(Validation(5, 0, None, 2.0, 0.5, False, 1.0))
    assert "train nats/char (bits)" in head
    assert "validation nats/char (bits)" in head
    assert max(map(len, (head, first, second))) <= 80
    assert first.index("1.2500 (1.803)") + len("1.2500 (1.803)") == head.index("train") + len("train nats/char (bits)")
    assert second.rindex(")") == len(head) - 1
    assert first.endswith(" *")
    assert not second.endswith("*")


def test_a_byte_level_models_losses_say_so():
    """Nats a byte labelled as nats a character."""
    lines = display.EventLines()
    lines.of(Started("r", "e", "gru", 1, 8, 9, 256, "byte", 10, 10, 0, False))
    assert "validation nats/byte (bits)" in lines.of(VALIDATION)[0]
    assert "1.5000 nats/byte (2.164 bits)" in "\n".join(lines.of(FINISHED))


def test_one_is_no_plural():
    """Catches `done: 1 steps` and `1 whole epochs`."""
    lines = display.EventLines()
    shown = "\n".join(
        lines.of(Started("r", "e", "gru", 1, 1, 9, 9, "char", 1, 10, 0, False))
        + lines.of(Finished("r", 1, 1, 1.0, 1, None, None, None))
    )
    assert "1 x 1 unit, " in shown
    assert "text: 1 token to train on" in shown
    assert "done: 1 step, 1 whole epoch, " in shown
    assert "done: 1,000 steps, 3 whole epochs, " in "\n".join(lines.of(FINISHED))


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_the_live_part_has_a_fixed_height_and_fits(columns):
    """Catches a panel whose height changes with each sample, and lines that wrap."""
    console = Console(width=columns, height=24, file=io.StringIO(), force_terminal=True)
    heights = set()
    for sample in ("short", "one\n" * 30, "wide " * 100, "吾輩は猫である" * 30, "\n\n\n"):
        live = display.LiveDisplay(console)
        for event in (STARTED, STEP, VALIDATION, Sample(5, sample)):
            live.report(event)
        lines = console.render_lines(live._view(), console.options, pad=False)
        heights.add(len(lines))
        assert all(sum(segment.cell_length for segment in line) <= columns for line in lines)
    assert len(heights) == 1


def test_the_step_line_is_whole_at_80_columns():
    """Catches a speed that is cut off on a terminal of 80 columns."""
    assert len(display.step_line(Step(99_999, 99, 1.2, 0.01, 999_999, 10, 10, 0.5), "char")) <= 80


def test_plain_lines_are_few(capsys):
    """Catches a log with a sample for every validation, or a line every second."""
    plain = display.PlainDisplay()
    for second in range(60):
        plain.report(Step(second, 0, 1.0, 0.01, 1000.0, float(second), 60.0 - second, second / 60))
        plain.report(Sample(second, f"sample {second}"))
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "sample" in line] == [f"    sample {second}" for second in range(0, 60, 10)]
    assert len(lines) == 12
    assert "0:01:00 left" in lines[0]


def test_json_is_ascii_and_holds_bits_beside_nats(capsys):
    """Catches output that a reader with another encoding cannot read, and nats in the place of bits."""
    json_lines = display.JsonDisplay()
    json_lines.report(Notice("grün.txt \udcff"))
    json_lines.report(VALIDATION)
    out = capsys.readouterr().out
    assert out.isascii()
    notice, validation = map(json.loads, out.splitlines())
    assert notice == {"event": "notice", "text": "grün.txt \udcff"}
    assert validation["validation_bits"] == pytest.approx(1.5 / 0.693147, rel=1e-5)


def test_quiet_tells_notices_alone(capsys):
    """Catches --quiet that hides a notice."""
    with display.open_display(quiet=True) as report:
        for event in (STARTED, Notice("the text is short"), STEP, FINISHED):
            report(event)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "the text is short\n")


class FakeTerminal(io.StringIO):
    """A stderr that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("env", "animated"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_where_things_may_move(monkeypatch, env, animated):
    """Catches animation although the user or the terminal forbids it."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", FakeTerminal())
    assert (display.animated() is not None) == animated


def test_nothing_moves_in_a_log_whatever_the_colours(monkeypatch):
    """Catches cursor movements in a log with FORCE_COLOR, which many CI systems set."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert display.animated() is None


def test_a_run_outlives_the_reader_of_its_json():
    """Catches `train --json | head -1` that ends the training when the reader ends."""
    code = (
        "import sys, time; from charloom.cli.display import JsonDisplay; from charloom.training.events import Notice\n"
        "show = JsonDisplay(); sys.stdin.read()\n"
        "for number in range(3): show.report(Notice('line'))\n"
        "sys.exit(7)"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        process.stdout.close()
        process.stdin.close()
        complaint = "stdout cannot be written: Broken pipe; training continues; log.jsonl has all events\n"
        assert process.stderr.read() == complaint
        assert process.wait() == 7
