"""Ctrl-C: the first asks, the second quits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from charloom.training.interrupt import graceful_interrupt, prompt_interrupt

pytestmark = pytest.mark.processor


def press(number=signal.SIGINT):
    os.kill(os.getpid(), number)
    time.sleep(0)  # a handler runs between two bytecodes


def test_the_first_asks_and_the_second_quits():
    """A second Ctrl-C that is swallowed leaves a person with kill -9 alone."""
    with graceful_interrupt() as stop:
        assert not stop()
        press()
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            press()


def test_a_polite_kill_asks_too():
    """SIGTERM, by which a machine shuts down, must save as well."""
    with graceful_interrupt() as stop:
        press(signal.SIGTERM)
        assert stop()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_handlers_of_before_are_back_afterwards():
    """A program that calls `charloom.train` keeps its own Ctrl-C, even after an error."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ZeroDivisionError), graceful_interrupt():
        press() or 1 / 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_training_in_another_thread_needs_no_signals():
    """Python raises ValueError where a thread sets a handler."""
    seen = []

    def work():
        with graceful_interrupt() as stop:
            seen.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_while_there_is_nothing_to_save_the_first_quits():
    """Half a minute of reading a large text in which Ctrl-C seemed not to work."""
    with graceful_interrupt() as stop:
        with pytest.raises(KeyboardInterrupt), prompt_interrupt():
            press()
        assert not stop()
        press()
        assert stop()


def test_ctrl_c_while_the_text_is_read_leaves_no_run_behind(tmp_path):
    """The real command line waits for a text that never ends."""
    command = [str(Path(sys.executable).with_name("charloom")), "train", "-", "--device", "cpu"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        process.stdin.write(b"more than a pipe holds\n" * 20_000)  # comes back when most of it has been read
        process.stdin.flush()
        time.sleep(0.5)  # let it wait for more: Python hears no signal between two reads of one call
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read().splitlines()[-1] == b"charloom: interrupted"
    finally:
        process.kill()
        process.communicate()
    assert not any(tmp_path.iterdir())
