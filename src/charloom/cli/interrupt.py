"""Ctrl-C that loses nothing: the first stops training after its step, the second quits at once, others do nothing.

Before training begins there is nothing to save, so the first one quits at once too. SIGTERM (the machine shuts down)
and SIGHUP (the terminal closes) have the same effect.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from charloom.engines.torchrun import process_count
from charloom.errors import Interrupted
from charloom.training.events import Event, EventHandler, Finished, Started

Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def graceful_interrupt(report: EventHandler) -> Iterator[tuple[EventHandler, Callable[[], bool]]]:
    """In this context, SIGINT, SIGTERM and SIGHUP set a flag while a run trains; before and after, KeyboardInterrupt.

    Yields what a run needs: the report, which must receive its events, and a function that returns the flag. Signals
    reach only the main thread, so in another thread the flag is never set.

    Raises:
        Interrupted: for the second SIGINT, if the run has a checkpoint.
        KeyboardInterrupt: for any other signal that ends the process. Errors after it are caused by it.
    """
    training, asked, quitting = threading.Event(), threading.Event(), threading.Event()
    run: Path | None = None

    def watch(event: Event) -> None:
        nonlocal run
        report(event)
        if isinstance(event, Started):
            run = Path(event.run)
            training.set()
        elif isinstance(event, Finished):
            training.clear()

    def ask(number: int, _: FrameType | None) -> None:
        signal.signal(number, quit_now if number == signal.SIGINT else _second()[number])
        if not training.is_set():
            quit_now(number, _)
        asked.set()

    def quit_now(_number: int, _: FrameType | None) -> None:
        ignore_interrupts()
        quitting.set()
        raise KeyboardInterrupt

    with _handled_by(ask):
        try:
            yield watch, asked.is_set
        except BaseException:
            if not quitting.is_set():
                raise
            raise _interrupted(run if training.is_set() else None) from None


@contextmanager
def asked_by_signal() -> Iterator[Callable[[], bool]]:
    """In this context, the first signal of each kind only sets the flag that the yielded function returns."""
    asked = threading.Event()

    def ask(number: int, _: FrameType | None) -> None:
        signal.signal(number, _second()[number])
        asked.set()

    with _handled_by(ask):
        yield asked.is_set


def _interrupted(run: Path | None) -> BaseException:
    """The error of a run that was interrupted at once; while `last/` is replaced, only `last.old/` may exist."""
    if run is None or not any(os.path.lexists(run / name) for name in ("last", "last.old")):
        return KeyboardInterrupt()
    return Interrupted("interrupted; steps after the last checkpoint are lost; to go on, resume the run", run)


def ignore_interrupts() -> None:
    """From now on, Ctrl-C and a closed terminal have no effect, and SIGTERM ends the process; for one that ends."""
    if threading.current_thread() is threading.main_thread():
        for number in _second():
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)


@contextmanager
def prompt_interrupt() -> Iterator[None]:
    """In this context, the same signals raise KeyboardInterrupt, as SIGINT does in any program."""

    def end(number: int, _: FrameType | None) -> None:
        signal.signal(number, _second()[number])
        raise KeyboardInterrupt

    with _handled_by(end):
        yield


@contextmanager
def _handled_by(handler: Handler) -> Iterator[None]:
    """In it, the handler receives the signals that ask a program to end; it has no effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _second()}
    try:
        yield
    finally:
        for number, old in before.items():
            if signal.getsignal(number) != signal.SIG_IGN:  # ignored: the process ends
                signal.signal(number, old)


def _second() -> dict[int, Any]:
    """The signals that ask a program to end, and the effect of the second one of each.

    A second SIGHUP always follows at once, because the system and the shell both send one; so the second does nothing.
    `torchrun` sends SIGTERM again while the first one is obeyed, so the second does nothing there. Under `nohup` SIGHUP
    is ignored, and stays ignored. Windows has no SIGHUP.
    """
    ended = signal.SIG_IGN if process_count() > 1 else signal.SIG_DFL
    found: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: ended}
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        found[hangup] = signal.SIG_IGN
    return found
