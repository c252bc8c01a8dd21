"""A real web server on loopback, for the errors and the event loop of fsspec."""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

TEXT = "over the wire, " * 50

PROGRAM = """
import sys
from charloom.errors import TextError
from charloom.data import sources
from charloom.data.corpus import open_corpus
sources.TIMEOUT = int(sys.argv[2])
try:
    corpus = open_corpus([sys.argv[1]])
    assert corpus.text() == corpus.text()
    sys.stdout.write(corpus.text())
except TextError as error:
    sys.stderr.write(f"{error}\\n")
"""


over = threading.Event()
"""Set when no test waits for an answer any longer."""


class Handler(BaseHTTPRequestHandler):
    """Serves the text, plain and packed."""

    def do_GET(self) -> None:
        if self.path == "/silent.txt":
            over.wait()
            return
        if self.path == "/forbidden.txt":
            self.send_error(403)
            return
        body = {"/a.txt": TEXT.encode(), "/a.txt.gz": gzip.compress(TEXT.encode())}.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    over.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    over.set()
    server.shutdown()
    server.server_close()


def fetched(url: str, patience: int = 60) -> subprocess.CompletedProcess[str]:
    """Runs in a new process, because aiohttp's event loop outlives a call."""
    return subprocess.run([sys.executable, "-c", PROGRAM, url, str(patience)], capture_output=True, text=True)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_url_is_a_text(address: str, name: str):
    """Catches URLs that need a package outside the lock, and a second request for the same URL."""
    done = fetched(f"{address}/{name}")
    assert done.stderr == ""
    assert done.stdout == TEXT


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("/none.txt", "404 Not Found"),
        ("/forbidden.txt", "403 Forbidden"),
        ("/silent.txt", "no answer for 1 seconds"),
    ],
)
def test_a_url_says_why_it_cannot_be_fetched(address: str, path: str, cause: str):
    """Catches a traceback of aiohttp's, more than one line, and a line that only repeats the address."""
    ended = fetched(address + path, patience=1 if "no answer" in cause else 60)
    assert ended.stderr == f"{address}{path} cannot be fetched: {cause}\n"


def test_servers_that_are_not_there():
    """Catches a mistyped name that is reported as a missing file."""
    assert "cannot be fetched: " in fetched("http://nowhere.invalid/a.txt").stderr.replace("fetched: http", "")
    with socket.socket() as taken:  # bound, but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        line = fetched(f"http://127.0.0.1:{taken.getsockname()[1]}/a.txt").stderr
    assert "Connect call failed" in line
    assert len(line.splitlines()) == 1
