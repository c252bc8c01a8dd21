"""What clients that misbehave do to `charloom serve`: to its memory, to other clients, and to its slots.

For each kind, a process misbehaves while a well-behaved client asks for a short text again and again. If it is refused,
it asks again after a second, and the time to its first chunk includes this. The output has the server's resident memory
before, at most and after; how the requests ended; the well-behaved client's first chunk beside that of an idle server;
and the time until every slot is free. The exit status is 1 if a slot stays in use, if the well-behaved client is not
served, or if a request ends in another way than it should. Needs Linux.

    python benchmarks/abuse.py [kind ...] [--minutes N]

With `--minutes`, all kinds but the kills run mixed with ordinary requests for so long. Memory is printed every minute.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from probes import without_kernels
from serving import make_model
from web.abusers import COMPLETIONS, KILLS, KINDS, Kind, Outcomes, mixed
from web.client import exchange, post
from web.process import CHARLOOM, PATIENCE, ServerProcess

from charloom import kernels

SHORT = post(COMPLETIONS, {"prompt": "a", "max_tokens": 20, "stream": True})
PAUSE = 0.03  # seconds between two requests of the well-behaved client
IDLE_SECONDS = 6.0
KILL_SECONDS = 3.0  # between two kills


@dataclass
class Behaved:
    """What the well-behaved client saw. first: seconds to the first chunk of each text; failed: answers that were
    neither a text nor a refusal; refused: refusals, after which it asked again.
    """

    first: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0

    def __str__(self) -> str:
        if not self.first:
            return f"no text, {self.refused} refused, {self.failed} failed"
        first = sorted(1000 * each for each in self.first)
        late = first[math.ceil(0.99 * len(first)) - 1]
        times = f"p50 {statistics.median(first):.0f} ms, p99 {late:.0f} ms"
        return f"{times}, of {len(first)}; {self.refused} refused, {self.failed} failed"


async def behave(port: int, until: Callable[[], bool]) -> Behaved:
    """Asks for short texts, one after the other."""
    found = Behaved()
    while not until():
        began = time.perf_counter()
        while (answer := await exchange(port, SHORT)).status in (429, 503):
            found.refused += 1
            await asyncio.sleep(1)
        if answer.text() is None:
            found.failed += 1
        else:
            found.first.append(answer.first - began)
        await asyncio.sleep(PAUSE)
    return found


def run_kind(kind: Kind, port: int) -> Outcomes:
    """Misbehaves. Runs in a process of its own."""

    async def run() -> Outcomes:
        return await kind(port)

    return asyncio.run(run())


def slots_in_use(server: ServerProcess) -> int:
    """Sequences that run or wait, as /metrics says."""
    found = re.findall(r"^charloom_requests_(?:running|waiting)\{.*\} (.*)$", server.get("/metrics"), re.MULTILINE)
    return sum(int(float(value)) for value in found)


def until_free(server: ServerProcess) -> float:
    """Seconds until all slots are free; NaN if they stay in use."""
    start = time.monotonic()
    while slots_in_use(server):
        if time.monotonic() > start + PATIENCE:
            return math.nan
        time.sleep(0.02)
    return time.monotonic() - start


def misbehave(name: str, server: ServerProcess, pool: ProcessPoolExecutor, idle: Behaved) -> bool:
    """Runs one kind, and prints what it did. Returns whether all was right."""
    says, kind, right = KINDS[name]
    server.forget_peak()
    before, start = server.memory()[0], time.monotonic()
    running = pool.submit(run_kind, kind, server.port)
    if name == "kills":
        print(f"{says}:", flush=True)
        for _ in range(KILLS):
            time.sleep(KILL_SECONDS)
            server.kill()
            server.restart()
        behaved = None
    else:
        behaved = asyncio.run(behave(server.port, running.done))
    outcomes, seconds = running.result(), time.monotonic() - start
    free = until_free(server)
    now, most = server.memory()
    if behaved:
        print(f"{says}, {seconds:.0f} s:")
    print(f"  {', '.join(f'{count:,} {what}' for what, count in sorted(outcomes.items()))}")
    print(f"  memory: {before:.0f} MiB before, at most {most:.0f}, {now:.0f} after")
    if behaved:
        print(f"  first chunk of another client: {behaved}")
        print(f"      of an idle server:         {idle}")
    print(f"  slots: {'IN USE' if math.isnan(free) else f'free after {free:.1f} s'}", flush=True)
    served = behaved is None or (bool(behaved.first) and not behaved.failed)
    if set(outcomes) - right:
        print(f"  NOT RIGHT: {', '.join(sorted(set(outcomes) - right))}")
    return served and not math.isnan(free) and set(outcomes) <= right


def mix(minutes: float, server: ServerProcess, pool: ProcessPoolExecutor) -> bool:
    """Runs mixed load, and prints the memory every minute. Returns whether all was right."""
    print(f"mixed load, {minutes:g} minutes; memory at the start: {server.memory()[0]:.0f} MiB", flush=True)
    server.forget_peak()
    running = pool.submit(run_kind, partial(mixed, seconds=60 * minutes), server.port)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(60):
            print("  now {:.0f} MiB, at most {:.0f}".format(*server.memory()), flush=True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    behaved = asyncio.run(behave(server.port, running.done))
    ended.set()
    watcher.join()
    outcomes, free = running.result(), until_free(server)
    now, most = server.memory()
    print(f"  {', '.join(f'{count:,} {what}' for what, count in sorted(outcomes.items()))}")
    print(f"  memory at the end: {now:.0f} MiB, at most {most:.0f}")
    print(f"  first chunk of another client: {behaved}")
    print(f"  slots: {'IN USE' if math.isnan(free) else f'free after {free:.1f} s'}")
    right = set().union(*(each[2] for each in KINDS.values()))
    return not math.isnan(free) and not behaved.failed and set(outcomes) <= right


def main() -> int:
    """Runs the kinds, or mixed load. Returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", metavar="kind", help=f"of {', '.join(KINDS)}; all by default")
    parser.add_argument("--minutes", type=float, help="mixed load for so long")
    asked = parser.parse_args()
    if unknown := set(asked.kinds) - set(KINDS):
        parser.error(f"there is no kind {', '.join(unknown)}")
    if without_kernels():
        return 0
    if find_spec("fastapi") is None or not Path("/proc/self/clear_refs").exists():
        print("not measured: it needs Linux and the packages of the extra `serve`")
        return 0
    print(
        f"kernels {kernels.chosen().name}, {kernels.cores()} cores; load {os.getloadavg()[0]:.1f}; LSTM 2 x 128, fp32"
    )
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess([*CHARLOOM, str(make_model(2, 128, Path(folder) / "model"))]) as server,
        ProcessPoolExecutor(1, context) as pool,
    ):
        end = time.monotonic() + IDLE_SECONDS
        idle = asyncio.run(behave(server.port, lambda: time.monotonic() > end))
        if asked.minutes:
            good = mix(asked.minutes, server, pool)
        else:
            results = [misbehave(name, server, pool, idle) for name in asked.kinds or KINDS]
            good = all(results)
    print("PASS" if good else "FAIL")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
