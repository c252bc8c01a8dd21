"""Named corpora: two that every Python installation carries, and others, in three alphabets, fetched on demand."""

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
from charloom.data.reading import FileDocument, Notice, open_document
from charloom.data.sources import PIECE, BinaryFile, Source, find_source, reason
from charloom.errors import TextError

RAW_GITHUB = "https://raw.githubusercontent.com"
TIMEOUT = 30  # seconds without a byte
TESTS_AND_GUESTS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
UNDERLINES = re.compile(r"^([*=\-~^\"])\1{2,}\n", re.MULTILINE)
TABLE_ROWS = re.compile(r"^ *[|+].*[|+]\n", re.MULTILINE)
RELATED = re.compile(r"\n*^Related help topics:.*\n*\Z", re.MULTILINE)


@dataclass(frozen=True)
class Remote:
    """A file of a public GitHub repository: its path behind `RAW_GITHUB`, and what it must be."""

    name: str
    path: str
    sha256: str
    size: int
    description: str


@dataclass(frozen=True)
class Listed:
    """A line of `charloom corpora`; size is in bytes, None where the installation lacks the corpus."""

    name: str
    description: str
    size: int | None
    origin: str


@dataclass(frozen=True)
class TextDocument:
    """One text of a corpus that is in memory already."""

    name: str
    text: str

    def pieces(self, size: int = PIECE) -> Iterator[str]:
        """The text, `size` characters at a time."""
        return (self.text[start : start + size] for start in range(0, len(self.text), size))


REMOTES = (
    Remote(
        "alice",
        "nlp100/nlp100.github.io/49ebefb8b924c3dc81a8811be3eb70ff88f25a32/data/alice.txt",
        "8b8d36f2187e4782567dcf13dfd2b1ee75da695310844c7f6b98b091d682898d",
        147_881,
        "Alice's Adventures in Wonderland, the corpus of many Keras lessons",
    ),
    Remote(
        "tiny-shakespeare",
        "karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        1_115_394,
        "40,000 lines of Shakespeare's plays, the corpus of char-rnn and nanoGPT",
    ),
    Remote(
        "anna-karenina",
        "udacity/deep-learning-v2-pytorch/master/recurrent-neural-networks/char-rnn/data/anna.txt",
        "568bb39fc78aca98e9db91c4329dcd1aa5ec4c3df3aca2064ce5d6f023ae16c9",
        2_025_486,
        "Tolstoy's novel in English, the corpus of many PyTorch lessons",
    ),
    Remote(
        "shooting-party",
        "d0rj/RusLit/4509680428729da225a73a22008133660f92bb7e/prose/Chekhov/Драма на охоте.txt",
        "1016ec4b671d85b9ac4e73466e245728b351229112c86012ba370eb3b652a618",
        610_241,
        "Russian: Chekhov's novel",
    ),
    Remote(
        "red-chamber",
        "tennessine/corpus/c5ce96aca36c6a3cb4da5f0ff7d2d5fa30c32aea/红楼梦.txt",
        "5eca888fb54188d644df70fa555dd3c9cbdd3a8d7b3034fb59f7a81e16f05dc7",
        2_522_985,
        "Chinese: Dream of the Red Chamber, 4,500 different characters",
    ),
)
NAMES = ("python-docs", "python-source", *(remote.name for remote in REMOTES))
Documents = tuple[FileDocument | TextDocument, ...]


def listing() -> list[Listed]:
    """Every named corpus, without fetching any."""
    docs = sum(len(document.text.encode()) for document in python_docs()) or None
    source = sum(path.stat().st_size for path in python_files()) or None
    return [
        Listed("python-docs", "English: the reference of the Python language", docs, "this Python (pydoc_data)"),
        Listed("python-source", "code: Python's standard library", source, "this Python (standard library)"),
        *(Listed(r.name, r.description, r.size, f"{RAW_GITHUB}/{quote(r.path)}") for r in REMOTES),
    ]


