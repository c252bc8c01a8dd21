"""Gigabytes of text: the time until training starts, the most memory of all processes together, and the disk space.

Makes a text of random words in several scripts, and trains on it for a minute: in one process, then in two processes
under `torchrun`. The run ends by itself, so the measurements at its end count too. Linux only.

    python benchmarks/memory.py --gigabytes 10 --processes 1 2

Memory is sampled ten times a second from `/proc/PID/smaps_rollup`, and added over all processes:

- anonymous: what the kernel cannot drop;
- with files: also the pages of files that are mapped (libraries, the ids), which the kernel can drop. A page that two
  processes share counts once (PSS).

"resident" is the kernel's own peak of each process (VmHWM). It misses no moment, and has the pages of files too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALPHABETS = [  # the number of words; their characters, the frequent ones first
    (30_000, "etaoinshrdlucmfwygpbvkxqjz"),
    (6_000, "eaisntrléèàçäöüßñøåœ"),
    (6_000, "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфё"),
    (3_000, "αοιετσνηυρπκμλςγδωχθφβξζψάέήίόύώ"),
    (3_000, "".join(map(chr, range(0x4E00, 0x4E00 + 200)))),
]
SENTENCE, PARAGRAPH = 12, 60  # words
WORDS_AT_ONCE = PARAGRAPH << 14
RESIDENT_LIMIT = 700.0  # MiB, of each process


def make_words() -> NDArray[Any]:
    """Words of all scripts in a random order, each with a space behind it, in UTF-8."""
    random = np.random.default_rng(0)
    words = []
    for count, alphabet in ALPHABETS:
        shares = 1 / np.arange(2, len(alphabet) + 2)
        longest = 2 if len(alphabet) > 100 else 9
        for length in random.integers(1, longest, count, endpoint=True):
            letters = random.choice([*alphabet], length, p=shares / shares.sum())
            words.append(f"{''.join(letters)} ".encode())
    return random.permutation(np.array(words, object))


def make_text(path: Path, size: int) -> None:
    """Writes about `size` bytes: sentences in lines, lines in paragraphs. The word of rank r has a frequency of 1/r."""
    random, words = np.random.default_rng(1), make_words()
    rest = size
    with path.open("wb") as file:
        while rest > 0:
            ranks = len(words) ** random.random(WORDS_AT_ONCE)
            text = words[ranks.astype(np.int64) - 1]
            text[::SENTENCE], text[::PARAGRAPH] = b".\n", b".\n\n"
            block = b"".join(text.tolist())
            if len(block) > rest:
                block = block[: block.rfind(b"\n", 0, rest) + 1]  # whole lines, so no character is cut
                rest = len(block)
            file.write(block)
            rest -= len(block)


class Watch:
    """Samples the memory of a process and of all that it starts, and the disk space of a folder, in a thread.

    Everything is in MiB. peaks: the highest sample of each sum; resident: the kernel's peak of each process.
    """

    def __init__(self, pid: int, folder: Path) -> None:
        self.peaks: dict[str, float] = defaultdict(float)
        self.resident: dict[int, float] = {}
        self._pid, self._folder, self._ended = pid, folder, threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def stop(self) -> None:
        """Ends the samples."""
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.1):
            sums: dict[str, float] = defaultdict(float)
            for pid in _with_children(self._pid):
                with suppress(OSError):  # it ended meanwhile
                    memory = _rows(f"/proc/{pid}/smaps_rollup") | _rows(f"/proc/{pid}/status")
                    sums["anonymous"] += memory.get("Pss_Anon", 0)
                    sums["with files"] += memory.get("Pss", 0)
                    self.resident[pid] = memory.get("VmHWM", self.resident.get(pid, 0))
            with suppress(OSError):  # a file was replaced meanwhile
                files = self._folder.rglob("*")
                sums["disk"] = sum(file.stat().st_blocks / 2048 for file in files)
            for name, value in sums.items():
                self.peaks[name] = max(self.peaks[name], value)


def _with_children(pid: int) -> list[int]:
    """A process and all that it started."""
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task").glob("*/children")
        found = [int(child) for file in children for child in file.read_text(encoding="ascii").split()]
        return [pid, *(one for child in found for one in _with_children(child))]
    return []


def _processor_seconds(pid: int) -> float:
    """The processor time of a process and of all that it started, so far."""
    ticks = 0
    for one in _with_children(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _rows(path: str) -> dict[str, float]:
    """The sizes in a file of the kernel, in MiB."""
    rows = (line.split() for line in Path(path).read_text(encoding="ascii").splitlines())
    return {row[0].rstrip(":"): int(row[1]) / 1024 for row in rows if row[-1] == "kB"}


def measure(text: Path, processes: int, run: Path) -> bool:
    """Trains once and prints the figures; returns whether the run ended well and within the limit."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "charloom", "train", str(text), "--out", str(run)]
    began, at = time.monotonic(), dict[str, float]()
    with subprocess.Popen([*command, "--minutes", "1", "--json"], stdout=subprocess.PIPE, text=True) as process:
        watch = Watch(process.pid, run)
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            at.setdefault(event["event"], time.monotonic() - began)
            if event["event"] == "started":
                worked = _processor_seconds(process.pid)
            seconds = event.get("seconds", 0.0)
        watch.stop()
    start, peaks = at["started"], watch.peaks
    resident = " + ".join(f"{value:.0f}" for value in sorted(watch.resident.values()))
    rows = {
        "text": f"{text.stat().st_size / 1e9:.1f} GB",
        "time until training": f"{start:.0f} s, {text.stat().st_size / 1e6 / start:.0f} MB/s",
        "processor time until training": f"{worked:.0f} s",
        "training": f"{seconds:.0f} s",
        "time until the end": f"{at['finished']:.0f} s",
        "most anonymous memory of all processes": f"{peaks['anonymous']:.0f} MiB",
        "most memory of all processes, with files": f"{peaks['with files']:.0f} MiB",
        "most resident memory of each process": f"{resident} MiB",
        "disk": f"{peaks['disk'] * 1.048576:,.0f} MB",
    }
    print(f"\n{processes} process{'es' * (processes > 1)}")
    print("\n".join(f"  {name:42}{value}" for name, value in rows.items()), flush=True)
    shutil.rmtree(run)
    return max(watch.resident.values()) < RESIDENT_LIMIT and process.returncode == 0


def main() -> None:
    """Prints the figures for each number of processes, and a verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the text; 0.1 for a quick try")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, help="for the text and the runs; it needs three times the space")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        text = Path(folder) / "big.txt"
        began = time.monotonic()
        make_text(text, int(options.gigabytes * 1e9))
        print(f"the text was made in {time.monotonic() - began:.0f} s", flush=True)
        held = [measure(text, count, Path(folder) / f"run-{count}") for count in options.processes]
    print(f"\nlimit ({RESIDENT_LIMIT:.0f} MiB resident in each process): {'holds' if all(held) else 'DOES NOT HOLD'}")
    sys.exit(not all(held))


if __name__ == "__main__":
    main()
