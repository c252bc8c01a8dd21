"""The display of a run: live on a terminal, plain lines elsewhere, JSON lines for programs, or nothing.

All but JSON goes to stderr, so stdout has only data.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from charloom.cli.flags import as_flags
from charloom.cli.screen import discard, one_line, shown, stderr_may_fail, tell, tell_line
from charloom.training.events import Event, EventHandler, Finished, Notice, Planned, Sample, Started, Step, Validation

PLAIN_EVERY = 10.0  # seconds between two lines about steps, or two samples, without a terminal
SAMPLE_ROWS = 6  # of the panel: fixed, so that the lines below do not move


@contextmanager
def open_display(quiet: bool = False, as_json: bool = False, tensorboard: bool = False) -> Iterator[EventHandler]:
    """The function that shows events; the context lasts as long as the run."""
    with ExitStack() as stack:
        reports: list[EventHandler] = []
        if as_json:
            reports.append(JsonDisplay().report)
        elif quiet:
            reports.append(notice_only)
        elif (console := animated()) is not None:
            reports.append(stack.enter_context(LiveDisplay(console)).report)
        else:
            reports.append(PlainDisplay().report)
        if tensorboard:
            from charloom.training.tensorboard import TensorBoard

            reports.append(stack.enter_context(TensorBoard()).report)

        def report(event: Event) -> None:
            for each in reports:
                each(event)

        yield report


def animated() -> Console | None:
    """The terminal on stderr, if it can change lines in place and NO_COLOR is not set."""
    if os.environ.get("NO_COLOR") or not sys.stderr.isatty():
        return None
    console = Console(stderr=True, highlight=False)
    return console if console.is_terminal and not console.is_dumb_terminal else None


def notice_only(event: Event) -> None:
    """Writes notices to stderr, and nothing else."""
    if isinstance(event, Notice):
        tell_line(event.text)


class JsonDisplay:
    """One event a line on stdout, as in log.jsonl: texts name settings as Python does, like the other fields.

    If the reader closes the pipe, training continues without this display.
    """

    def __init__(self) -> None:
        self._read = True

    def report(self, event: Event) -> None:
        """Writes an event, in ASCII."""
        if not self._read:
            return
        try:
            sys.stdout.write(json.dumps(event.to_json()) + "\n")
            sys.stdout.flush()
        except OSError as error:
            self._read = False
            discard(sys.stdout)
            tell_line(f"stdout cannot be written: {error.strerror}; training continues; log.jsonl has all events")


class EventLines:
    """The permanent lines of each event; steps and samples have none."""

    def __init__(self) -> None:
        self.unit = "char"
        self._headed = False

    def of(self, event: Event) -> list[str]:
        """The lines of an event."""
        if isinstance(event, Notice):
            return [one_line(event.text)]
        if isinstance(event, Planned):
            return plan_table(event)
        if isinstance(event, Started):
            self.unit = event.unit
            return _started(event)
        if isinstance(event, Validation):
            head = [] if self._headed else [validation_head(self.unit)]
            self._headed = True
            return [*head, validation_row(event)]
        if isinstance(event, Finished):
            return _finished(event, self.unit)
        return []


def plan_table(event: Planned) -> list[str]:
    """The choices of the planner, one setting a row."""
    return str(event).split("\n")


def _started(event: Started) -> list[str]:
    action = f"resuming at step {event.step:,}" if event.resumed else "training"
    network = f"{event.cell}, {event.layers} x {counted(event.hidden, 'unit')}, {event.parameters:,} parameters"
    return [
        f"{action} in {event.run}: {network}",
        f"text: {counted(event.train_tokens, 'token')} to train on, {event.validation_tokens:,} to validate; "
        f"vocabulary: {counted(event.tokens, 'token')}",
        f"with: {event.engine}",
    ]


def validation_head(unit: str) -> str:
    """The labels of the rows; at most 79 columns."""
    measure = f"nats/{unit} (bits)"
    return f"{'step':>9} {'epoch':>5} {'time':>8} {'train ' + measure:>23} {'validation ' + measure:>28}"


def validation_row(event: Validation) -> str:
    """A validation in one row, with a star if it is the best so far."""
    train, validation = ("" if nats is None else _both(nats) for nats in (event.train_nats, event.validation_nats))
    star = " *" if event.best else ""
    return f"{event.step:>9,} {event.epoch + 1:>5} {clock(event.seconds):>8} {train:>23} {validation:>28}{star}"


def _finished(event: Finished, unit: str) -> list[str]:
    lines = [
        f"done: {counted(event.step, 'step')}, {counted(event.epoch, 'whole epoch')}, {clock(event.seconds)}; "
        f"best at step {event.best_step:,}"
    ]
    if event.validation_nats is not None:
        lines.append(f"validation, whole split: {loss(event.validation_nats, unit)}, accuracy {event.accuracy:.1%}")
    if event.test_nats is not None:
        lines.append(f"test, whole split: {loss(event.test_nats, unit)}")
    if event.verdict is not None:
        lines.append(as_flags(event.verdict))
    return lines


def counted(count: int, word: str) -> str:
    """`1 step`, `2,000 steps`."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def _both(nats: float) -> str:
    return f"{nats:.4f} ({nats / math.log(2):.3f})"


