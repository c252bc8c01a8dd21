"""The CPU limit of a container, or of any other control group of Linux."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

GROUPS = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")


def cpu_limit() -> float:
    """The limit in cores, such as 1.5, that Docker, Kubernetes, Slurm or systemd set; infinity without one.

    See "CFS Bandwidth Control" and "Control Group v2" in the documentation of Linux.
    """
    return min(_limits(), default=math.inf)


def _limits() -> Iterator[float]:
    """The limits of the process's group and of those around it."""
    with suppress(OSError):
        for line in GROUPS.read_text(encoding="utf-8", errors="replace").splitlines():
            _, controllers, path = line.split(":", 2)
            for group in (PurePosixPath(path), *PurePosixPath(path).parents):
                with suppress(OSError, ValueError):  # a container sees its own group only, as the root
                    yield _limit(controllers, str(group).lstrip("/"))


def _limit(controllers: str, group: str) -> float:
    """The limit of one group.

    Raises:
        OSError, ValueError: it has none.
    """
    if not controllers:  # version 2
        quota, period = (MOUNT / group / "cpu.max").read_text(encoding="ascii").split()
    elif "cpu" in controllers.split(","):
        folder = MOUNT / controllers / group if (MOUNT / controllers).exists() else MOUNT / "cpu" / group
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
    else:
        raise ValueError
    if int(quota) < 0:
        raise ValueError
    return int(quota) / int(period)
