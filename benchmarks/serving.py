"""Speed of `charloom serve`, compared with generation in process and with servers that a user of PyTorch would write.

For each network and number of clients, all programs generate equally many characters in each of ROUNDS rounds, one
program after the other. Clients stream their texts. They are one process on the same machine, and its processor time is
reported. The servers by hand answer without streaming, and generate fewer characters, because they are slower. The
output has medians of characters/s and of ratios, and the time from the start of a connection to the first chunk.

    python benchmarks/serving.py [seconds for each program and round, 1.0]
"""

from __future__ import annotations

import asyncio
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from generation import VOCABULARY, architecture, parameters
from probes import without_kernels
from web.client import Exchange, crowd, post
from web.process import CHARLOOM, ServerProcess

from charloom import kernels
from charloom.checkpoint import ModelFolder, save_model
from charloom.data.vocabulary import Vocabulary
from charloom.inference.backend import Precision
from charloom.model import Model
from charloom.server.limits import ServerLimits

ROUNDS = 5
PROMPT = "a"
LETTERS = tuple("\n" + "".join(map(chr, range(32, 31 + VOCABULARY))))
NETWORKS: tuple[tuple[int, int, Precision], ...] = ((2, 512, "int8"), (2, 128, "fp32"))
CLIENTS = {1: 0.6, 8: 0.8, 64: 0.85}  # the target of charloom serve ÷ generate_many
CROWD = max(CLIENTS)
BY_HAND = {"by hand, one at a time": 20.0, "by hand, batched": 1.2}  # the target of charloom serve ÷ a server by hand
BATCHED = "by hand, batched"
LONGEST = ServerLimits().generated_tokens
SHORTEST = 16  # characters of a text of a server by hand


