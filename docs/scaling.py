"""How many hosts are worth it: the time of a step on n hosts, reckoned from measurements on one.

`docs/clusters.md` has the formula, its assumptions and the tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TIMES = 64  # time steps of a batch
HOSTS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Measured:
    """A network on one host, from `benchmarks/processes.py`: seconds of a step without rows, and of each row."""

    name: str
    parameters: int
    fixed: float
    row: float


@dataclass(frozen=True)
class Link:
    """A network card of each host: bytes/s in each direction, and seconds from one host to another."""

    name: str
    bandwidth: float
    latency: float


def step(network: Measured, link: Link, hosts: int, rows: int) -> float:
    """Seconds of a step with `rows` sequences in all."""
    rounds = math.ceil(math.log2(hosts))
    batch = 2 * link.latency + 8 * rows * TIMES / link.bandwidth
    gradients = 2 * (hosts - 1) * (4 * network.parameters / hosts / link.bandwidth + link.latency)
    return network.fixed + network.row * rows / hosts + rounds * batch + gradients


def table(networks: list[Measured], links: list[Link], rows: int, grow: bool) -> str:
    """The speed of n hosts as a multiple of one, as Markdown. grow: whether each host has `rows`, or all together."""
    lines = [f"| network | link | {' | '.join(f'{n} hosts' for n in HOSTS[1:])} |", "|---|---" + "|---" * 6 + "|"]
    for network in networks:
        for link in links:
            one = step(network, link, 1, rows)
            ratios = [
                n * one / step(network, link, n, n * rows) if grow else one / step(network, link, n, rows)
                for n in HOSTS[1:]
            ]
            lines.append(f"| {network.name} | {link.name} | " + " | ".join(f"{ratio:.1f}" for ratio in ratios) + " |")
    return "\n".join(lines) + "\n"
