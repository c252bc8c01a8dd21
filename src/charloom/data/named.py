"""Named corpora: two are part of every Python installation; the others, in three scripts, are downloaded."""

from __future__ import annotations

import importlib
import logging
import os
import re
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from charloom.config import TextSettings
from charloom.data.reading import FileDocument, Notify, open_document
from charloom.data.sources import CHUNK, BinaryFile, Source, find_source, reason
from charloom.errors import TextError

RAW_GITHUB = "https://raw.githubusercontent.com"
TIMEOUT = 30  # seconds without data
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
UNDERLINES = re.compile(r"^([*=\-~^\"])\1{2,}\n", re.MULTILINE)
TABLE_ROWS = re.compile(r"^ *[|+].*[|+]\n", re.MULTILINE)
RELATED = re.compile(r"\n*^Related help topics:.*\n*\Z", re.MULTILINE)


@dataclass(frozen=True)
class RemoteCorpus:
    """A corpus in a public GitHub repository. path: after `RAW_GITHUB`; sha256, size: expected values of the file."""

    name: str
    path: str
    sha256: str
    size: int
    description: str


@dataclass(frozen=True)
class CorpusEntry:
    """A line of `charloom corpora`. size: in bytes, None if this installation lacks the corpus."""

    name: str
    description: str
    size: int | None
    origin: str


@dataclass(frozen=True)
class TextDocument:
    """A document in memory."""

    name: str
    text: str

    def chunks(self, size: int = CHUNK) -> Iterator[str]:
        """The text, `size` characters at a time."""
        return (self.text[start : start + size] for start in range(0, len(self.text), size))


REMOTE_CORPORA = (
    RemoteCorpus(
        "alice",
        "nlp100/nlp100.github.io/49ebefb8b924c3dc81a8811be3eb70ff88f25a32/data/alice.txt",
        "8b8d36f2187e4782567dcf13dfd2b1ee75da695310844c7f6b98b091d682898d",
        147_881,
        "Alice's Adventures in Wonderland, the corpus of many Keras lessons",
    ),
    RemoteCorpus(
        "tiny-shakespeare",
        "karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        1_115_394,
        "40,000 lines of Shakespeare's plays, the corpus of char-rnn and nanoGPT",
    ),
    RemoteCorpus(
        "anna-karenina",
        "udacity/deep-learning-v2-pytorch/master/recurrent-neural-networks/char-rnn/data/anna.txt",
        "568bb39fc78aca98e9db91c4329dcd1aa5ec4c3df3aca2064ce5d6f023ae16c9",
        2_025_486,
        "Tolstoy's novel in English, the corpus of many PyTorch lessons",
    ),
    RemoteCorpus(
        "shooting-party",
        "d0rj/RusLit/4509680428729da225a73a22008133660f92bb7e/prose/Chekhov/Драма на охоте.txt",
        "1016ec4b671d85b9ac4e73466e245728b351229112c86012ba370eb3b652a618",
        610_241,
        "Russian: Chekhov's novel",
    ),
    RemoteCorpus(
        "red-chamber",
        "tennessine/corpus/c5ce96aca36c6a3cb4da5f0ff7d2d5fa30c32aea/红楼梦.txt",
        "5eca888fb54188d644df70fa555dd3c9cbdd3a8d7b3034fb59f7a81e16f05dc7",
        2_522_985,
        "Chinese: Dream of the Red Chamber, 4,500 different characters",
    ),
)
NAMES = ("python-docs", "python-source", *(remote.name for remote in REMOTE_CORPORA))
Documents = tuple[FileDocument | TextDocument, ...]


def listing() -> list[CorpusEntry]:
    """Every named corpus; nothing is downloaded."""
    docs = sum(len(document.text.encode()) for document in python_docs()) or None
    source = sum(path.stat().st_size for path in python_files()) or None
    return [
        CorpusEntry("python-docs", "English: the reference of the Python language", docs, "this Python (pydoc_data)"),
        CorpusEntry("python-source", "code: Python's standard library", source, "this Python (standard library)"),
        *(CorpusEntry(r.name, r.description, r.size, f"{RAW_GITHUB}/{quote(r.path)}") for r in REMOTE_CORPORA),
    ]


def open_named(name: str, settings: TextSettings, notice: Notify, size: int = CHUNK) -> Documents:
    """The documents of a named corpus. All are UTF-8, so the encoding of the settings does not apply.

    If the installation lacks `python-docs` or `python-source`, the other one is used, with a notice.

    Raises:
        TextError: the installation has neither, or the corpus cannot be fetched.
    """
    settings = settings.model_copy(update={"encoding": "utf-8", "errors": "strict"})
    for remote in REMOTE_CORPORA:
        if remote.name == name:
            source = find_source(str(fetch(remote, notice)))
            return (open_document(source, settings, notice, size),)
    for other in (name, "python-source" if name == "python-docs" else "python-docs"):
        documents = _source_documents(python_files(), settings, size) if other == "python-source" else python_docs()
        if documents:
            if other != name:
                notice(f"this Python installation lacks {name}; using {other} instead")
            return documents
    raise TextError("this Python installation lacks both its language reference and the source of its standard library")


