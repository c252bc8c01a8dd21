"""How training and generation share the cores in `charloom app`.

One run trains on the reference of the Python language, which every installation has. Beside it, nobody generates, then
one person asks for 500 characters every second, then one client streams without a pause, and so on in turns. Before and
after the run, the same person and the same client are alone. The training process has a lower priority, so it should be
the one that yields.

    python benchmarks/app.py [seconds for each turn, 4.0]
"""

from __future__ import annotations

import asyncio
import json
import os
import pydoc_data.topics
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from probes import without_kernels
from serving import make_model
from web.client import HOST, exchange, post
from web.process import ServerProcess

from charloom import kernels

ROUNDS = 5
SHORT = 500  # characters that a person asks for
PAUSE = 1.0  # seconds between two requests of a person
LONG = 20_000  # characters of a client without a pause
KINDS = ("nobody", "a person", "a client")
UPLOAD = "0123456789abcdef"
PATIENCE = 120.0


@dataclass
class Turn:
    """What happened in a turn. characters: that were generated; times: seconds of each text."""

    characters: int
    times: list[float]

    @property
    def rate(self) -> float:
        """Generated characters/s while a text was generated."""
        return self.characters / sum(self.times)


def ask(server: ServerProcess, path: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The answer to a POST."""
    found = asyncio.run(exchange(server.port, post(path, fields)))
    assert found.status < 300, found.body
    answer: dict[str, Any] = json.loads(found.body)
    return answer


def upload(server: ServerProcess, text: bytes) -> None:
    """Sends a text to the app."""
    url = f"http://{HOST}:{server.port}/app/uploads/{UPLOAD}/0?name=python.txt"
    with urllib.request.urlopen(urllib.request.Request(url, text, method="PUT")):
        pass


def turn(server: ServerProcess, kind: str, seconds: float) -> Turn:
    """Generates for a while, as this kind of user does."""
    end = time.monotonic() + seconds
    characters, times = 0, []
    length, pause = (SHORT, PAUSE) if kind == "a person" else (LONG, 0.0)
    while time.monotonic() < end:
        if kind == "nobody":
            time.sleep(seconds)
            break
        began = time.perf_counter()
        request = post("/v1/completions", {"model": "model", "prompt": "a", "max_tokens": length, "stream": True})
        found = asyncio.run(exchange(server.port, request))
        times.append(time.perf_counter() - began)
        characters += len(found.text() or "")
        time.sleep(pause)
    return Turn(characters, times)


class Steps:
    """The progress of a run, as the app reports it."""

    def __init__(self, server: ServerProcess, run: str) -> None:
        self._server, self._run, self._next = server, run, 0

    def read(self) -> Iterator[dict[str, Any]]:
        """The new events."""
        found = json.loads(self._server.get(f"/app/runs/{self._run}?since={self._next}"))
        self._next = found["next"]
        yield from found["events"]

    def wait(self) -> None:
        """Waits for the first report of a step."""
        end = time.monotonic() + PATIENCE
        while not any(event["event"] == "step" for event in self.read()):
            assert time.monotonic() < end, "training does not begin"
            time.sleep(0.1)

    def rate(self) -> float:
        """Steps/s over the reports since the last call."""
        seen = [(event["seconds"], event["step"]) for event in self.read() if event["event"] == "step"]
        rates = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(seen) if b[0] > a[0]]
        return statistics.mean(rates) if rates else float("nan")


def main() -> None:
    """Prints both speeds, alone and together."""
    if without_kernels():
        return
    if find_spec("fastapi") is None:
        print("not measured: it needs the packages of the extra `serve`")
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    print(f"kernels {kernels.chosen().name}, {kernels.cores()} cores; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(2, 512, Path(folder) / "model")
        command = [sys.executable, "-m", "charloom", "app", str(model), "--folder", f"{folder}/app", "--no-browser"]
        with ServerProcess(command) as server:
            measure(server, seconds)


def measure(server: ServerProcess, seconds: float) -> None:
    """Alone, then in turns beside a run, then alone again."""
    alone, beside = defaultdict[str, list[Turn]](list), defaultdict[str, list[Turn]](list)
    training = defaultdict[str, list[float]](list)

    def by_itself() -> None:
        for kind in KINDS[1:]:
            alone[kind].append(turn(server, kind, seconds))

    by_itself()
    upload(server, "\n".join(pydoc_data.topics.topics.values()).encode())
    minutes = (ROUNDS * len(KINDS) * (seconds + 2) + 60) / 60
    run = ask(
        server, "/app/train", {"upload": UPLOAD, "minutes": minutes, "records": "none", "field": None, "from": None}
    )
    steps = Steps(server, run["run"])
    steps.wait()
    for _ in range(ROUNDS):
        for kind in KINDS:
            steps.rate()
            beside[kind].append(turn(server, kind, seconds))
            training[kind].append(steps.rate())
    ask(server, "/app/stop", {})
    while json.loads(server.get("/app/runs"))["current"] is not None:
        time.sleep(0.1)
    by_itself()
    report(alone, beside, training)


def report(alone: dict[str, list[Turn]], beside: dict[str, list[Turn]], training: dict[str, list[float]]) -> None:
    """Prints medians."""
    print("training, beside:")
    for kind in KINDS:
        ratio = statistics.median(a / b for a, b in zip(training[kind], training["nobody"], strict=True))
        print(f"  {kind:9} {statistics.median(training[kind]):8.1f} steps/s, {ratio:.2f} of its speed alone")
    print("generation, LSTM 2 x 512, one sequence:")
    for kind in KINDS[1:]:
        own, shared = (statistics.median(each.rate for each in turns[kind]) for turns in (alone, beside))
        took = [1000 * statistics.median(t for each in turns[kind] for t in each.times) for turns in (alone, beside)]
        print(
            f"  {kind:9} alone {own:8,.0f} characters/s, beside training {shared:8,.0f} ({shared / own:.2f}); "
            f"a text takes {took[0]:.0f} and {took[1]:.0f} ms"
        )


if __name__ == "__main__":
    main()