def loss(nats: float, unit: str) -> str:
    """A loss with its units."""
    return f"{nats:.4f} nats/{unit} ({nats / math.log(2):.3f} bits)"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


def step_line(event: Step, unit: str) -> str:
    """The progress of training in one line."""
    return (
        f"step {event.step:,} · epoch {event.epoch + 1} · train {loss(event.train_nats, unit)} · "
        f"{event.tokens_per_second:,.0f} {unit}s/s"
    )


def time_left(event: Step) -> str:
    """The remaining time, if it is known."""
    return "" if event.seconds_left is None else f"{clock(event.seconds_left)} left"


class PlainDisplay:
    """Plain lines, for logs and pipes."""

    def __init__(self) -> None:
        self._lines = EventLines()
        self._last_step = self._last_sample = -math.inf
        self._seconds = 0.0

    def report(self, event: Event) -> None:
        """Shows an event."""
        for line in self._lines.of(event):
            tell(line)
        if isinstance(event, Step | Validation):
            self._seconds = event.seconds
        if isinstance(event, Step) and event.seconds - self._last_step >= PLAIN_EVERY:
            self._last_step = event.seconds
            tell(" · ".join(filter(None, (step_line(event, self._lines.unit), time_left(event)))))
        if isinstance(event, Sample) and self._seconds - self._last_sample >= PLAIN_EVERY:
            self._last_sample = self._seconds
            tell("\n".join("    " + line for line in event.text.splitlines()))


class LiveDisplay:
    """The last sample, a progress bar and a line that change in place, below the permanent lines."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._lines = EventLines()
        self._sample: Text | None = None
        self._step: Step | None = None

    def __enter__(self) -> LiveDisplay:
        with stderr_may_fail():
            self._live.start()
        return self

    def __exit__(self, *error: Any) -> None:
        with stderr_may_fail():
            self._live.stop()

    def report(self, event: Event) -> None:
        """Shows an event."""
        with stderr_may_fail():
            self._show(event)

    def _show(self, event: Event) -> None:
        for line in self._lines.of(event):
            self._live.console.print(Text(shown(line), style="yellow" if isinstance(event, Notice) else ""))
        if isinstance(event, Step):
            self._step = event
        elif isinstance(event, Sample):
            self._sample = Text(shown(event.text).expandtabs().replace("\r", "").strip("\n"))
        self._live.update(self._view())

    def _view(self) -> Group:
        parts: list[Any] = []
        if self._sample is not None:
            title = "latest sample"
            parts.append(
                Panel(self._sample, title=title, title_align="left", border_style="dim", height=SAMPLE_ROWS + 2)
            )
        if self._step is not None:
            row = Table.grid(padding=(0, 1), expand=True)
            row.add_column(ratio=1)
            row.add_column(justify="right", no_wrap=True)
            row.add_row(ProgressBar(1.0, self._step.fraction), time_left(self._step))
            parts.append(row)
            parts.append(Text(step_line(self._step, self._lines.unit), no_wrap=True, overflow="ellipsis"))
        return Group(*parts)
