"""Ctrl-C that loses nothing: the first asks training to stop after its step, the second quits at once.

Before training begins there is nothing to save, and the first quits at once too. SIGTERM, by which a machine shuts
down, and SIGHUP, by which a terminal closes, do the same.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from charloom.training.events import Event, EventHandler, Finished, Started

Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def graceful_interrupt(report: EventHandler) -> Iterator[tuple[EventHandler, Callable[[], bool]]]:
    """Within it, SIGINT, SIGTERM and SIGHUP set a flag while a run trains; before and after it, KeyboardInterrupt.

    Gives what a run needs: the report, which must see its events, and the function that tells whether the flag is set.
    Signals reach the main thread alone, so elsewhere the flag is never set.
    """
    training, asked = threading.Event(), threading.Event()

    def watch(event: Event) -> None:
        report(event)
        if isinstance(event, Started):
            training.set()
        elif isinstance(event, Finished):
            training.clear()

    def ask(number: int, _: FrameType | None) -> None:
        signal.signal(number, _second()[number])
        if not training.is_set():
            raise KeyboardInterrupt
        asked.set()

    with _handled_by(ask):
        yield watch, asked.is_set


@contextmanager
def prompt_interrupt() -> Iterator[None]:
    """Within it, those signals raise KeyboardInterrupt, as SIGINT in any program."""

    def end(number: int, _: FrameType | None) -> None:
        signal.signal(number, _second()[number])
        raise KeyboardInterrupt

    with _handled_by(end):
        yield


@contextmanager
def _handled_by(handler: Handler) -> Iterator[None]:
    """Within it, a handler for every signal that asks a program to end; in another thread than the main one, none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _second()}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _second() -> dict[int, Any]:
    """The signals that ask a program to end, and what the second of each does.

    Of SIGHUP a second one always follows at once, the shell's after the system's, so it does nothing. Under `nohup`
    SIGHUP is ignored and stays so; Windows has none.
    """
    found: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        found[hangup] = signal.SIG_IGN
    return found
