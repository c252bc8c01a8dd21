"""Clients that misbehave. Each function is one kind of them; it returns how its requests ended, counted by outcome."""

from __future__ import annotations

import asyncio
import random
import resource
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from web.client import HOST, Exchange, exchange, head, post

COMPLETIONS = "/v1/completions"
READERS, READING_SECONDS = 100, 20
HALF_SENT, DISCONNECTS, QUEUED = 500, 1000, 10_000
BODY_BYTES, PROMPT_BYTES = 100_000_000, 5_000_000
MOST_BODY_BYTES, PROMPT_TOKENS = 4 << 20, 2**18  # the limits of the server
KILLS, RETRYING, TEXTS_EACH = 3, 20, 40  # kills of the server; clients that retry, and the texts that each wants
RETRY_SECONDS = 0.2
Outcomes = Counter[str]


async def outcome(port: int, request: bytes) -> str:
    """How one request ends."""
    try:
        found = await exchange(port, request)
    except OSError as error:
        return f"no connection ({type(error).__name__})"
    return f"status {found.status}" if found.status else "no answer"


async def all_at_once(port: int, requests: list[bytes]) -> Outcomes:
    """How requests end that are sent at the same time, as far as this process may open sockets."""
    most = asyncio.Semaphore(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100)

    async def one(request: bytes) -> str:
        async with most:
            return await outcome(port, request)

    return Counter(await asyncio.gather(*map(one, requests)))


async def slow_readers(port: int, count: int = READERS, seconds: int = READING_SECONDS) -> Outcomes:
    """Clients that read one byte a second of a long stream, and then leave."""
    request = post(COMPLETIONS, {"prompt": "a", "max_tokens": 2000, "logprobs": 5, "stream": True})
    loop = asyncio.get_running_loop()

    async def read() -> str:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, (HOST, port))
            await loop.sock_sendall(client, request)
            for _ in range(seconds):
                if not await loop.sock_recv(client, 1):
                    return "closed by the server"
                await asyncio.sleep(1)
            return "left"

    return Counter(await asyncio.gather(*(read() for _ in range(count))))


async def half_sent_headers(port: int, count: int = HALF_SENT) -> Outcomes:
    """Clients that send half of their headers, and wait."""
    return await all_at_once(port, [b"POST /v1/completions HTTP/1.1\r\nhost: 127.0"] * count)


async def disconnects(port: int, count: int = DISCONNECTS) -> Outcomes:
    """Clients that send a request for a long text and leave at once. Every second one resets its connection."""
    most = asyncio.Semaphore(100)
    requests = [post(COMPLETIONS, {"prompt": "a", "max_tokens": 100_000, "stream": bool(n & 2)}) for n in range(4)]

    async def leave(number: int) -> str:
        async with most:
            _, writer = await asyncio.open_connection(HOST, port)
            writer.write(requests[number % 4])
            await writer.drain()
            if number % 2:
                writer.transport.abort()
            writer.close()
            return "left"

    return Counter(await asyncio.gather(*map(leave, range(count))))


async def large_bodies(port: int, count: int = 8) -> Outcomes:
    """Bodies of 100 MB, four at the same time."""
    request, outcomes = head(COMPLETIONS, BODY_BYTES) + bytes(BODY_BYTES), Outcomes()
    for place in range(0, count, 4):
        outcomes += await all_at_once(port, [request] * min(4, count - place))
    return outcomes


async def long_queue(port: int, count: int = QUEUED) -> Outcomes:
    """Ten thousand requests at the same time, which are ten times as many as may wait."""
    return await all_at_once(port, [post(COMPLETIONS, {"prompt": "a", "max_tokens": 200})] * count)


async def long_prompts(port: int, count: int = 8) -> Outcomes:
    """Prompts of 5 MB, and prompts that just fit into a body."""
    lengths = [PROMPT_BYTES, MOST_BODY_BYTES - 1000] * count
    return await all_at_once(port, [post(COMPLETIONS, {"prompt": "a" * length}) for length in lengths[:count]])


async def longest_prompts(port: int, count: int = 1000) -> Outcomes:
    """As many prompts of the longest length as may wait."""
    return await all_at_once(port, [post(COMPLETIONS, {"prompt": "a" * PROMPT_TOKENS, "max_tokens": 1})] * count)