def open_named(name: str, settings: TextSettings, notice: Notice, size: int = PIECE) -> Documents:
    """The documents of a named corpus; all are UTF-8, so the settings' encoding is that of other files.

    Where an installation lacks `python-docs` or `python-source`, the other one is used, and `notice` is told.

    Raises:
        TextError: the installation has neither, or a corpus cannot be fetched.
    """
    settings = settings.model_copy(update={"encoding": "utf-8", "errors": "strict"})
    for remote in REMOTES:
        if remote.name == name:
            source = find_source(str(fetch(remote, notice)))
            return (open_document(source, settings, notice, size),)
    for other in (name, "python-source" if name == "python-docs" else "python-docs"):
        documents = _source_documents(python_files(), settings, size) if other == "python-source" else python_docs()
        if documents:
            if other != name:
                notice(f"this Python installation lacks {name}; using {other} instead")
            return documents
    raise TextError("this Python installation carries neither its language reference nor its standard library's source")


@cache
def _topics() -> Mapping[str, str]:
    try:
        return dict(importlib.import_module("pydoc_data.topics").topics)
    except (ImportError, AttributeError):  # minimal and embedded Pythons leave it out
        return {}


def python_docs(topics: Mapping[str, str] | None = None) -> tuple[TextDocument, ...]:
    """Each topic of `help()` that stands for a chapter of the reference, without underlines, tables and links."""
    topics = _topics() if topics is None else topics
    texts = (
        (name, RELATED.sub("", TABLE_ROWS.sub("", UNDERLINES.sub("", topics[name]))).strip()) for name in sorted(topics)
    )
    return tuple(TextDocument(name, text + "\n\n") for name, text in texts if text)


def python_files(library: Path | None = None) -> list[Path]:
    """The standard library's `.py` files, sorted; not its tests, nor what was installed beside it."""
    found: list[Path] = []
    for parent, folders, files in os.walk(library or sysconfig.get_path("stdlib")):
        folders[:] = [name for name in folders if name not in TESTS_AND_GUESTS]
        found += [Path(parent, name) for name in files if name.endswith(".py")]
    return sorted(found)


def _source_documents(files: list[Path], settings: TextSettings, size: int) -> Documents:
    documents = []
    for file in files:
        try:
            documents.append(open_document(Source(file.name, file), settings, size=size))
        except BinaryFile:
            continue
        except TextError:  # PEP 263 allows a module another encoding than UTF-8; a handful is no loss
            continue
    return tuple(documents)


def cache_folder() -> Path:
    """Where fetched corpora are kept: `CHARLOOM_CACHE`, or the user's cache folder."""
    if folder := os.environ.get("CHARLOOM_CACHE"):
        return Path(folder)
    return Path(_pooch().os_cache("charloom"))


def fetch(remote: Remote, notice: Notice, folder: Path | None = None, base: str = RAW_GITHUB) -> Path:
    """The cached file of a corpus, downloaded first where it is not there or not what it must be.

    Args:
        remote: which.
        notice: told before a download begins.
        folder: the cache; by default `cache_folder()`.
        base: the server, without a slash at its end.

    Raises:
        TextError: no network, a cut connection, a wrong SHA-256, or a cache that cannot be written. Nothing of it stays
            in the cache.
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
    except ValueError:  # pooch's own for a wrong hash
        raise TextError(
            f"{remote.name} was not kept: what {url} sent has another SHA-256 than it must have; try again later"
        ) from None
    except Exception as error:  # whatever requests, urllib3 or the file system find
        raise TextError(
            f"{remote.name} cannot be fetched from {url} into {folder}: {reason(error)}; "
            "python-docs and python-source need no network"
        ) from None
    return target


def _make_folder(folder: Path) -> None:
    """Makes the cache, before anything is fetched that could not be kept.

    Raises:
        TextError: if it cannot be made, or not be written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise TextError(
            f"fetched corpora are kept in {folder}, which cannot be written: {error.strerror}; "
            "set CHARLOOM_CACHE to a folder that can"
        ) from None


def _download(url: str, output_file: str, _pooch: object) -> None:
    """What pooch calls to download. Its own downloader leaves the connection open where the server breaks off."""
    requests = importlib.import_module("requests")
    with requests.get(url, stream=True, timeout=TIMEOUT) as response, open(output_file, "wb") as file:
        response.raise_for_status()
        file.writelines(response.iter_content(PIECE))


def _pooch() -> Any:
    """The module, only where it is needed: importing it takes longer than all of ours."""
    try:
        pooch = importlib.import_module("pooch")
    except ImportError:
        raise TextError("fetching a corpus needs the package pooch; install it with: pip install pooch") from None
    pooch.get_logger().setLevel(logging.CRITICAL)  # what it tells, our notice and our errors tell
    return pooch
