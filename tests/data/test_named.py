"""The named corpora: those in Python, and those that are fetched, here from a server on loopback."""

from __future__ import annotations

import hashlib
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from charloom.config import TextSettings
from charloom.data import named
from charloom.data.named import RemoteCorpus, fetch, listing, open_named, python_docs, python_files
from charloom.errors import TextError

DATA = b"to be or not to be\n" * 1000
PLAY = RemoteCorpus("play", "some/where/input.txt", hashlib.sha256(DATA).hexdigest(), len(DATA), "a play")


class Handler(BaseHTTPRequestHandler):
    """Serves the play; for `/short`, the connection ends in the middle."""

    def do_GET(self) -> None:
        if self.path == "/missing/some/where/input.txt":
            self.send_error(404)
            return
        self.server.asked += 1
        self.server.path = self.path
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA[:5000] if self.path.startswith("/short/") else DATA)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked = 0
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def address(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_fetched_once_and_told_once(server, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd):
    """Catches a download for each run, and messages of the download library."""
    lines: list[str] = []
    for _ in range(2):
        assert fetch(PLAY, lines.append, tmp_path / "new", address(server)).read_bytes() == DATA
    assert server.asked == len(lines) == 1
    assert lines[0].startswith("fetching play (0.0 MB) from http://127.0.0.1")
    assert not [record for record in caplog.records if record.name == "pooch"]
    assert capfd.readouterr() == ("", "")


def test_a_path_in_another_alphabet(server, tmp_path: Path):
    """Catches a request that a server cannot read, and a listed address that a browser cuts at a space."""
    fetch(replace(PLAY, path="prose/Драма на охоте.txt"), lambda line: None, tmp_path, address(server))
    assert server.path == "/prose/%D0%94%D1%80%D0%B0%D0%BC%D0%B0%20%D0%BD%D0%B0%20%D0%BE%D1%85%D0%BE%D1%82%D0%B5.txt"
    (listed,) = (listed for listed in listing() if listed.name == "shooting-party")
    assert listed.origin.endswith(server.path.removeprefix("/prose"))


def test_a_spoilt_cache_is_fetched_anew(server, tmp_path: Path):
    """Catches training on a cached file that was changed."""
    (tmp_path / "play.txt").write_bytes(DATA[:-1])
    assert fetch(PLAY, lambda line: None, tmp_path, address(server)).read_bytes() == DATA


@pytest.mark.parametrize(
    ("place", "sha256", "found"),
    [
        ("", "0" * 64, "play must have the SHA-256 that charloom knows; .* another file"),
        ("/short", PLAY.sha256, "play cannot be fetched .*(IncompleteRead|broken)"),
        ("/missing", PLAY.sha256, "play cannot be fetched .*404"),
    ],
)
def test_what_goes_wrong_is_one_line_and_leaves_nothing(server, tmp_path: Path, place: str, sha256: str, found: str):
    """Catches a part of the play in the cache, which all later runs would train on."""
    with pytest.raises(TextError, match=found) as caught:
        fetch(replace(PLAY, sha256=sha256), lambda line: None, tmp_path, address(server) + place)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches forty lines of urllib3 instead of one line."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(TextError, match=r"play cannot be fetched from .*python-docs .*need no network") as caught:
            fetch(PLAY, lambda line: None, tmp_path, base)
    assert f"into {tmp_path}: Connection refused; " in str(caught.value)


def test_no_pooch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Catches a traceback instead of the name of the package to install."""
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(TextError, match="pip install pooch"):
        fetch(PLAY, lambda line: None, tmp_path)


def test_a_cache_that_cannot_be_written(server, tmp_path: Path):
    """Catches a download before the cache is checked, and an error that does not say what to do."""
    (tmp_path / "file").write_text("")
    told: list[str] = []
    with pytest.raises(TextError, match=r"file, which cannot be written: .*; set CHARLOOM_CACHE to a folder that can"):
        fetch(PLAY, told.append, tmp_path / "file", address(server))
    assert not told


def test_the_cache_is_where_the_person_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Catches a documented variable that is not read."""
    monkeypatch.setenv("CHARLOOM_CACHE", str(tmp_path))
    assert named.cache_folder() == tmp_path
    monkeypatch.delenv("CHARLOOM_CACHE")
    assert named.cache_folder().name == "charloom"


def test_python_docs_are_english_without_ornaments():
    """Catches a corpus of underlines, and topics in an order that differs between machines."""
    topics = {
        "b": "Title\n*****\n\nText.\n\n+--+\n| t |\n+==+\n\nRelated help topics: a, c\n",
        "a": "First\n\n   x = 1\n",
        "c": "\n",
    }
    assert [document.text for document in python_docs(topics)] == ["First\n\n   x = 1\n\n", "Title\n\nText.\n\n"]
    whole = "".join(document.text for document in python_docs())
    assert len(whole) > 200_000
    assert "\n***" not in whole


def test_python_source_is_the_library_alone(tmp_path: Path):
    """Catches tests and installed packages in the corpus of the standard library."""
    for name in (
        "b.py",
        "a.py",
        "pkg/c.py",
        "test/t.py",
        "pkg/tests/t.py",
        "site-packages/x.py",
        "idlelib/idle_test/t.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("pass\n")
    found = [path.relative_to(tmp_path).as_posix() for path in python_files(tmp_path)]
    assert found == ["a.py", "b.py", "pkg/c.py"]


def test_the_other_one_stands_in(monkeypatch: pytest.MonkeyPatch):
    """Catches a demo that fails on a Python without its documentation."""
    monkeypatch.setattr(named, "python_files", list)
    lines: list[str] = []
    documents = open_named("python-source", TextSettings(), lines.append)
    assert documents == python_docs()
    assert lines == ["this Python installation lacks python-source; using python-docs instead"]
    monkeypatch.setattr(named, "python_docs", tuple)
    with pytest.raises(TextError, match="lacks both"):
        open_named("python-docs", TextSettings(), lines.append)


def test_listing_needs_no_network(cache: Path):
    """Catches `charloom corpora` that downloads, and a name that is listed and cannot be opened."""
    lines = {line.name: line for line in listing()}
    assert tuple(lines) == named.NAMES
    assert lines["tiny-shakespeare"].size == 1_115_394
    assert all(line.size and line.description and line.origin for line in lines.values())
    assert not list(cache.iterdir())
