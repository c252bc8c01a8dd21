"""`charloom serve` as a process: its start, its signals, its mistakes."""

from __future__ import annotations

import contextlib
import json
import platform
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from servers import PATIENCE, ServerCommand, eventually

from charloom.errors import SettingsError
from charloom.server.guard import Access
from charloom.server.run import ServerOptions, check_address

QUICK = """
import sys
from dataclasses import replace
import charloom.server.run as run
limits = run.ServerLimits(grace_seconds=float(sys.argv.pop(1)))
serve = run.serve
run.serve = lambda options, tell: serve(replace(options, limits=limits), tell)
from charloom.inference import scheduler
scheduler.CHUNK_TOKENS = 1
from charloom.cli.main import main
main()
"""
"""The command with a shorter grace time, and texts that take longer."""


def command(*arguments: object, grace: str = "20", env: Mapping[str, str] | None = None) -> ServerCommand:
    """`charloom serve` on any free port, with updates of one token."""
    return ServerCommand(["-c", QUICK, grace, "serve", *map(str, arguments), "--port", "0"], env)


def test_a_server_from_start_to_end(folders):
    """Catches a command that does not serve, a reload by SIGHUP that ends it, an exit status other than 0, and other
    defaults than those of `charloom generate`, and a log that clients can fill.
    """
    with command(f"one={folders['letters']}", folders["bytes"]) as served:
        with httpx.Client(base_url=served.url, timeout=PATIENCE) as http:
            assert [card["id"] for card in http.get("/v1/models").json()["data"]] == ["one", "bytes"]
            served.process.send_signal(signal.SIGHUP)
            eventually(lambda: "charloom: loaded again: one, bytes\n" in served.err)
            assert http.get("/health").json() == {"status": "ok"}
            http.get("/health", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
            with socket.create_connection(("127.0.0.1", http.base_url.port)) as client:
                client.sendall(b"\x16\x03\x01\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 400 ")
            body = {"prompt": "abc", "max_tokens": 40, "seed": 5, "echo": True}
            text = http.post("/v1/completions", json=body).json()["choices"][0]["text"]
        generate = [
            sys.executable,
            "-m",
            "charloom",
            "generate",
            folders["letters"],
            "--prompt",
            "abc",
            "--length",
            "40",
        ]
        assert subprocess.run([*generate, "--seed", "5"], capture_output=True, text=True).stdout == text + "\n"
        served.process.send_signal(signal.SIGTERM)
        status, err = served.ended()
        assert status == 0
        assert err.splitlines()[1:] == ["charloom: loaded again: one, bytes", "charloom: stopped"]


def test_sigterm_lets_requests_end(folders):
    """Catches a text that is cut off although there was time, and a new request that is taken."""
    with command(folders["letters"]) as served, httpx.Client(base_url=served.url, timeout=PATIENCE) as http:
        body = {"prompt": "abc", "max_tokens": 3000, "stream": True, "stream_options": {"include_usage": True}}
        with http.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            served.process.send_signal(signal.SIGTERM)
            events = [line for line in lines if line]
        assert json.loads(events[-2][6:])["usage"]["completion_tokens"] == 3000
        assert events[-1] == "data: [DONE]"
        assert served.ended()[0] == 0


def test_sigterm_ends_requests_after_the_grace_time(folders):
    """Catches a server that never ends, and a text that ends as if it were whole."""
    with (
        command(folders["letters"], grace="0.2") as served,
        httpx.Client(base_url=served.url, timeout=PATIENCE) as http,
    ):
        found = {}

        def ask(stream):
            body = {"prompt": "abc", "max_tokens": 250_000, "stream": stream}
            answer = http.post("/v1/completions", json=body)
            found[stream] = (answer.status_code, answer.text)

        asking = [threading.Thread(target=ask, args=[stream]) for stream in (True, False)]
        for each in asking:
            each.start()
        running = 'charloom_requests_running{model="letters"} 2.0'
        eventually(lambda: running in http.get("/metrics").text)
        served.process.send_signal(signal.SIGTERM)
        for each in asking:
            each.join(PATIENCE)
        status, err = served.ended()
        assert (found[True][0], found[False][0]) == (200, 503)
        assert all(
            "the server stopped before this text was complete; ask another one" in text for _, text in found.values()
        )
        assert (status, err.splitlines()[1:]) == (0, ["charloom: stopped"])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_goes_back_to_the_system(folders):
    """Catches a server that keeps the memory of a flood of large bodies for ever."""

    def resident():
        pages = Path(f"/proc/{served.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * resource.getpagesize() >> 20

    head = b"POST /tokenize HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    head += b"content-length: 4000000\r\n\r\n"
    with command(folders["letters"]) as served:
        address = ("127.0.0.1", httpx.URL(served.url).port)
        before = resident()
        with contextlib.ExitStack() as stack:
            halves = [stack.enter_context(socket.create_connection(address)) for _ in range(80)]
            for half in halves:
                half.sendall(head)
            for _ in range(39):  # in turns, so that their blocks lie side by side
                for half in halves:
                    half.sendall(b" " * 100_000)
            eventually(lambda: resident() > before + 250)
        eventually(lambda: resident() < before + 60)


@pytest.mark.parametrize(
    ("host", "key", "insecure", "allowed"),
    [
        ("127.0.0.1", None, False, True),
        ("localhost", None, False, True),
        ("::1", None, False, True),
        ("0.0.0.0", None, False, False),
        ("::", None, False, False),
        ("example.org", None, False, False),
        ("0.0.0.0", "sk-1", False, True),
        ("0.0.0.0", None, True, True),
    ],
)
def test_an_open_server_is_for_this_machine_only(host, key, insecure, allowed):
    """Catches a server without a key that the whole network reaches."""
    options = ServerOptions([], host=host, access=Access(key=key), insecure=insecure)
    with contextlib.nullcontext() if allowed else pytest.raises(SettingsError, match="must be 127"):
        check_address(options)


def test_more_connections_than_files(folders):
    """Catches a usual limit of 1,024 files that lets idle connections lock out everyone, and take a whole core."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))  # the command has this limit too
    try:
        with command(folders["letters"]) as made:
            url = made.url
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            address = ("127.0.0.1", int(url.rpartition(":")[2]))
            with contextlib.ExitStack() as stack:
                for _ in range(150):
                    stack.enter_context(socket.create_connection(address))
                assert httpx.post(f"{url}/tokenize", json={"prompt": "a"}, timeout=10).status_code == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
