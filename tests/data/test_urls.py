"""Files at a URL: a real web server on loopback, and fsspec's files in memory and in archives."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from charloom.config import TextSettings
from charloom.data import corpus as corpus_module
from charloom.data import urls
from charloom.data.corpus import corpus_name, open_corpus
from charloom.data.sources import Spool
from charloom.data.urls import RemoteFile, RemoteFiles, find_remote
from charloom.errors import TextError

TEXT = "over the wire, " * 50
LONG = b"".join(b"%07d\n" % number for number in range(1_000_000))  # more than fsspec fetches in one request
ARCHIVED = "/web/2020/https://example.org/a.txt?u=https://example.org/"

PROGRAM = """
import sys
from charloom.errors import TextError
from charloom.data import corpus as corpus_module
from charloom.data import urls
from charloom.data.corpus import open_corpus
urls.TIMEOUT, urls.PAUSES = int(sys.argv[2]), (0, 0)
try:
    corpus = open_corpus([sys.argv[1]])
    assert corpus.text() == corpus.text()
    sys.stdout.write(corpus.text())
except TextError as error:
    sys.stderr.write(f"{error}\\n")
"""


class Over(threading.Event):
    """Set when no test waits for an answer any longer. broke: whether a connection broke."""

    broke = False


over = Over()


class Handler(BaseHTTPRequestHandler):
    """Serves the text, plain and packed."""

    def do_GET(self) -> None:
        if self.path == "/silent.txt":
            over.wait()
            return
        if self.path == "/forbidden.txt":
            self.send_error(403)
            return
        if self.path.startswith("/broken"):
            self._break()
            return
        files = {
            "/a.txt": TEXT.encode(),
            "/a.txt.gz": gzip.compress(TEXT.encode()),
            "/whole.txt": LONG,
            "/compressed.txt": 2 * LONG,
        }
        body = files.get(self.path, TEXT.encode() if self.path == ARCHIVED else None)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        if self.path == "/compressed.txt" and self.command == "GET" and "gzip" in self.headers["Accept-Encoding"]:
            body = gzip.compress(body, 1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _break(self) -> None:
        """Sends a part of `LONG`. The connection breaks once in a part that is not the first; or in each whole file."""
        in_parts = self.path == "/broken-once.txt"
        start, stop = 0, len(LONG)
        if in_parts and (asked := self.headers.get("Range")):
            first, last = asked.removeprefix("bytes=").split("-")
            start, stop = int(first), min(int(last) + 1, stop)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(LONG)}")
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes" if in_parts else "none")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command == "GET":
            breaks = start > 0 and not over.broke if in_parts else True
            over.broke = over.broke or breaks
            self.wfile.write(LONG[start : start + (stop - start) // (1 + breaks)])
            self.close_connection = breaks

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    over.clear()
    over.broke = False
    yield f"http://127.0.0.1:{server.server_port}"
    over.set()
    server.shutdown()
    server.server_close()


def fetched(url: str, patience: int = 60) -> subprocess.CompletedProcess[str]:
    """Runs in a new process, because aiohttp's event loop outlives a call."""
    return subprocess.run([sys.executable, "-c", PROGRAM, url, str(patience)], capture_output=True, text=True)


@pytest.mark.parametrize("path", ["/a.txt", "/a.txt.gz", ARCHIVED])
def test_a_url_is_a_text(address: str, path: str):
    """Catches URLs that need a package outside the lock, and a second request for the same URL.

    Also a URL in a URL that is taken for one more protocol.
    """
    done = fetched(address + path)
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


@pytest.mark.parametrize("name", ["whole.txt", "compressed.txt"])
def test_a_web_server_that_sends_only_whole_files(address: str, name: str):
    """Catches a file of more than 5 MiB, fsspec's block, that such a server seems not to have.

    Also a text with a part twice, because the server compresses what it sends.
    """
    done = fetched(f"{address}/{name}")
    assert done.stderr == ""
    assert done.stdout.encode() == LONG * (2 if name == "compressed.txt" else 1)


