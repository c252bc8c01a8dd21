"""A real web server on loopback: what fsspec's own errors and event loop would otherwise show a person."""

from __future__ import annotations

import gzip
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
from charloom.text.corpus import open_corpus
try:
    corpus = open_corpus([sys.argv[1]])
    assert corpus.text() == corpus.text()
    sys.stdout.write(corpus.text())
except TextError as error:
    sys.stderr.write(f"{error}\\n")
"""


class Handler(BaseHTTPRequestHandler):
    """Serves the text, plain and packed."""

    def do_GET(self) -> None:
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
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetched(url: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, since aiohttp's event loop outlives a call."""
    return subprocess.run([sys.executable, "-c", PROGRAM, url], capture_output=True, text=True)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_url_is_a_text(address: str, name: str):
    """Catches URLs that need a package the lock lacks, and a second reading of what can be fetched once."""
    done = fetched(f"{address}/{name}")
    assert done.stderr == ""
    assert done.stdout == TEXT


def test_a_url_that_is_not_there(address: str):
    """Catches a traceback of aiohttp's, or more than one line."""
    done = fetched(f"{address}/none.txt")
    assert len(done.stderr.splitlines()) == 1
    assert "none.txt" in done.stderr
