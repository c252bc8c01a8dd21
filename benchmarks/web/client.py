"""A raw HTTP client for the benchmarks of the server: sockets of asyncio, which take little of the processor.

Each request has a connection of its own, which the server closes. The answer is decoded only when it is complete.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import Any

HOST = "127.0.0.1"
END_OF_HEAD = b"\r\n\r\n"


def post(path: str, fields: dict[str, Any]) -> bytes:
    """The bytes of a request with a JSON body."""
    body = json.dumps(fields).encode()
    return head(path, len(body)) + body


def head(path: str, size: int) -> bytes:
    """The bytes of a request before its body."""
    lines = f"POST {path} HTTP/1.1", f"host: {HOST}", "content-type: application/json", f"content-length: {size}"
    return "\r\n".join([*lines, "connection: close", "", ""]).encode()


class Exchange(asyncio.Protocol):
    """One request and its answer.

    request: its bytes. began, first, ended: times of `time.perf_counter`, before the connection, at the first bytes of
    the answer's body, and when the server closed the connection; NaN if that did not happen. done: set at the end.
    """

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.began, self.first, self.ended = time.perf_counter(), math.nan, math.nan
        self.data = bytearray()
        self.done = asyncio.Event()
        self._body_at = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the request."""
        assert isinstance(transport, asyncio.Transport)
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Collects the answer."""
        self.data += data
        if math.isnan(self.first):
            if not self._body_at and (found := self.data.find(END_OF_HEAD)) >= 0:
                self._body_at = found + len(END_OF_HEAD)
            if self._body_at and len(self.data) > self._body_at:
                self.first = time.perf_counter()

    def connection_lost(self, exc: Exception | None) -> None:
        """The answer is complete, or will never be."""
        self.ended = time.perf_counter()
        self.done.set()

    @property
    def status(self) -> int:
        """The HTTP status; 0 if there was no answer."""
        return int(self.data[9:12]) if self.data.startswith(b"HTTP/1.1 ") else 0

    @property
    def body(self) -> bytes:
        """The body of the answer, or what there is of it."""
        before, _, body = bytes(self.data).partition(END_OF_HEAD)
        return _unchunked(body) if b"transfer-encoding: chunked" in before.lower() else body

    def text(self) -> str | None:
        """The text of a streamed completion; None if it is not complete."""
        *events, rest = self.body.split(b"\n\n")
        if self.status != 200 or rest or events[-1:] != [b"data: [DONE]"]:
            return None
        found = [json.loads(event.removeprefix(b"data: ")) for event in events[:-1]]
        if any("error" in each for each in found):
            return None
        return "".join(each["choices"][0]["text"] for each in found)


def _unchunked(body: bytes) -> bytes:
    """The content of a chunked body, as far as its chunks are complete."""
    parts, place = [], 0
    while (end := body.find(b"\r\n", place)) >= 0:
        size = int(body[place:end], 16)
        parts.append(body[end + 2 : end + 2 + size])
        place = end + 2 + size + 2
    return b"".join(parts)


async def exchange(port: int, request: bytes) -> Exchange:
    """Sends a request on a new connection, and waits for the whole answer.

    Raises:
        OSError: if nobody listens.
    """
    made = Exchange(request)
    await asyncio.get_running_loop().create_connection(lambda: made, HOST, port)
    await made.done.wait()
    return made


async def crowd(port: int, requests: list[bytes]) -> list[Exchange]:
    """Sends all requests at the same time, and waits for all answers."""
    return await asyncio.gather(*(exchange(port, request) for request in requests))
