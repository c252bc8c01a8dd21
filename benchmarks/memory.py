"""A gigabyte of text: the time until training starts, and the most memory that it uses.

Makes 1 GiB of text and runs `charloom train` on it for a minute, then interrupts it as Ctrl-C does. The memory is the
kernel's count for the process (VmHWM, the peak of resident memory), PyTorch included.

    python benchmarks/memory.py [MiB of text, 1024]
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAINING_SECONDS = 60
START_LIMIT, MEMORY_LIMIT = 30.0, 700.0  # seconds, MiB


def make_text(path: Path, mebibytes: int) -> None:
    """Writes lines of invented words. No two megabytes are equal."""
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(1, 9))) for _ in range(5000)]
    lines = [" ".join(draw.choices(words, k=12)) + ".\n" for _ in range(30_000)]
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < mebibytes << 20:
            draw.shuffle(lines)
            file.write("".join(lines))
        file.truncate(mebibytes << 20)


def resident(process: subprocess.Popen[str]) -> dict[str, float]:
    """Resident memory in MiB, as the kernel counts it."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    rows = (line.split() for line in status.splitlines())
    return {row[0].rstrip(":"): int(row[1]) / 1024 for row in rows if row[0] in ("VmHWM:", "VmRSS:")}


def main() -> None:
    """Prints the two figures and a verdict."""
    mebibytes = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "big.txt"
        make_text(text, mebibytes)
        command = [
            sys.executable,
            "-m",
            "charloom",
            "train",
            str(text),
            "--json",
            "--minutes",
            "5",
            "--out",
            f"{folder}/run",
        ]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        started, peak, lines = 0.0, 0.0, 0
        for line in process.stdout:
            event, lines = json.loads(line), lines + 1
            peak = max(peak, resident(process)["VmHWM"])
            if event["event"] == "step" and not started:
                started = time.monotonic() - began
            if started and time.monotonic() - began > started + TRAINING_SECONDS:
                process.send_signal(signal.SIGINT)
                break
        process.stdout.read()
        status = process.wait()
        ok = started < START_LIMIT and peak < MEMORY_LIMIT and status == 130
        print(
            f"{mebibytes} MiB of text: first report of training after {started:.1f} s (limit {START_LIMIT:.0f}), "
            f"at most {peak:.0f} MiB resident (limit {MEMORY_LIMIT:.0f}), exit status {status} after Ctrl-C: "
            f"{'holds' if ok else 'DOES NOT HOLD'}"
        )
        sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