def test_a_broken_connection_is_opened_again(address: str):
    """Catches hours of copying that are lost, and a text that has a part twice or lacks one."""
    done = fetched(f"{address}/broken-once.txt")
    assert done.stderr == ""
    assert hashlib.sha256(done.stdout.encode()).digest() == hashlib.sha256(LONG).digest()
    assert over.broke


def test_a_broken_connection_to_a_server_that_sends_whole_files(address: str):
    """Catches a text that is cut without a word, and the error of the second try in place of the first one's."""
    line = fetched(f"{address}/broken.txt").stderr
    assert "cannot be fetched: " in line
    assert "received 4000000 of 8000000 bytes" in line
    assert len(line.splitlines()) == 1


class Sized(io.BytesIO):
    """A file that knows its size, as those of fsspec."""

    def __init__(self, size: int) -> None:
        super().__init__(bytes(size))
        self.size = size


class Breaking(Sized):
    """A file whose connection breaks after the first read."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 0:
            raise OSError("broken")
        return super().read(size)


class Files:
    """A filesystem that opens these files, one after another."""

    def __init__(self, *files: Any) -> None:
        self.files = [*files]

    def open(self, path: str, mode: str) -> Any:
        return self.files.pop(0)


def test_a_file_that_changed_is_not_joined(monkeypatch: pytest.MonkeyPatch):
    """Catches a text whose halves are from two versions of a file, and a server that is asked without an end."""
    monkeypatch.setattr(urls, "PAUSES", (0.0,))
    for files in ([Breaking(3 << 20), Sized(4 << 20)], [Breaking(3 << 20)]):
        with pytest.raises(TextError, match=r"^s3://b/a.txt cannot be fetched: broken$"):
            RemoteFile(Files(*files), "b/a.txt", "s3://b/a.txt").copied()


def test_what_a_new_connection_cannot_help_is_not_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Catches half a minute without a word before the error of a damaged archive, or of a file that was removed."""
    monkeypatch.setattr(urls.time, "sleep", lambda _: pytest.fail("waits"))
    archive = tmp_path / "b.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "first\n")
    archive.write_bytes(archive.read_bytes().replace(b"first", b"worst"))
    with pytest.raises(TextError, match=r"^zip://a.txt::.* cannot be fetched: Bad CRC-32"):
        open_corpus([f"zip://a.txt::{archive}"])

    class Removed(Sized):
        def read(self, size: int | None = -1) -> bytes:
            raise FileNotFoundError(2, "No such file")

    with pytest.raises(TextError, match=r"^s3://b/a.txt cannot be fetched: no such file$"):
        RemoteFile(Files(Removed(1)), "b/a.txt", "s3://b/a.txt").copied()


@pytest.mark.parametrize("size", [(2 << 20) - 1, 4 << 20])
def test_a_file_that_ends_elsewhere_is_refused(size: int):
    """Catches a text that is cut without a word, because a shorter file replaced it during the copy."""
    file = Sized(size)
    file.size = 3 << 20
    with pytest.raises(TextError, match=rf"a.txt cannot be fetched: .* 3,145,728 bytes and ended after {size:,}; try"):
        RemoteFile(Files(file), "b/a.txt", "s3://b/a.txt").copied()