@dataclass
class Measured:
    """What one program did in one round. cpu: processor seconds of the clients; loop, server: of the event loop of the
    server, and of all its threads; first: seconds to the first chunk of each client.
    """

    characters: int
    seconds: float
    cpu: float = math.nan
    loop: float = math.nan
    server: float = math.nan
    first: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Characters/s of all clients together."""
        return self.characters / self.seconds


Contestant = Callable[[int, int], Measured]  # clients, characters for each → what was measured


def make_model(layers: int, hidden: int, place: Path) -> Path:
    """Saves a network with random weights."""
    made = architecture(layers, hidden)
    save_model(place, ModelFolder(made, Vocabulary("characters", LETTERS), parameters(made)))
    return place


def in_process(folder: Path, precision: Precision) -> Contestant:
    """`generate_many` in this process."""
    model = Model.load(folder)

    def generate(clients: int, length: int) -> Measured:
        start = time.perf_counter()
        texts = model.generate_many(clients, PROMPT, length, seed=0, precision=precision)
        return Measured(sum(map(len, texts)), time.perf_counter() - start)

    return generate


def served(server: ServerProcess) -> Contestant:
    """`charloom serve`, with streams."""

    def generate(clients: int, length: int) -> Measured:
        asked = {"prompt": PROMPT, "max_tokens": length, "stream": True}
        found, measured = ask(server, [post("/v1/completions", asked | {"seed": seed}) for seed in range(clients)])
        measured.characters = sum(len(each.text() or "") for each in found)
        measured.first = [each.first - each.began for each in found]
        assert measured.characters == clients * length, f"{measured.characters} of {clients} × {length} characters came"
        return measured

    return generate


def by_hand(server: ServerProcess) -> Contestant:
    """A server by hand."""

    def generate(clients: int, length: int) -> Measured:
        found, measured = ask(server, [post("/generate", {"prompt": PROMPT, "max_tokens": length})] * clients)
        assert all(each.status == 200 for each in found)
        measured.characters = clients * length
        return measured

    return generate


def ask(server: ServerProcess, requests: list[bytes]) -> tuple[list[Exchange], Measured]:
    """Sends requests at the same time; measures the time until all answers are there."""
    before, mine, start = server.cpu(), time.process_time(), time.perf_counter()
    found = asyncio.run(crowd(server.port, requests))
    spent, mine = time.perf_counter() - start, time.process_time() - mine
    whole, loop = (after - earlier for after, earlier in zip(server.cpu(), before, strict=True))
    return found, Measured(0, spent, mine, loop, whole)


def rounds(contestants: dict[str, Contestant], clients: int, lengths: dict[str, int]) -> dict[str, list[Measured]]:
    """What each contestant did in each round."""
    found: dict[str, list[Measured]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, generate in contestants.items():
            found[name].append(generate(clients, lengths[name]))
    return found


def length_for(generate: Contestant, clients: int, seconds: float, shortest: int) -> int:
    """The characters for each client that take a contestant about so many seconds."""
    generate(clients, shortest)  # warms up
    return min(LONGEST, max(shortest, round(generate(clients, shortest).rate * seconds / clients)))


def compare(layers: int, hidden: int, precision: Precision, seconds: float, folder: Path) -> None:
    """Prints the figures of one network."""
    model = make_model(layers, hidden, folder / f"{layers}x{hidden}")
    hand = [sys.executable, str(Path(__file__).parent / "web" / "by_hand.py"), str(model)]
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess([*CHARLOOM, str(model), "--precision", precision]))
        peers: dict[str, Contestant] = {}
        if find_spec("torch"):
            for name in BY_HAND:
                command = [*hand, *(["--batched"] if name == BATCHED else [])]
                peers[name] = by_hand(stack.enter_context(ServerProcess(command)))
        ours, alone = served(server), in_process(model, precision)
        for clients in CLIENTS:
            length = length_for(alone, clients, seconds, max(SHORTEST, 20_000 // clients))
            contestants = {"charloom serve": ours, "generate_many": alone}
            lengths = dict.fromkeys(contestants, length)
            if clients == CROWD:
                lengths |= {name: length_for(each, clients, seconds, SHORTEST) for name, each in peers.items()}
                contestants |= peers
            ours(clients, length)  # warms up
            report(f"LSTM {layers} x {hidden} {precision}", clients, lengths, rounds(contestants, clients, lengths))


def report(network: str, clients: int, lengths: dict[str, int], found: dict[str, list[Measured]]) -> None:
    """Prints what was measured with one number of clients."""
    print(f"{network}, {clients} client{'s' * (clients > 1)}, characters/s:")
    for name, measured in found.items():
        rate = statistics.median(each.rate for each in measured)
        print(f"  {name:23} {rate:10,.0f}  ({lengths[name]:,} characters for each)")
    ours = found["charloom serve"]
    targets = {"generate_many": CLIENTS[clients]} | (BY_HAND if clients == CROWD else {})
    for name, least in targets.items():
        if name in found:
            ratio = statistics.median(a.rate / b.rate for a, b in zip(ours, found[name], strict=True))
            verdict = "reached" if ratio >= least else "NOT reached"
            print(f"  charloom serve / {name}: {ratio:.2f}  (at least {least:g}: {verdict})")
    cpu, loop, whole = (
        100 * statistics.median(getattr(each, name) / each.seconds for each in ours)
        for name in ("cpu", "loop", "server")
    )
    print(f"  of one core: clients {cpu:.0f}%, event loop of the server {loop:.0f}%, server {whole:.0f}%")
    first = sorted(1000 * each for measured in ours for each in measured.first)
    middle, late = statistics.median(first), first[math.ceil(0.99 * len(first)) - 1]
    print(f"  first chunk: p50 {middle:.0f} ms, p99 {late:.0f} ms, of {len(first)}", flush=True)


def main() -> None:
    """Measures each network."""
    if without_kernels():
        return
    if find_spec("fastapi") is None:
        print("not measured: it needs the packages of the extra `serve`")
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    print(f"kernels {kernels.chosen().name}, {kernels.cores()} cores; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        for network in NETWORKS:
            compare(*network, seconds, Path(folder))


if __name__ == "__main__":
    main()
