"""Ctrl-C: the first one stops the run after its step, the second one quits."""

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
from charloom.errors import Interrupted, TrainingError
from charloom.training.events import Finished, Notice, Started

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.fixture(autouse=True)
def handlers():
    """The handlers of this process, which a run that ends leaves ignored."""
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def press(number=signal.SIGINT):
    os.kill(os.getpid(), number)
    time.sleep(0)  # the handler runs between two bytecodes


def event(kind, run="nowhere"):
    """An event of this kind, with any other values."""
    found = kind.__new__(kind)
    object.__setattr__(found, "run", str(run))
    return found


@contextlib.contextmanager
def training():
    """A context in which a run trains. Yields the function that returns the flag, and the one that takes events."""
    with graceful_interrupt(lambda _: None) as (report, stop):
        report(event(Started))
        yield stop, report


def test_the_first_asks_and_the_second_quits():
    """Catches a second Ctrl-C that has no effect, so that only kill -9 remains."""
    with training() as (stop, _):
        assert not stop()
        press()
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            press()


def test_after_the_second_nothing_interrupts():
    """Catches a third Ctrl-C that breaks the last write, the display, or the last line on stderr."""

    def quit_slowly():
        press()
        try:
            press()
        finally:
            press()

    with pytest.raises(KeyboardInterrupt), training():
        quit_slowly()
    press()


@pytest.mark.parametrize("last", ["last", "last.old"])
def test_a_broken_write_is_no_full_disk(tmp_path, last):
    """Catches an error that an interrupt caused, shown in place of the command that resumes the run."""
    (tmp_path / last).mkdir()

    def write(report):
        report(event(Started, tmp_path))
        press()
        with contextlib.suppress(KeyboardInterrupt):
            press()
        raise TrainingError("file cannot be written: Bad file descriptor")

    with pytest.raises(Interrupted) as found, graceful_interrupt(lambda _: None) as (report, _):
        write(report)
    assert found.value.run == tmp_path


def test_an_error_after_the_first_stays():
    """Catches a full disk that is shown as an interrupt, because Ctrl-C asked the run to stop."""
    with pytest.raises(ZeroDivisionError), training():
        press() or 1 / 0


def test_a_polite_kill_asks_too():
    """Catches SIGTERM, which a machine sends at shutdown, that does not save."""
    with training() as (stop, _):
        press(signal.SIGTERM)
        assert stop()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_under_torchrun_a_second_kill_does_nothing(monkeypatch):
    """Catches a run that is lost because torchrun sends SIGTERM while the first process saves."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "here"}.items():
        monkeypatch.setenv(name, value)
    with training() as (stop, _):
        press(signal.SIGTERM)
        assert stop()
        press(signal.SIGTERM)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has none")
def test_a_terminal_that_closes_asks_too():
    """Catches a second SIGHUP that kills the process while it saves. The system and the shell both send one."""
    with training() as (stop, _):
        press(signal.SIGHUP)
        assert stop()
        press(signal.SIGHUP)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has none")
def test_nohup_stays():
    """Catches a run under nohup that stops when the user logs out."""
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
    """Catches Ctrl-C without an effect after a run has ended, also with an error."""
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
    """Catches Ctrl-C that has no effect while a large text is read, and before the second run of a lesson."""
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
    """Catches a run folder that stays. The real command line waits for a text without an end."""
    command = [str(Path(sys.executable).with_name("charloom")), "train", "-", "--device", "cpu"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        process.stdin.write(b"more than a pipe holds\n" * 20_000)  # returns when most of it has been read
        process.stdin.flush()
        time.sleep(0.5)  # lets it wait for more: Python handles no signal between two reads of one call
        process.send_signal(number)
        assert process.wait(30) == 130
        assert process.stderr.read().splitlines()[-1] == b"charloom: interrupted"
    finally:
        process.kill()
        process.communicate()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_while_training_saves(tmp_path, corpus_file, number):
    """Catches a run that is lost when the terminal closes or the machine shuts down, with the real command line."""
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


def test_three_signals_end_in_one_line(tmp_path, corpus_file):
    """Catches a traceback, and a lost command that resumes the run, for Ctrl-C pressed until the program ends."""
    flags = ["--hidden", "512", "--steps", "1000000", "--validate-every", "1", "--out", "run", "--quiet"]
    command = [sys.executable, "-m", "charloom", "train", corpus_file, *flags]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "run" / "samples.txt").exists():
            assert process.poll() is None
            time.sleep(0.05)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.01)
        err = process.communicate()[1]
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1].endswith("resume the run: charloom train --resume run")
