"""Limits: everything that a client can make large, slow or many has a bound, and a line that says so."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from dataclasses import replace

import pytest
from servers import eventually, running, small_limits, sources

from charloom.server import memory

HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def bounded(folders):
    """A server with small limits."""
    with running(sources(folders), limits=small_limits(), slots=2, waiting=4) as server:
        yield server


@pytest.fixture
def http(bounded):
    with bounded.client() as client:
        yield client
    eventually(bounded.idle)


def refused(http, status, path="/v1/completions", **fields):
    answer = http.post(path, json=fields)
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["message"]


def raw(bounded, data):
    """The answer to raw bytes, until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", int(bounded.url.rpartition(":")[2])), timeout=60) as client:
        client.sendall(data)
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
        return answer


def test_sizes(http):
    """Catches a limit that is not checked, and one that does not say what was found."""
    assert refused(http, 400, prompt="a" * 101) == "`prompt` must give at most 100 tokens; got 101"
    assert refused(http, 400, prompt=["a" * 51, "b" * 50]) == "`prompt` must give at most 100 tokens; got 101"
    assert refused(http, 400, n=5) == "`n` must give at most 4 texts in one request; got 5"
    assert refused(http, 400, prompt=["a", "b", "c"], n=2) == "`n` must give at most 4 texts in one request; got 6"
    assert "at most 1,000,000 tokens" in refused(http, 400, max_tokens=300_000, n=4)
    assert "at most 50 log-probabilities" in refused(http, 400, logprobs=1, max_tokens=26)
    assert "at most 50 log-probabilities" in refused(http, 400, logprobs=0, max_tokens=1, echo=True, prompt="a" * 50)
    assert "at most 1,000 characters" in refused(http, 400, stop=["a" * 1001])
    assert "at most" in refused(http, 400, "/v1/trace", text="a" * 1000)
    assert "must have at most 2,000 bytes; found" in refused(http, 413, prompt="a" * 2000)


def test_a_body_without_a_length(http):
    """Catches a limit that trusts Content-Length."""

    def endless():
        for _ in range(100):
            yield b" " * 10_000

    answer = http.post("/v1/completions", headers={"Content-Type": "application/json"}, content=endless())
    assert answer.status_code == 413
    assert answer.json()["error"]["message"].startswith("the body must have at most 2,000 bytes; found 1,000,000")


BODIES = [
    b"",
    b"[",
    b"[1]",
    b"null",
    b'"text"',
    b"{} {}",
    b"\xff\xfe",
    b'{"n": 1e400}',
    b'{"n": NaN}',
    b'{"temperature": NaN}',
    b'{"temperature": Infinity}',
    b'{"seed": ' + b"9" * 500 + b"}",
    b"[" * 1900,
    b'{"a":' * 300 + b"1" + b"}" * 300,
    b'{"\\ud800": 1}',
    b'{"prompt": "\\ud800"}',
    b'{"model": "\\udfff"}',
    b'{"model": "' + b"x" * 1800 + b'"}',
    b'{"prompt": [1.5]}',
    b'{"prompt": [[], 1]}',
]


@pytest.mark.parametrize("content", BODIES, ids=[str(content[:30]) for content in BODIES])
def test_odd_bodies(http, content):
    """Catches a traceback, a lone surrogate in an answer, and an answer as long as the request."""
    for path in ("/v1/completions", "/tokenize", "/detokenize", "/v1/trace", "/admin/reload"):
        answer = http.post(path, headers={"Content-Type": "application/json"}, content=content)
        assert answer.status_code in (400, 404), (path, answer.text)
        assert answer.content.isascii()
        message = answer.json()["error"]["message"]
        assert not any(0xD800 <= ord(character) < 0xE000 for character in message)
        assert len(message) < 1100
        assert "\n" not in message