class Whole(Sized):
    """A file on a server that sends no parts: fsspec cannot read on after the first block."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 0:
            raise ValueError("block_size=0")
        return super().read(size)


def test_a_whole_file_that_ends_elsewhere_is_refused():
    """Catches a text that is cut without a word, because the second answer is shorter than what the first gave."""

    class Again(Files):
        def open(self, path: str, mode: str, block_size: int = 1) -> Any:
            return super().open(path, mode)

    with pytest.raises(TextError, match=r"had 3,145,728 bytes and ended after 1,048,576; try again$"):
        RemoteFile(Again(Whole(3 << 20), io.BytesIO(b"short")), "a.txt", "http://b/a.txt").copied()


@pytest.fixture
def memory() -> Iterator[None]:
    """Files in fsspec's memory."""
    files = fsspec.filesystem("memory")
    for name in ("part-10.txt", "part-9.txt", ".hidden", "deep/part-11.txt"):
        files.pipe(f"/shards/{name}", f"{name}\n".encode())
    files.pipe("/one.txt.gz", gzip.compress(TEXT.encode()))
    yield
    files.rm("/", recursive=True)


def lines(url: str, **settings: Any) -> list[str]:
    return open_corpus([url], TextSettings(**settings), pytest.fail).text().split()


@pytest.mark.usefixtures("memory")
def test_folders_and_globs_at_a_url():
    """Catches a folder of shards that is read as an empty file, one without its files, and part 10 before part 9."""
    assert lines("memory://shards/*.txt") == ["part-9.txt", "part-10.txt"]
    assert lines("memory://shards") == lines("memory://shards/**") == ["deep/part-11.txt", "part-9.txt", "part-10.txt"]
    assert corpus_name(["memory://shards/*.txt"]) == corpus_name(["memory://shards"]) == "shards"
    with pytest.raises(TextError, match=r"^no file matches memory://shards/\*.csv$"):
        lines("memory://shards/*.csv")


def test_no_secret_of_a_url_is_in_an_error_or_a_name():
    """Catches a password in the output of a run, and one in the name of its folder."""
    secret = "http://me:secret@nowhere.invalid"
    line = fetched(f"{secret}/a.txt?sig=secret").stderr
    assert line.startswith("http://…@nowhere.invalid/a.txt?… cannot be fetched: ")
    assert "secret" not in line
    with (
        pytest.raises(TextError, match=r"^klingon://…@b/a.txt cannot be fetched: http://…@b/c$"),
        urls.one_line("klingon://me:secret@b/a.txt"),
    ):
        raise ValueError("http://me:secret@b/c")
    assert corpus_name([secret]) == corpus_name([f"{secret}?sig=secret"]) == "nowhere"


@pytest.mark.usefixtures("memory")
def test_hidden_folders_and_runs_at_a_url_are_left_out():
    """Catches a model that learns the files of git, and the samples of other models."""
    for name in (".git/x.txt", "deep/.cache/x.txt", "runs/1/run.toml", "runs/1/log.jsonl", "runs/1/kept/samples.txt"):
        fsspec.filesystem("memory").pipe(f"/shards/{name}", b"no\n")
    for url in ("memory://shards", "memory://shards/**/*.txt", "memory://shards/**"):
        notices: list[str] = []
        read = open_corpus([url], notice=notices.append).text().split()
        assert read == ["deep/part-11.txt", "part-9.txt", "part-10.txt"]
        assert notices == [f"{url}: skipped 1 folder with a run or a model of charloom: memory:///shards/runs/1"]
    with pytest.raises(TextError, match=r"^the URL memory://shards/runs/1 contains only a run or a model of charloom"):
        lines("memory://shards/runs/1")
    assert lines("memory://shards/runs/1/*.jsonl") == ["no"]
    fsspec.filesystem("memory").pipe("/.mine/x.txt", b"yes\n")
    assert lines("memory://.mine") == lines("memory://.mine/*") == ["yes"]


@pytest.mark.usefixtures("memory")
def test_a_url_is_fetched_once():
    """Catches a URL that is fetched again in each epoch."""
    corpus = open_corpus(["memory://one.txt.gz"])
    fsspec.filesystem("memory").rm("/one.txt.gz")
    assert [corpus.text() for _ in range(2)] == [TEXT, TEXT]


