"""Compares engines and runs commands of charloom in the same processes, because importing PyTorch takes seconds.

It reads `asked.json` in the current folder, and writes `measured.json` and `statuses-<rank>.json` there.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from compare import compare_all, wait

from charloom.cli.main import main


def status_of(command):
    try:
        main(command)
    except SystemExit as end:
        return end.code


if __name__ == "__main__":
    asked = json.loads(Path("asked.json").read_text())
    first, second, *ports = map(str, asked["ports"])
    os.environ["MASTER_PORT"] = first
    found = compare_all(asked["engines"])
    os.environ["MASTER_PORT"] = second
    alive = wait()
    if found is not None:
        Path("waited").write_text(alive)
        Path("measured.json").write_text(json.dumps(found))
    statuses = []
    for command, os.environ["MASTER_PORT"] in zip(asked["commands"], ports, strict=True):
        statuses.append(status_of(command))
    Path(f"statuses-{os.environ['RANK']}.json").write_text(json.dumps(statuses))
    sys.exit(0)