def test_a_number_with_thousands_of_digits(served):
    """Catches Python's own limit for digits as an error of the server."""
    with served.client() as http:
        content = b'{"seed": ' + b"9" * 5000 + b"}"
        answer = http.post("/v1/completions", headers={"Content-Type": "application/json"}, content=content)
        assert answer.status_code == 400
        deep = http.post("/v1/completions", headers={"Content-Type": "application/json"}, content=b"[" * 10**6)
        assert (deep.status_code, deep.json()["error"]["message"]) == (
            400,
            "the body must be JSON of a few levels; it has too many",
        )


def test_a_full_queue(bounded, http, slow):
    """Catches requests that pile up without a bound, and half of the texts of a call in the queue."""
    body = json.dumps({"max_tokens": 200_000}).encode()
    request = HEAD + f"content-length: {len(body)}\r\n\r\n".encode() + body
    address = ("127.0.0.1", int(bounded.url.rpartition(":")[2]))
    clients = [socket.create_connection(address) for _ in range(5)]
    for number, client in enumerate(clients, 1):
        client.sendall(request)
        eventually(lambda number=number: bounded.sum("running") + bounded.sum("waiting") == number)
    answer = http.post("/v1/completions", json={"n": 2})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    error = answer.json()["error"]
    assert error["message"].startswith("at most 4 requests may wait; 3 wait, and 2 more do not fit")
    assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
    for client in clients:
        client.close()
    eventually(bounded.idle)
    assert http.post("/v1/completions", json={"n": 2}).status_code == 200


@pytest.mark.parametrize("sent", [b"", b"POST /v1/compl", HEAD, HEAD + b"content-length: 50\r\n\r\n{"])
def test_a_request_that_does_not_arrive(bounded, sent):
    """Catches a connection that is open for ever: half-sent headers, and half a body."""
    answer = raw(bounded, sent)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"].startswith("a request must arrive within")


def test_half_a_second_request(bounded):
    """Catches a clock that runs for the first request of a connection only."""
    with socket.create_connection(("127.0.0.1", int(bounded.url.rpartition(":")[2])), timeout=60) as client:
        client.sendall(HEAD + b"content-length: 2\r\n\r\n{}")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        eventually(lambda: next(iter(bounded.running.server_state.connections)).cycle.response_complete)
        client.sendall(HEAD)
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
        assert b"HTTP/1.1 408 " in answer


def test_a_long_text_is_not_a_late_request(bounded, http, slow):
    """Catches a clock that ends requests which take their time to be answered."""
    assert http.post("/v1/completions", json={"max_tokens": 400}).status_code == 200


def test_too_many_connections(bounded):
    """Catches connections without a bound."""
    address = ("127.0.0.1", int(bounded.url.rpartition(":")[2]))
    others = [socket.create_connection(address) for _ in range(8)]
    eventually(lambda: len(bounded.running.server_state.connections) == 8)
    answer = raw(bounded, b"")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"at most 8 connections may be open" in answer
    for other in others:
        other.close()
    eventually(lambda: len(bounded.running.server_state.connections) == 0)


