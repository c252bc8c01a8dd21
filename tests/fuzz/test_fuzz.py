"""The first inputs of `make fuzz`, and a check that it reports each kind of finding.

The programs are started as a person would: an input may crash or stop the process that reads it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits and FIFOs are those of POSIX")
FUZZ = Path(__file__).parent / "fuzz.py"
INPUTS = {"model": 200, "run": 80, "corpus": 150, "import": 150}


def fuzzed(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, FUZZ, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.parametrize(("kind", "inputs"), INPUTS.items())
def test_damaged_files_are_read_or_refused(tmp_path, kind, inputs):
    """Catches a damaged file that gives anything but a model, a text, or one line with the reason."""
    done = fuzzed(kind, "--inputs", inputs, "--findings", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{kind}: {inputs} inputs" in done.stdout


BAD = """
import ctypes, os, sys, time
from pathlib import Path
import fuzz, kinds, worker
from charloom.errors import CharloomError

def use(folder, out):
    what = (folder / "what").read_text()
    if what == "exception":
        raise KeyError(what)
    if what == "lines":
        raise CharloomError("one\\ntwo\\nthree\\nfour")
    if what == "crash":
        ctypes.string_at(0)
    if what == "hang":
        time.sleep(1000)
    while what == "busy":
        pass
    if what == "memory":
        bytearray(600 << 20)
    if what == "outside":
        (folder.parents[1] / "elsewhere").write_text("")
    if what == "process":
        os.system("true")
    if what == "link":
        (folder / "link").write_text("")
    if what == "refused":
        raise CharloomError("one line")

worker.BUSY = float(sys.argv[1])
worker.HANG = 3 * worker.BUSY  # both at once would write one report into the other
kinds.KINDS["bad"] = kinds.Kind(dict, use)
if __name__ == "__main__":
    with fuzz.Trial("bad") as trial:
        for what in sys.argv[2:]:
            outcome = trial.of({"what": what.encode(), "link": kinds.Special.LINK})
            print(outcome.finding or outcome.refused or "read")
"""
SEEN = {
    "exception": "KeyError at",
    "lines": "message of several lines at",
    "crash": "crash: ",
    "hang": "hang: ",
    "busy": "hang: ",
    "memory": "memory",
    "outside": "Outside at",
    "process": "Outside at",
    "link": "a link was followed and what it leads to changed",
    "refused": "one line",
    "fine": "read",
}

ENDLESS = ["hang", "busy"]


@pytest.mark.skipif(sys.platform != "linux", reason="memory and crashes are told by Linux")
def test_every_kind_of_finding_is_seen(tmp_path):
    """Catches a fuzzer that misses a finding. Each forbidden action must be told apart, and the fuzzer must
    continue.
    """
    (tmp_path / "bad.py").write_text(BAD)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FUZZ.parent), os.environ.get("PYTHONPATH", "")])}
    for limit, inputs in [("1", ENDLESS), ("600", [what for what in SEEN if what not in ENDLESS])]:
        command = [sys.executable, tmp_path / "bad.py", limit, *inputs]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.stderr == ""
        found = dict(zip(inputs, done.stdout.splitlines(), strict=True))
        assert [what for what in inputs if not found[what].startswith(SEEN[what])] == [], found


def test_the_same_seed_gives_the_same_inputs():
    """Catches inputs that depend on the clock, the order of a set or the machine: a finding must be repeatable."""
    code = (
        "import random, sys; sys.path.insert(0, sys.argv[1]); import kinds, mutation\n"
        "seeds = [files for kind in kinds.KINDS.values() for files in kind.seeds().values()]\n"
        "m = mutation.Mutator(seeds)\n"
        "draws = [random.Random(n) for n in range(300)]\n"
        "print([mutation.checksum(m.mutated(r.choice(seeds), r.choice(seeds), r)) for r in draws])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, FUZZ.parent],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
