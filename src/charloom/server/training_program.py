"""The process that trains for the web app: `python -m charloom.server.training_program`.

It lowers its own priority first, because generation in the server goes before training. Then it reads one line of JSON
from stdin, and writes each event as a line of JSON to stdout. The end of stdin, or another line, asks it to stop: a run
that trains saves everything and ends, and before that no folder stays. So training also ends in this way when the
server is killed, on every system. The last line of stdout says how it ended: `ended`, `stopped`, `failed` or `plan`.
"""

from __future__ import annotations

import _thread
import io
import json
import os
import signal
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from charloom.checkpoint import load_model
from charloom.config import Settings
from charloom.data.corpus import open_corpus
from charloom.data.vocabulary import RECORD_SEPARATOR
from charloom.errors import CharloomError, Interrupted, full_memory_in_one_line
from charloom.files import replace_file
from charloom.training import start
from charloom.training.events import Event, Notice, Started
from charloom.training.finetune import settings_like

NICENESS = 10
"""How much lower the priority is. With two busy processes on one core, this one gets about a tenth of it."""

PREVIEW = 600
"""Characters of the text in a plan."""


class Exchange:
    """What the server asks, and what it is told.

    incoming, outgoing: stdin and stdout, without buffers: at the end of the process, nothing is left to be written.
    """

    def __init__(self, incoming: io.FileIO, outgoing: io.FileIO) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._asked, self._training = threading.Event(), threading.Event()

    def request(self) -> dict[str, Any]:
        """The first line of stdin; empty if there is none. Afterwards, the next one or the end asks to stop."""
        line = self._incoming.readline()
        asked: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
        if not asked:
            return asked
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        threading.Thread(target=self._watch, daemon=True).start()
        return asked

    def stop(self) -> bool:
        """Whether the run must save everything and end."""
        return self._asked.is_set()

    def trains(self) -> None:
        """From now on a request to stop sets the flag; until now it raises KeyboardInterrupt."""
        self._training.set()

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes a line. If nobody reads stdout any more, the run must end."""
        rest = memoryview(json.dumps(record).encode("ascii") + b"\n")
        try:
            while rest:
                rest = rest[self._outgoing.write(rest) :]
        except OSError:
            self._asked.set()

    def _watch(self) -> None:
        with suppress(OSError):
            self._incoming.read(1)
        _thread.interrupt_main()  # calls `_stop` in the main thread, so that no moment lies between flag and exception

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._asked.set()
        if not self._training.is_set():
            self._training.set()  # a second one must not interrupt the removal of the folder
            raise KeyboardInterrupt


def _lower_priority() -> None:
    """Lets other programs go first, above all the server, which generates text while someone waits.

    Linux compares niceness only inside a session, and this process has a session of its own. So the session as a whole
    gets the niceness too (sched(7), "The autogroup feature").
    """
    if not hasattr(os, "nice"):  # Windows
        return
    os.nice(NICENESS)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # not Linux, or a kernel without the feature
            Path("/proc/self/autogroup").write_text(str(NICENESS), encoding="ascii")


def main() -> None:
    """Does what the first line of stdin asks."""
    _lower_priority()
    exchange = Exchange(io.FileIO(0, "r", closefd=False), io.FileIO(os.dup(1), "w"))
    os.dup2(2, 1)  # what another package prints must not be among the events
    try:
        last = _outcome(exchange)
    except KeyboardInterrupt:  # at any moment, also while another error is handled; it comes once
        last = {"event": "stopped"}
    exchange.write(last)


def _outcome(exchange: Exchange) -> dict[str, Any]:
    """The last line of stdout; no exception but KeyboardInterrupt passes."""
    try:
        with full_memory_in_one_line():
            return _done(exchange.request(), exchange)
    except Interrupted:
        return {"event": "stopped"}
    except CharloomError as error:
        return {"event": "failed", "text": str(error)}
    except OSError as error:
        return {"event": "failed", "text": f"{error.filename or 'reading or writing failed'}: {error.strerror}"}
    except Exception as error:
        traceback.print_exception(error)
        return {"event": "failed", "text": f"this is a bug in charloom, {type(error).__name__}: {error}"}
    finally:
        exchange.trains()  # nothing interrupts the last line


def _done(asked: Mapping[str, Any], exchange: Exchange) -> dict[str, Any]:
    if not asked:
        raise KeyboardInterrupt
    if asked["do"] == "plan":
        return _plan(asked)

    def report(event: Event) -> None:
        if isinstance(event, Started):
            if "about" in asked:
                replace_file(Path(asked["about_file"]), json.dumps(asked["about"]).encode("ascii"))
            exchange.trains()
        exchange.write(event.to_json())

    out = Path(asked["out"])
    if asked["do"] == "resume":
        start.resume(out, asked["values"], report, exchange.stop)
    else:
        _train(asked, out, report, exchange)
    return {"event": "ended"}


def _train(asked: Mapping[str, Any], out: Path, report: Any, exchange: Exchange) -> None:
    try:
        start.start(asked["paths"], asked["values"], out, asked["from"], report, exchange.stop, asked["name"])
    except BaseException:
        _remove_unused(out)
        raise


def _remove_unused(out: Path) -> None:
    """Removes a run folder that nothing was written into: the run ended while the folder was made and locked."""
    with suppress(OSError):
        if {path.name for path in out.iterdir()} <= {"data", "lock"}:
            with suppress(FileNotFoundError):
                (out / "data").rmdir()
            (out / "lock").unlink(missing_ok=True)
            out.rmdir()


def _plan(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The plan for a text, with the beginning of the text, the number of its characters, and the notices."""
    notices: list[str] = []

    def report(event: Event) -> None:
        if isinstance(event, Notice):
            notices.append(event.text)

    paths, values, base = asked["paths"], asked["values"], asked["from"]
    planned = start.plan_only(paths, values, base, report)
    settings = settings_like(load_model(base), values) if base else Settings.from_flat(values)
    preview, characters = "", 0
    for chunk in open_corpus(paths, settings.text).chunks():
        characters += len(chunk) - chunk.count(RECORD_SEPARATOR)
        if len(preview) < PREVIEW:
            preview = (preview + chunk[: 2 * PREVIEW]).lstrip(RECORD_SEPARATOR)
    between = "\n" if settings.text.records == "line" else "\n\n"
    preview = preview.rstrip(RECORD_SEPARATOR).replace(RECORD_SEPARATOR, between)[:PREVIEW]
    return {
        "event": "plan",
        "planned": planned.to_json(),
        "preview": preview,
        "characters": characters,
        "notices": notices,
    }


if __name__ == "__main__":
    main()
