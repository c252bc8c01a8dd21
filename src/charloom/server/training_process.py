"""A process that trains beside the server: what it is asked, what it reports, and how it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LAST = ("ended", "stopped", "failed", "plan")
"""The events of which one is the last line of the program."""

ERROR_TAIL = 2000
"""Bytes at the end of stderr that are read if a process ends without a last line."""


class TrainingProcess:
    """A process that trains or plans. Its events arrive on the event loop.

    It is not one of asyncio's processes: asyncio kills them when the loop ends, and this one must save its run first.

    Args:
        asked: the line that the program reads first.
        on_event: called on the event loop with each line that the program writes, but the last.
        on_end: called on the event loop with the last line.
        temporary: the folder for its temporary files.

    Raises:
        OSError: if it cannot be started.
    """

    def __init__(
        self,
        asked: Mapping[str, Any],
        on_event: Callable[[dict[str, Any]], None],
        on_end: Callable[[dict[str, Any]], None],
        temporary: Path,
    ) -> None:
        self._loop, self._on_event, self._on_end = asyncio.get_running_loop(), on_event, on_end
        self._errors = tempfile.TemporaryFile(dir=temporary)  # noqa: SIM115 - closed when the process has ended
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "charloom.server.training_program"],
            stdin=subprocess.PIPE,  # `-P`: no module of the current folder takes the place of another
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))},
            start_new_session=True,  # Ctrl-C in the terminal of the server must not reach it
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
        )
        threading.Thread(target=self._read, args=[json.dumps(asked)], name="charloom training", daemon=True).start()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def ask_to_stop(self) -> None:
        """The process saves its run and ends."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended
            self._process.stdin.close()

    def _read(self, asked: str) -> None:
        """Writes the request, then hands on every line. Runs in a thread of its own."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended, or was asked to stop
            self._process.stdin.write(asked.encode("ascii") + b"\n")
            self._process.stdin.flush()
        last: dict[str, Any] | None = None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):  # half a line of a process that was killed
                record = json.loads(line)
                if not isinstance(record, dict) or "event" not in record:  # a library wrote it
                    continue
                if record["event"] in LAST:
                    last = record
                else:
                    self._on_loop(self._on_event, record)
        status = self._process.wait()
        self._process.stdout.close()
        if last is None:
            last = {"event": "failed", "text": f"the training process ended with status {status}{self._tail()}"}
        self._errors.close()
        self.ask_to_stop()
        self._on_loop(self._on_end, last)

    def _tail(self) -> str:
        """The last line on stderr."""
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - ERROR_TAIL))
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        text = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f": {text}" if text else ""

    def _on_loop(self, function: Callable[[dict[str, Any]], None], record: dict[str, Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
            self._loop.call_soon_threadsafe(function, record)
