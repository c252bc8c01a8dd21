"""What `torchrun` says in the environment. Without it a run has one process, and torch is not imported."""

from __future__ import annotations

import os


def process_count() -> int:
    """The number of processes that `torchrun` started for this run; 1 without it."""
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isdecimal() and {"RANK", "MASTER_ADDR"} <= os.environ.keys() else 1


def first_here() -> bool:
    """Whether this process is the only one on its machine, or the first one there."""
    return process_count() == 1 or os.environ.get("LOCAL_RANK", "0") == "0"


def follows() -> bool:
    """Whether this process follows the commands of the first one, which alone prints."""
    return process_count() > 1 and os.environ["RANK"] != "0"
