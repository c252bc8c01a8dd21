"""One process that tries inputs, one after the other, and decides whether each outcome is a finding.

An input must be read, or refused by a `CharloomError` in one line. All else is a finding: another exception, a crash or
a sanitizer's report (which end this process), a hang, memory beyond a limit, a write outside, a process or connection.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import itertools
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import charloom
from charloom.errors import CharloomError

PACKAGE = str(Path(charloom.__file__).parent)
BUSY = 20  # seconds of processor time; an input takes some hundredths
HANG = 60  # seconds of real time, for inputs that wait; other processes may keep the processor busy
MEMORY = 512 << 20  # bytes that one input may need; no input has more than some megabytes
ADDRESSES = 8 << 30  # bytes of address space without a sanitizer, which needs terabytes
LINES = (
    2  # breaks in a message: a name in a file may hold one, which the command line escapes; a library's page has more
)
OUTSIDE = b"nobody may change this"

# Python's audit events: which open files for writing, which take paths to change and how many, which are never right.
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PATHS = {"os.remove": 1, "os.rename": 2, "os.mkdir": 1, "os.rmdir": 1, "os.truncate": 1, "os.link": 2}
PATHS |= {"os.symlink": 2, "os.chmod": 1, "os.chown": 1, "os.utime": 1, "shutil.rmtree": 1, "shutil.move": 2}
NEVER = {"subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"}
NEVER |= {"socket.connect", "socket.bind", "pty.spawn"}

Line = tuple[str, int]


@dataclass(frozen=True)
class Outcome:
    """The outcome of an input.

    finding: empty, or what is wrong and where, the same for every input that shows it; details: for people; refused:
    the message of the `CharloomError`; lines: of charloom that this process had not run before.
    """

    finding: str = ""
    details: str = ""
    refused: str = ""
    lines: frozenset[Line] = frozenset()


class Outside(BaseException):
    """An attempt to write outside, to start a process or to open a connection."""


def serve(connection: Connection, kind: str, work: Path) -> None:
    """Returns the outcome of each input that arrives, until the connection ends."""
    _settle(work)
    from kinds import KINDS, quiet

    quiet()
    for library in KINDS[kind].libraries:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    lines, guard = Lines(), Guard(work)
    with contextlib.suppress(EOFError):
        while True:
            files = connection.recv()
            connection.send(_outcome(files, KINDS[kind].use, work, lines, guard))


def _settle(work: Path) -> None:
    """Makes the process write everything below `work`, and limits its memory below that of the machine."""
    log = os.open(work / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)
    (work / "temporary").mkdir(exist_ok=True)
    tempfile.tempdir = str(work / "temporary")
    sys.dont_write_bytecode = True
    os.fsync = lambda handle: None  # no power cut is tested here, and the disk would take most of the time
    if "LD_PRELOAD" not in os.environ:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))


def _outcome(files: Any, use: Any, work: Path, lines: Lines, guard: Guard) -> Outcome:
    from kinds import write

    os.truncate(work / "log", 0)
    for name in ("input", "output"):
        shutil.rmtree(work / name, ignore_errors=True)
    (work / "outside").write_bytes(OUTSIDE)
    write(files, work / "input", work / "outside")
    (work / "output").mkdir()
    before = _memory()
    finding = details = refused = ""
    faulthandler.dump_traceback_later(HANG, exit=True)
    signal.setitimer(signal.ITIMER_PROF, BUSY)
    try:
        with guard, lines:
            use(work / "input", work / "output")
    except CharloomError as error:
        refused = str(error)
        if not refused or refused.count("\n") > LINES:
            finding, details = f"message of several lines {_place(error)}", repr(refused)
    except BaseException as error:  # any other exception is the finding
        finding, details = f"{type(error).__name__} {_place(error)}", "".join(traceback.format_exception(error))
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
    if not finding and _memory() - before > MEMORY:
        finding, details = "memory", f"{(_memory() - before) >> 20} MiB more than before"
    if not finding and (work / "outside").read_bytes() != OUTSIDE:
        finding = "a link was followed and what it leads to changed"
    return Outcome(finding, details, refused, lines.taken())


def _place(error: BaseException) -> str:
    """The innermost line of charloom, or of this harness, in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if frame.filename.startswith(PACKAGE)] or frames
    return f"at {Path(inside[-1].filename).name}:{inside[-1].lineno} ({inside[-1].name})" if inside else ""


def _memory() -> int:
    """The peak memory of this process since the last call, in bytes; 0 if the system does not report it."""
    try:
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        Path("/proc/self/clear_refs").write_text("5")
        return int(peak.split()[1]) << 10
    except (OSError, StopIteration):
        return 0


class Lines:
    """The lines of charloom that have run. An input that reaches new lines is useful for further changes."""

    def __init__(self) -> None:
        self._seen: set[Line] = set()
        self._new: set[Line] = set()

    def __enter__(self) -> None:
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def taken(self) -> frozenset[Line]:
        """The new lines of the last input."""
        self._seen |= self._new
        new, self._new = frozenset(self._new), set()
        return new

    def _call(self, frame: FrameType, event: str, _: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _line(self, frame: FrameType, event: str, _: Any) -> Any:
        line = (frame.f_code.co_filename, frame.f_lineno)
        if line not in self._seen:
            self._new.add(line)
        return self._line


class Guard:
    """Stops forbidden actions of an input, by Python's audit events."""

    def __init__(self, work: Path) -> None:
        self._root, self._on = os.path.realpath(work) + os.sep, False
        sys.addaudithook(self._hear)

    def __enter__(self) -> None:
        self._on = True

    def __exit__(self, *_: object) -> None:
        self._on = False

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event in NEVER:
            raise Outside(f"{event} {arguments!r}"[:500])
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            self._check(arguments[0])
        for path in arguments[: PATHS.get(event, 0)]:
            self._check(path)

    def _check(self, path: Any) -> None:
        """Checks a path. Numbers are open files; a bare name is relative to an open folder, as in `rmtree`."""
        if isinstance(path, int) or os.fspath(path) == os.path.basename(path):
            return
        where = os.path.realpath(os.fsdecode(path))
        if not where.startswith(self._root) and where != os.devnull:
            raise Outside(f"written outside: {where}")


def first_place(log: str) -> str:
    """The innermost line of charloom in the output of `faulthandler`."""
    lines = itertools.dropwhile(lambda line: PACKAGE not in line, log.splitlines())
    return next(lines, "").strip().replace(PACKAGE, "charloom")