def test_a_reader_that_stops(bounded, slow):
    """Catches a connection whose client never reads, and is kept for ever."""
    body = json.dumps({"n": 4, "prompt": "a", "max_tokens": 200_000, "stream": True}).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", int(bounded.url.rpartition(":")[2])))
        client.sendall(HEAD + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        eventually(lambda: bounded.sum("running") == 2)
        (connection,) = bounded.running.server_state.connections
        # What asyncio does when the client does not read.
        bounded.running.models.loop.call_soon_threadsafe(connection.pause_writing)
        eventually(lambda: not bounded.running.server_state.connections, "the end of the connection")
        eventually(bounded.idle)


def test_a_client_that_reads_again(bounded, slow):
    """Catches a clock that runs on after the client has read."""
    with (
        bounded.client() as http,
        http.stream("POST", "/v1/completions", json={"max_tokens": 900, "stream": True}) as answer,
    ):
        eventually(lambda: bounded.sum("running") == 1)
        (connection,) = bounded.running.server_state.connections
        bounded.running.models.loop.call_soon_threadsafe(connection.pause_writing)
        bounded.running.models.loop.call_soon_threadsafe(connection.resume_writing)
        assert answer.read().endswith(b"data: [DONE]\n\n")


def test_the_queue_must_hold_one_request(folders):
    """Catches a request that never fits: it would be told to come again for ever."""
    limits = replace(small_limits(), sequences=100)
    with running(sources(folders)[:1], limits=limits, waiting=3) as served, served.client() as http:
        error = http.post("/v1/completions", json={"n": 4}).json()["error"]
        assert error["message"] == "`n` must give at most 3 texts in one request; got 4"


def memory_used(http):
    """What the requests in progress take, as the metrics tell."""
    (line,) = [line for line in http.get("/metrics").text.splitlines() if line.startswith("charloom_request_memory")]
    return float(line.split()[1])


def test_half_bodies_that_fill_the_memory(folders):
    """Catches bodies that take gigabytes together, and small requests that are refused because of large ones."""
    limits = replace(small_limits(), body_bytes=2**21, memory_bytes=2**20, request_seconds=60)
    large = {"prompt": "a" * 2**17}
    with running(sources(folders), limits=limits) as served, served.client() as http:
        assert http.post("/tokenize", json=large).status_code == 429  # 16 times its bytes
        assert http.post("/tokenize", json={"prompt": "a" * 2**15}).status_code == 200
        eventually(lambda: memory_used(http) == 0)
        address = ("127.0.0.1", int(served.url.rpartition(":")[2]))
        with socket.create_connection(address) as half:
            half.sendall(HEAD + b"content-length: 2000000\r\n\r\n" + b" " * (2**18 + 2**20 - 2**16))
            eventually(lambda: memory_used(http) == 2**20 - 2**16)  # before that, a request could take its place
            answer = http.post("/tokenize", json={"prompt": "a" * 2**15})
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["message"].startswith("the requests in progress may take 1,048,576 bytes")
            assert http.post("/v1/completions", json={"prompt": "a"}).status_code == 200
        eventually(lambda: http.post("/tokenize", json={"prompt": "a" * 2**15}).status_code == 200)


def test_when_memory_is_returned(monkeypatch):
    """Catches memory that is returned at each request, or never."""
    returned = []
    monkeypatch.setattr(memory, "return_memory", lambda: returned.append(1))

    async def change(*counts):
        shared = memory.Memory(0)
        for count in counts:
            shared.change(0, count)
        await asyncio.get_running_loop().shutdown_default_executor()
        return len(returned)

    much = memory.MUCH
    assert asyncio.run(change(much, -much)) == 0
    assert asyncio.run(change(2 * much, -much)) == 0
    assert asyncio.run(change(4 * much, -2 * much, -2 * much + 1, -1, 10, -10)) == 1
    assert asyncio.run(change(4 * much, -4 * much, 4 * much, -4 * much)) == 3


def test_answers_that_wait_for_their_readers_count(folders, slow):
    """Catches an answer in progress that gives its memory back too early."""
    limits = replace(small_limits(), memory_bytes=2**19, logprobs=10**6, prompt_tokens=1000)
    large = {"prompt": "a", "max_tokens": 2000, "logprobs": 2}
    with running(sources(folders)[:1], limits=limits) as served, served.client() as http:
        with http.stream("POST", "/v1/completions", json=large | {"stream": True}):
            eventually(lambda: served.sum("running") == 1)
            assert http.post("/v1/completions", json=large).json()["error"]["code"] == "memory_full"
        eventually(served.idle)
        eventually(lambda: http.post("/v1/completions", json=large).status_code == 200)


def test_short_prompts_do_not_wait_for_long_ones(served):
    """Catches a short prompt that waits for a thread while all threads check long prompts."""
    loop, done = served.running.models.loop, threading.Event()
    loop.call_soon_threadsafe(lambda: [loop.run_in_executor(None, done.wait) for _ in range(40)])
    try:
        with served.client() as http:
            assert http.post("/v1/completions", json={"prompt": "a"}, timeout=10).status_code == 200
    finally:
        done.set()
