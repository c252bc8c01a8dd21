"""Ctrl-C that loses nothing: the first asks training to stop after its step, the second quits at once.

Before training begins there is nothing to save, and the first quits at once too.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def graceful_interrupt() -> Iterator[Callable[[], bool]]:
    """Within it, SIGINT (and SIGTERM) set a flag; gives the function that tells whether they did.

    Signals reach the main thread alone, so elsewhere the flag is never set.
    """
    asked = threading.Event()

    def ask(number: int, _: FrameType | None) -> None:
        asked.set()
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def prompt_interrupt() -> Iterator[None]:
    """Within it, and within `graceful_interrupt`, SIGINT raises KeyboardInterrupt as it does in any program."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
