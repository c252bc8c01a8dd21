"""Two hosts on one machine: network namespaces with a cable between them (veth), and programs that run on them.

They share the disk, the memory and the processor. Needs Linux, `ip` (iproute2) and root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

HOSTS = {"charloom-a": "10.213.0.1", "charloom-b": "10.213.0.2"}
CABLE = {"charloom-a": "charloom-va", "charloom-b": "charloom-vb"}
FIRST, SECOND = HOSTS  # `torchrun` meets on the first; its name sorts first, so rank 0 is there
# The first lets a host come back, the second keeps C++ stack traces off the screen; see docs/clusters.md.
ENVIRONMENT = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}


@contextmanager
def two_hosts() -> Iterator[None]:
    """In this context the namespaces exist, with the cable and the names of both in their `/etc/hosts`."""
    remove_hosts()
    try:
        for host in HOSTS:
            ip("netns", "add", host)
            names = Path("/etc/netns") / host / "hosts"
            names.parent.mkdir(parents=True)
            names.write_text("127.0.0.1 localhost\n" + "".join(f"{HOSTS[name]} {name}\n" for name in HOSTS))
        one, other = HOSTS
        ip("link", "add", CABLE[one], "netns", one, "type", "veth", "peer", "name", CABLE[other], "netns", other)
        for host, address in HOSTS.items():
            ip("-n", host, "address", "add", f"{address}/24", "dev", CABLE[host])
            ip("-n", host, "link", "set", "lo", "up")
            ip("-n", host, "link", "set", CABLE[host], "up")
        yield
    finally:
        remove_hosts()


def remove_hosts() -> None:
    """Removes what a run left, also one that was killed."""
    for host in HOSTS:
        if Path("/run/netns", host).exists():
            switch_off(host)
            ip("netns", "delete", host)
        shutil.rmtree(Path("/etc/netns") / host, ignore_errors=True)


def ip(*words: str) -> None:
    """Runs `ip`."""
    subprocess.run(["ip", *words], check=True)


def switch_off(host: str) -> None:
    """Ends all processes of a host without a word."""
    found = subprocess.run(["ip", "netns", "pids", host], check=True, capture_output=True, text=True).stdout
    for pid in found.split():
        kill(int(pid))


def kill(pid: int) -> None:
    """SIGKILL, if the process still exists."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def unplug(plugged: bool = False) -> None:
    """Takes the cable out, or puts it in again."""
    ip("-n", FIRST, "link", "set", CABLE[FIRST], "up" if plugged else "down")


def lose_packets(lost: bool = True) -> None:
    """Each host sends to a wrong hardware address, so nothing arrives, and the interfaces stay up."""
    for host, address in zip(HOSTS, reversed(HOSTS.values()), strict=True):
        wrong = ["lladdr", "02:00:00:00:00:99", "nud", "permanent"] if lost else []
        ip("-n", host, "neighbour", "replace" if lost else "delete", address, "dev", CABLE[host], *wrong)


class Started:
    """A `torchrun`, with each line that it and its processes print, and the time of the line."""

    def __init__(self, command: Sequence[str], folder: Path, host: str | None = None) -> None:
        inside = f'hostname {host}; exec "$@"'
        before = ["ip", "netns", "exec", host, "unshare", "--uts", "sh", "-c", inside, "sh"] if host else []
        self.name = host or "one host"
        self.process = subprocess.Popen(
            [*before, *command],
            cwd=folder,
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[tuple[float, str]] = []
        self.ended = 0.0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip()))
        self.process.wait()
        self.ended = time.monotonic()

    def workers(self) -> list[int]:
        """The processes that train."""
        pid = self.process.pid
        try:
            return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            return []

    def wait(self, seconds: float) -> int | None:
        """The exit status; None if it did not end in this time."""
        self._thread.join(seconds)
        return None if self._thread.is_alive() else self.process.returncode

    def end(self) -> None:
        """Kills it with its processes."""
        for pid in (*self.workers(), self.process.pid):
            kill(pid)

    def said(self, since: float) -> str:
        """What a person sees, with the seconds since a failure."""
        return "".join(f"    {self.name} {moment - since:6.1f} s  {line}\n" for moment, line in self.lines)