async def half_bodies(port: int, count: int = 1000, seconds: float = 5) -> Outcomes:
    """Clients that send all of the largest body but its end, wait, and leave."""
    part = head(COMPLETIONS, MOST_BODY_BYTES) + b" " * (MOST_BODY_BYTES - 1)

    async def wait() -> str:
        _, writer = await asyncio.open_connection(HOST, port)
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(seconds)
        writer.close()
        return "left"

    return Counter(await asyncio.gather(*(wait() for _ in range(count))))


async def retrying(port: int) -> Outcomes:
    """Clients that ask again until they have all their texts. The same request must always give the same text."""
    wanted: dict[int, str] = {}

    async def client(number: int) -> Outcomes:
        outcomes = Outcomes()
        request = post(COMPLETIONS, {"prompt": "a", "max_tokens": 2000, "seed": number, "stream": True})
        while outcomes["texts"] < TEXTS_EACH:
            text = await _text(port, request)
            if text is None:
                outcomes["retries"] += 1
                await asyncio.sleep(RETRY_SECONDS)
            elif text != wanted.setdefault(number, text):
                outcomes["texts that differ"] += 1
            else:
                outcomes["texts"] += 1
                await asyncio.sleep(RETRY_SECONDS)
        return outcomes

    return sum(await asyncio.gather(*map(client, range(RETRYING))), Outcomes())


async def mixed(port: int, seconds: float) -> Outcomes:
    """All kinds but kills, a few of each, beside clients with ordinary requests."""
    end, draw = time.monotonic() + seconds, random.Random(0)
    few: list[Callable[[int], Awaitable[Outcomes]]] = [
        lambda port: slow_readers(port, 10, 5),
        lambda port: disconnects(port, 50),
        lambda port: large_bodies(port, 1),
        lambda port: long_queue(port, 1500),
        lambda port: long_prompts(port, 2),
        lambda port: half_sent_headers(port, 20),
    ]

    async def misbehave() -> Outcomes:
        outcomes = Outcomes()
        while time.monotonic() < end:
            outcomes += await draw.choice(few)(port)
            await asyncio.sleep(draw.uniform(0, 2))
        return outcomes

    async def behave() -> Outcomes:
        outcomes = Outcomes()
        while time.monotonic() < end:
            outcomes[await outcome(port, post(COMPLETIONS, ordinary(draw)))] += 1
            await asyncio.sleep(draw.uniform(0, 0.5))
        return outcomes

    return sum(await asyncio.gather(misbehave(), misbehave(), *(behave() for _ in range(8))), Outcomes())


def ordinary(draw: random.Random) -> dict[str, Any]:
    """The fields of a request that is in order."""
    fields: dict[str, Any] = {"prompt": "a" * draw.randint(1, 2000), "max_tokens": draw.randint(1, 2000)}
    fields |= draw.choice([{}, {"stream": True}, {"n": 4}, {"logprobs": 3}, {"stop": ["ab"]}, {"top_k": 5}])
    return fields


async def _text(port: int, request: bytes) -> str | None:
    """The text of a stream; None if the server does not answer, or ends before the stream."""
    try:
        found: Exchange = await exchange(port, request)
    except OSError:
        return None
    return found.text()


Kind = Callable[[int], Awaitable[Outcomes]]
KINDS: dict[str, tuple[str, Kind, set[str]]] = {
    "readers": (f"{READERS} readers of one byte a second", slow_readers, {"left", "closed by the server"}),
    "headers": (f"{HALF_SENT} half-sent headers", half_sent_headers, {"status 408"}),
    "disconnects": (f"{DISCONNECTS:,} immediate disconnects", disconnects, {"left"}),
    "bodies": ("8 bodies of 100 MB, 4 at the same time", large_bodies, {"status 413"}),
    "queue": (f"{QUEUED:,} requests at the same time", long_queue, {"status 200", "status 429", "status 503"}),
    "prompts": ("4 prompts of 5 MB and 4 of 4.2 MB", long_prompts, {"status 413", "status 400"}),
    "longest": ("1,000 prompts of 262,144 characters", longest_prompts, {"status 200", "status 429"}),
    "halves": ("1,000 half-sent bodies of 4 MiB", half_bodies, {"left"}),
    "kills": (f"{KILLS} kills while {RETRYING} clients retry", retrying, {"texts", "retries"}),
}
"""By name: what it is, the clients, and the outcomes that are right."""