@pytest.mark.usefixtures("memory")
def test_a_large_file_has_a_notice_before_its_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Catches an hour of copying without a word, and a duration that ignores the compression."""
    monkeypatch.setattr(corpus_module, "LARGE", 10)
    seen: list[str] = []

    def copy(*given: Any) -> Spool:
        seen.append("copied")
        return Spool(*given)

    monkeypatch.setattr(urls, "Spool", copy)
    open_corpus(["memory://shards/*-10.txt"], notice=seen.append)
    open_corpus(["memory://one.txt.gz"], notice=seen.append)
    (tmp_path / "a.txt").write_text(TEXT)
    open_corpus([tmp_path], notice=seen.append)
    assert seen == [
        "reading memory:///shards/part-10.txt: 0.0 GB; each GB takes 15 to 70 seconds after the copy",
        "copied",
        "reading memory://one.txt.gz: 0.0 GB; compressed",
        "copied",
        f"reading {tmp_path}/a.txt: 0.0 GB; each GB takes 15 to 70 seconds",
    ]
    sizes: list[int] = []
    RemoteFile(Files(io.BytesIO(b"unknown")), "b/a.txt", "s3://b/a.txt").copied(sizes.append)
    assert sizes == [7]  # known after the copy
    with_method = Sized(3)
    with_method.size = lambda: 3  # type: ignore[assignment]
    RemoteFile(Files(with_method), "b/a.txt", "hdfs://b/a.txt").copied(sizes.append)
    assert sizes == [7, 3]


@pytest.mark.usefixtures("memory")
def test_more_files_than_may_be_open_are_refused(monkeypatch: pytest.MonkeyPatch):
    """Catches hours of copying before the error of the system, and a limit for files that `field` leaves out."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (102, 4096))
    fsspec.filesystem("memory").pipe("/shards/rows.csv", b"text\nrow\n")
    assert lines("memory://shards/*.txt") == ["part-9.txt", "part-10.txt"]
    assert open_corpus(["memory://shards/*"], TextSettings(field="text")).text() == "row"
    monkeypatch.setattr(urls, "Spool", lambda *_: pytest.fail("copied"))
    with pytest.raises(TextError) as caught:
        lines("memory://shards")
    assert str(caught.value) == (
        "the limit of open files must be at least 104 for memory://shards, because the copies of its 4 files stay "
        "open; it is 102; run: ulimit -n 104; or name fewer and larger files"
    )


def test_files_in_an_archive(tmp_path: Path):
    """Catches the ending of the archive in place of the file's, and a glob whose files lose their archive."""
    archive = tmp_path / "b.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("rows.jsonl", '{"text": "one"}\n')
        file.writestr("a/1.txt", "first\n")
        file.writestr("a/2.txt", "second\n")
    assert lines(f"zip://rows.jsonl::{archive}", field="text") == ["one"]
    assert lines(f"zip://a/*.txt::file://{archive}") == ["first", "second"]
    found = find_remote(f"zip://a/*.txt::{archive}")
    assert isinstance(found, RemoteFiles)
    assert [file.name for file in found.files] == [f"zip://a/1.txt::{archive}", f"zip://a/2.txt::{archive}"]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("memory://nothing.txt", "memory://nothing.txt cannot be fetched: no such file"),
        ("klingon://a.txt", "klingon://a.txt cannot be fetched: Protocol not known"),
    ],
)
def test_urls_that_fail(url: str, found: str):
    """Catches a traceback of fsspec."""
    with pytest.raises(TextError, match=found) as caught:
        find_remote(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("url", "package"), [("s3://b/a.txt", "s3fs"), ("https://b/a.txt", "pip install aiohttp")])
def test_a_missing_protocol_package(monkeypatch: pytest.MonkeyPatch, url: str, package: str):
    """Catches an ImportError, and a line that does not name the package to install."""
    for name in ("s3fs", "aiohttp"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TextError, match=rf"^{url} needs a package that is not installed: .*{package}"):
        find_remote(url)
