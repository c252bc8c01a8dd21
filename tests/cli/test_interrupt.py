"""Ctrl-C: the first asks, the second quits."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from charloom.cli.interrupt import graceful_interrupt
from charloom.training.events import Finished, Notice, Started

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def press(number=signal.SIGINT):
    os.kill(os.getpid(), number)
    time.sleep(0)  # a handler runs between two bytecodes


def event(kind):
    """An event of this kind, whatever it says."""
    return kind.__new__(kind)


@contextlib.contextmanager
def training():
    """Within it, a run trains; gives what tells whether it is asked to stop, and what takes its events."""
    with graceful_interrupt(lambda _: None) as (report, stop):
        report(event(Started))
        yield stop, report


def test_the_first_asks_and_the_second_quits():
    """A second Ctrl-C that is swallowed leaves a person with kill -9 alone."""
    with training() as (stop, _):
        assert not stop()
        press()
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            press()


def test_a_polite_kill_asks_too():
    """SIGTERM, by which a machine shuts down, must save as well."""
    with training() as (stop, _):
        press(signal.SIGTERM)
        assert stop()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has none")
def test_a_terminal_that_closes_asks_too():
    """SIGHUP comes twice, from the system and from the shell: the second must not kill what is being saved."""
    with training() as (stop, _):
        press(signal.SIGHUP)
        assert stop()
        press(signal.SIGHUP)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has none")
def test_nohup_stays():
    """A run that somebody started under nohup, and that stops when they log out."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with graceful_interrupt(lambda _: None) as (report, stop):
            press(signal.SIGHUP)
            report(event(Started))
            press(signal.SIGHUP)
            assert not stop()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_handlers_of_before_are_back_afterwards():
    """Ctrl-C that does nothing any more once a run has ended, even with an error."""
    before = [signal.getsignal(number) for number in ENDING]
    with pytest.raises(ZeroDivisionError), training():
        press() or 1 / 0
    assert [signal.getsignal(number) for number in ENDING] == before


def test_training_in_another_thread_needs_no_signals():
    """Python raises ValueError where a thread sets a handler."""
    seen = []

    def work():
        with training() as (stop, _):
            seen.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("seen", [[], [Notice], [Started, Finished]])
def test_while_there_is_nothing_to_save_the_first_quits(number, seen):
    """Half a minute of reading a large text in which Ctrl-C seemed not to work; the second run of a lesson likewise."""
    shown = []
    with graceful_interrupt(shown.append) as (report, stop):
        for kind in seen:
            report(event(kind))
        with pytest.raises(KeyboardInterrupt):
            press(number)
        assert not stop()
    assert [type(each) for each in shown] == seen


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_while_the_text_is_read_leaves_no_run_behind(tmp_path, number):
    """The real command line waits for a text that never ends."""
    command = [str(Path(sys.executable).with_name("charloom")), "train", "-", "--device", "cpu"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        process.stdin.write(b"more than a pipe holds\n" * 20_000)  # comes back when most of it has been read
        process.stdin.flush()
        time.sleep(0.5)  # let it wait for more: Python hears no signal between two reads of one call
        process.send_signal(number)
        assert process.wait(30) == 130
        assert process.stderr.read().splitlines()[-1] == b"charloom: interrupted"
    finally:
        process.kill()
        process.communicate()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_while_training_saves(tmp_path, corpus_file, number):
    """The real command line: a run that is lost because a terminal was closed or a machine shut down."""
    flags = ["--hidden", "8", "--steps", "1000000", "--validate-every", "5", "--out", "run", "--quiet"]
    command = [sys.executable, "-m", "charloom", "train", corpus_file, *flags]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "run" / "samples.txt").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        err = process.communicate()[1]
    assert process.returncode == 130
    assert err.splitlines()[-1].endswith("resume the run: charloom train --resume run")
    assert (tmp_path / "run" / "last" / "resume.json").exists()
