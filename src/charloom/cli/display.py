"""How a run is shown: live on a terminal, plain lines elsewhere, JSON lines for machines, or not at all.

Everything but JSON goes to stderr, so that stdout carries data alone.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from charloom.training.events import Event, Finished, Notice, Report, Sample, Started, Step, Validation

PLAIN_EVERY = 10.0  # seconds between two lines off a terminal


@contextmanager
def open_display(quiet: bool = False, as_json: bool = False, tensorboard: bool = False) -> Iterator[Report]:
    """The function that shows events, open for the length of a run."""
    with ExitStack() as stack:
        console = Console(stderr=True, highlight=False)
        reports: list[Report] = []
        if as_json:
            reports.append(_write_json)
        elif quiet:
            reports.append(_notice_only)
        elif console.is_terminal and not console.is_dumb_terminal:
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


def _notice_only(event: Event) -> None:
    if isinstance(event, Notice):
        click.echo(event.text, err=True)


def _write_json(event: Event) -> None:
    sys.stdout.write(json.dumps(event.to_json(), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def lines_of(event: Event, unit: str) -> list[str]:
    """What a person reads of an event that stays on the screen; empty for one that passes."""
    if isinstance(event, Notice):
        return [event.text]
    if isinstance(event, Started):
        return _started(event)
    if isinstance(event, Validation):
        train = "" if event.train_nats is None else f"train {loss(event.train_nats, unit)} · "
        star = " · best" if event.best else ""
        return [
            f"step {event.step:,} · epoch {event.epoch + 1} · {clock(event.seconds)} · {train}"
            f"validation {loss(event.validation_nats, unit)}{star}"
        ]
    if isinstance(event, Finished):
        return _finished(event, unit)
    return []


def _started(event: Started) -> list[str]:
    verb = f"going on at step {event.step:,}" if event.resumed else "training"
    return [
        f"{verb}: {event.cell} {event.layers} x {event.hidden}, {event.parameters:,} parameters, "
        f"{event.symbols} symbols · {event.train_symbols:,} {event.unit}s to train on, "
        f"{event.validation_symbols:,} to validate",
        f"{event.engine} · {event.run}",
    ]


def _finished(event: Finished, unit: str) -> list[str]:
    lines = [
        f"done: {event.step:,} steps, {event.epoch} whole epochs, {clock(event.seconds)}; best at {event.best_step:,}"
    ]
    if event.validation_nats is not None:
        lines.append(f"validation, whole split: {loss(event.validation_nats, unit)}, accuracy {event.accuracy:.1%}")
    if event.test_nats is not None:
        lines.append(f"test, whole split: {loss(event.test_nats, unit)}")
    return lines


def loss(nats: float, unit: str) -> str:
    """A loss with its labels."""
    return f"{nats:.4f} nats/{unit} ({nats / math.log(2):.3f} bits)"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


def shown(text: str) -> str:
    """A sample for the screen: characters that could steer a terminal become dots."""
    return "".join(c if c.isprintable() or c in "\n\t" else "·" for c in text)


class PlainDisplay:
    """A line for what happened, for logs and pipes."""

    def __init__(self) -> None:
        self._unit, self._last = "char", -math.inf

    def report(self, event: Event) -> None:
        """Shows an event."""
        if isinstance(event, Started):
            self._unit = event.unit
        for line in lines_of(event, self._unit):
            click.echo(line, err=True)
        if isinstance(event, Step) and event.seconds - self._last >= PLAIN_EVERY:
            self._last = event.seconds
            click.echo(step_line(event, self._unit), err=True)
        if isinstance(event, Sample):
            click.echo("\n".join("    " + line for line in shown(event.text).splitlines()), err=True)


def step_line(event: Step, unit: str) -> str:
    """Where training is, in one line."""
    left = "" if event.seconds_left is None else f" · {clock(event.seconds_left)} left"
    return (
        f"step {event.step:,} · epoch {event.epoch + 1} · train {loss(event.train_nats, unit)} · "
        f"{event.symbols_per_second:,.0f} {unit}s/s{left}"
    )


class LiveDisplay:
    """The last sample, a bar and a line that change in place; what stays scrolls by above them."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._unit, self._sample = "char", Text("")
        self._step: Step | None = None

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.stop()

    def report(self, event: Event) -> None:
        """Shows an event."""
        if isinstance(event, Started):
            self._unit = event.unit
        for line in lines_of(event, self._unit):
            self._live.console.print(Text(line, style="yellow" if isinstance(event, Notice) else ""))
        if isinstance(event, Step):
            self._step = event
        elif isinstance(event, Sample):
            self._sample = Text(shown(event.text))
        self._live.update(self._view())

    def _view(self) -> Group:
        parts: list[Any] = []
        if self._sample:
            parts.append(Panel(self._sample, title="what it writes now", title_align="left", border_style="dim"))
        if self._step is not None:
            row = Table.grid(padding=(0, 1), expand=True)
            row.add_column(width=30)
            row.add_column(ratio=1)
            row.add_row(ProgressBar(1.0, self._step.fraction), step_line(self._step, self._unit))
            parts.append(row)
        return Group(*parts)