@cache
def _topics() -> Mapping[str, str]:
    try:
        return dict(importlib.import_module("pydoc_data.topics").topics)
    except (ImportError, AttributeError):  # minimal and embedded Pythons lack it
        return {}


def python_docs(topics: Mapping[str, str] | None = None) -> tuple[TextDocument, ...]:
    """Each topic of `help()`, a chapter of the reference, without underlines, tables and links."""
    topics = _topics() if topics is None else topics
    texts = (
        (name, RELATED.sub("", TABLE_ROWS.sub("", UNDERLINES.sub("", topics[name]))).strip()) for name in sorted(topics)
    )
    return tuple(TextDocument(name, text + "\n\n") for name, text in texts if text)


def python_files(library: Path | None = None) -> list[Path]:
    """The standard library's `.py` files, sorted, without its tests and without installed packages."""
    found: list[Path] = []
    for parent, folders, files in os.walk(library or sysconfig.get_path("stdlib")):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        found += [Path(parent, name) for name in files if name.endswith(".py")]
    return sorted(found)


def _source_documents(files: list[Path], settings: TextSettings, size: int) -> Documents:
    documents = []
    for file in files:
        try:
            documents.append(open_document(Source(file.name, file), settings, size=size))
        except BinaryFile:
            continue
        except TextError:  # PEP 263 allows other encodings than UTF-8; few modules use one
            continue
    return tuple(documents)


def cache_folder() -> Path:
    """The folder of downloaded corpora: `CHARLOOM_CACHE`, or the user's cache folder."""
    if folder := os.environ.get("CHARLOOM_CACHE"):
        return Path(folder)
    return Path(_pooch().os_cache("charloom"))


def fetch(remote: RemoteCorpus, notice: Notify, folder: Path | None = None, base: str = RAW_GITHUB) -> Path:
    """The cached file of a corpus; downloaded first if it is missing or has another SHA-256.

    Args:
        remote: the corpus.
        notice: called before a download begins.
        folder: the cache; by default `cache_folder()`.
        base: the server, without a slash at its end.

    Raises:
        TextError: no network, a lost connection, a wrong SHA-256, or a cache that cannot be written. The cache then
            has no part of the file.
    """
    pooch, folder = _pooch(), folder or cache_folder()
    url, target = f"{base}/{quote(remote.path)}", folder / f"{remote.name}.txt"
    try:
        if target.exists() and pooch.file_hash(str(target)) == remote.sha256:
            return target
        _make_folder(folder)
        notice(f"fetching {remote.name} ({remote.size / 1e6:.1f} MB) from {url}")
        pooch.retrieve(url, f"sha256:{remote.sha256}", target.name, folder, downloader=_download)
    except TextError:
        raise
    except ValueError:  # pooch raises it for a wrong hash
        raise TextError(
            f"{remote.name} must have the SHA-256 that charloom knows; {url} sent another file; try again later"
        ) from None
    except Exception as error:  # any error of requests, urllib3 or the file system
        raise TextError(
            f"{remote.name} cannot be fetched from {url} into {folder}: {reason(_first(error))}; "
            "python-docs and python-source need no network"
        ) from None
    return target


def _make_folder(folder: Path) -> None:
    """Makes the cache, and checks that it can be written before anything is downloaded.

    Raises:
        TextError: if it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise TextError(
            f"downloaded corpora are stored in {folder}, which cannot be written: {error.strerror}; "
            "set CHARLOOM_CACHE to a folder that can be written"
        ) from None


def _download(url: str, output_file: str, _pooch: object) -> None:
    """The downloader for pooch. Pooch's own leaves the connection open if the server ends it early."""
    requests = importlib.import_module("requests")
    with requests.get(url, stream=True, timeout=TIMEOUT) as response, open(output_file, "wb") as file:
        response.raise_for_status()
        file.writelines(response.iter_content(CHUNK))


def _first(error: BaseException) -> BaseException:
    """The first error of a chain: urllib3 wraps `Connection refused` in 400 characters."""
    inner = error.__cause__ or error.__context__
    return _first(inner) if inner else error


def _pooch() -> Any:
    """The module pooch. It is imported on use, because its import takes longer than that of all of charloom."""
    try:
        pooch = importlib.import_module("pooch")
    except ImportError:
        raise TextError("fetching a corpus needs the package pooch; install it with: pip install pooch") from None
    pooch.get_logger().setLevel(logging.CRITICAL)  # our notice and our errors say the same
    return pooch
