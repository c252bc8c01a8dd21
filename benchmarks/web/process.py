"""A server in a process of its own, and what the kernel knows of its memory and its use of the processor."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType

from web.client import HOST

PATIENCE = 60.0  # seconds until a server must answer
CHARLOOM = [sys.executable, "-m", "charloom", "serve"]


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class ServerProcess:
    """A server that runs while the `with` block does.

    Args:
        command: starts the server, without the port.
        port: None takes a free one.
    """

    def __init__(self, command: list[str], port: int | None = None) -> None:
        self._command, self.port = command, port or free_port()
        self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        """Starts the process, and waits until it is healthy."""
        command = [*self._command, "--port", str(self.port)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE
        while not self._is_healthy():
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                raise SystemExit(f"this does not start: {' '.join(command)}")
            time.sleep(0.05)
        return process

    def _is_healthy(self) -> bool:
        try:
            return bool(self.get("/health"))
        except OSError:
            return False

    def get(self, path: str) -> str:
        """The answer to a GET.

        Raises:
            OSError: if there is none, or if its status is an error.
        """
        with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=PATIENCE) as answer:
            text: str = answer.read().decode()
            return text

    def kill(self) -> None:
        """Ends it with SIGKILL."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Starts it again on the same port."""
        self._process = self._started()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def memory(self) -> tuple[float, float]:
        """Resident memory in MiB: now, and the most since the last call of `forget_peak`."""
        status = (self._proc / "status").read_text(encoding="ascii")
        rows = {line.split()[0]: line.split()[1:2] for line in status.splitlines()}
        return int(rows["VmRSS:"][0]) / 1024, int(rows["VmHWM:"][0]) / 1024

    def forget_peak(self) -> None:
        """The peak of the memory counts from now on."""
        (self._proc / "clear_refs").write_text("5", encoding="ascii")

    def cpu(self) -> tuple[float, float]:
        """Seconds of processor time so far: of all threads, and of the main thread, which has the event loop."""
        return _cpu(self._proc), _cpu(self._proc / "task" / str(self._process.pid))

    @property
    def _proc(self) -> Path:
        return Path(f"/proc/{self._process.pid}")


def _cpu(place: Path) -> float:
    user, system = (place / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
