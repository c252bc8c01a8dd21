"""Feeds damaged files to charloom and reports what it does not refuse properly: `make fuzz`.

    python tests/fuzz/fuzz.py                          all kinds
    python tests/fuzz/fuzz.py run import --inputs 500  two of them, 500 inputs each
    python tests/fuzz/fuzz.py --repeat build/fuzz/run-1a2b3c4d

Inputs are made from `--seed` and a number, from valid examples and from inputs that reached new lines of charloom. They
are tried in another process, which may crash. A finding is kept as a folder: the input, and a text that says what
happened and how to repeat it. Exit status 1 where there were any.

Coverage is that of Python's lines, by `sys.settrace`. libFuzzer (atheris) would also see branches of C, but with GCC's
AddressSanitizer loaded first, as kernels in a normal Python need it, atheris sees none at all.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import worker
from kinds import KINDS, Files, read, write
from mutation import Mutator, checksum
from worker import Outcome

MEMORY = Path("/dev/shm")  # a file system in memory, if there is one: an input has up to twenty small files
START = 100  # seconds that the process may take to start on a busy machine; PyTorch needs some of them
KEPT = 3  # inputs for each finding: the third may be simpler to understand than the first


def main() -> int:
    arguments = _arguments()
    if arguments.repeat:
        return _repeat(arguments.repeat)
    findings = sum(_fuzz(kind, arguments) for kind in arguments.kinds or KINDS)
    return 1 if findings else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)}; by default all")
    parser.add_argument("--inputs", type=int, default=2000, help="for each kind")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each kind, at most")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"), help="the folder that findings go to")
    parser.add_argument("--repeat", type=Path, metavar="FINDING", help="try a finding's input again")
    arguments = parser.parse_args()
    if wrong := set(arguments.kinds) - set(KINDS):
        parser.error(f"the kinds are {', '.join(KINDS)}; got {', '.join(sorted(wrong))}")
    return arguments


def _fuzz(kind: str, arguments: argparse.Namespace) -> int:
    """Tries the examples, which must be read, then `inputs` damaged inputs. Returns the number of findings."""
    seeds = KINDS[kind].seeds()
    pool, mutator, lines = [*seeds.values()], Mutator([*seeds.values()]), set[worker.Line]()
    found, number, begin = Counter[str](), 0, time.monotonic()
    with Trial(kind) as trial:
        for name, files in seeds.items():
            outcome = trial.of(files)
            lines |= outcome.lines
            if outcome.finding or outcome.refused:
                sys.exit(
                    f"{kind}: the example {name} must be read; {outcome.finding}{outcome.refused}\n{outcome.details}"
                )
        while number < arguments.inputs and time.monotonic() - begin < arguments.seconds:
            random, number = Random(f"{arguments.seed} {kind} {number}"), number + 1
            files = mutator.mutated(random.choice(pool), random.choice(pool), random)
            outcome = trial.of(files)
            if outcome.finding:
                found[outcome.finding] += 1
                if found[outcome.finding] <= KEPT:
                    _keep(files, kind, outcome, arguments.findings)
            elif not outcome.lines <= lines:
                pool.append(files)
            lines |= outcome.lines
    seconds = time.monotonic() - begin
    print(
        f"{kind}: {number} inputs in {seconds:.0f} s, {number / seconds:.1f} a second; {len(lines)} lines reached; "
        f"{found.total()} findings, {len(found)} different",
        flush=True,
    )
    return found.total()


def _keep(files: Files, kind: str, outcome: Outcome, findings: Path) -> None:
    """Writes a finding into a new folder, and one line about it to stderr."""
    folder = findings / f"{kind}-{checksum(files)}"
    shutil.rmtree(folder, ignore_errors=True)
    write(files, folder / "input", Path("/nowhere"))
    command = f"make fuzz REPEAT={folder}"
    (folder / "finding.txt").write_text(
        f"{outcome.finding}\n{command}\n\n{outcome.details}\n", errors="backslashreplace"
    )
    print(f"{outcome.finding}; repeat it: {command}", file=sys.stderr, flush=True)


def _repeat(folder: Path) -> int:
    with Trial(folder.name.partition("-")[0]) as trial:
        outcome = trial.of(read(folder / "input"))
    print(outcome.details, outcome.finding or f"no finding: {outcome.refused or 'it is read'}", sep="\n")
    return 1 if outcome.finding else 0


class Trial:
    """The process that tries inputs of one kind; it starts again after each crash."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __enter__(self) -> Trial:
        self._work = Path(tempfile.mkdtemp(prefix="charloom-fuzz-", dir=MEMORY if MEMORY.is_dir() else None))
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        shutil.rmtree(self._work, ignore_errors=True)

    def of(self, files: Files) -> Outcome:
        """The outcome of an input. If the process ends, its output contains the reason."""
        try:
            self._connection.send(files)
            if self._connection.poll(worker.HANG + START):
                return self._connection.recv()
        except (EOFError, OSError):
            pass
        self._end()
        log = (self._work / "log").read_text(errors="replace")
        hang = self._process.exitcode == -signal.SIGPROF or log.startswith("Timeout")
        self._begin()
        return Outcome(f"{'hang' if hang else 'crash'}: {_verdict(log)}", log[-20_000:])

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=worker.serve, args=(theirs, self._kind, self._work))
        self._process.start()
        theirs.close()

    def _end(self) -> None:
        """Closes the input of the process, and waits a second for its end."""
        self._connection.close()
        self._process.join(1)
        self._process.kill()
        self._process.join()


def _verdict(log: str) -> str:
    """The reason and place of the end of a process, from the output of a sanitizer or `faulthandler`."""
    report = re.search(r"SUMMARY: \w+: .*|.*: runtime error: .*|.*hard rss limit exhausted.*", log)
    return report[0] if report else worker.first_place(log)


if __name__ == "__main__":
    sys.exit(main())
