"""The thread pool: every part runs once, every barrier waits for all, and no thread waits for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest


@pytest.mark.parametrize("threads", [1, 5, 2])
def test_every_part_is_run_once(variant, threads):
    """Catches a part that runs twice or never, and a wrong number of threads."""
    most = 0
    for parts in [0, 1, 2, 3, 64, *range(20)] * 5:
        runs, used = variant.parts_run(threads, parts)
        assert runs == [1] * parts
        most = max(most, used)
    assert most <= threads
    assert threads == 1 or most > 1


@pytest.mark.parametrize("threads", [1, 2, 4, 40])
def test_barriers_hold_every_member(variant, threads):
    """Catches a barrier that one member passes before the others, and more members than a team may have."""
    for _ in range(50):
        size, apart = variant.team_barriers(threads, 20)
        assert 1 <= size <= min(threads, 16)
        assert apart == 0


def test_many_python_threads_at_once(variant):
    """Catches a deadlock, and parts of another caller's work, when several threads use the pool."""
    wrong = []

    def work():
        for parts in [*range(7)] * 40:
            wrong.extend(variant.team_barriers(3, 3)[1:] if variant.parts_run(3, parts)[0] == [1] * parts else [parts])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert set(wrong) == {0}


SETUP = """
import os, sys, threading
sys.path[:0] = {path!r}
import charloom.kernels as kernels
kernels.__path__[:0] = {folder!r}
module = kernels.open_variant({name!r})
assert module.parts_run(4, 50)[0] == [1] * 50
"""
FORK = """
for generation in range(3):
    child = os.fork()
    if child == 0:
        assert module.parts_run(4, 50)[0] == [1] * 50
        assert module.team_barriers(3, 10)[1] == 0
        sys.exit(7)  # through the whole of Python's end, and ours
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert module.parts_run(4, 50)[0] == [1] * 50
"""
EXIT = """
def forever():
    while True:
        module.parts_run(3, 20)
        module.team_barriers(3, 5)
for _ in range(2):
    threading.Thread(target=forever, daemon=True).start()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("code", [FORK, EXIT], ids=["fork", "exit"])
def test_processes_end(variant, code):
    """Catches a child that waits for its parent's workers, and an exit that waits for endless work."""
    from charloom import kernels

    setup = SETUP.format(path=sys.path, folder=list(kernels.__path__), name=variant.__name__.rpartition("._")[2])
    done = subprocess.run([sys.executable, "-c", setup + code], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
