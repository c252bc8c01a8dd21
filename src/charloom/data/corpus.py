"""Files, folders, globs, URLs, named corpora and texts in memory → one clean text that can be read many times.

Documents (one for each file or value) → text or records (`records.py`) → cleaning. Records are split first, so that
`newlines_to_spaces` changes newlines inside a paragraph and not between two.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from charloom.config import Cleaning, TextSettings
from charloom.data import named
from charloom.data.cleaning import RemovalCount, cleaned
from charloom.data.fields import FIELD_ENDINGS, FIELD_FILES, SHOWN_FIELDS, FieldDocument, MissingField
from charloom.data.folders import FoundFiles, in_folder, literal_folder, matching
from charloom.data.named import TextDocument
from charloom.data.packed import PackedText
from charloom.data.reading import FileDocument, Notify, ignore, open_document
from charloom.data.records import gathered, joined, lines, paragraphs, sentences, separated, tidied
from charloom.data.sources import (
    CHUNK,
    COMPRESSIONS,
    BinaryFile,
    Source,
    UnreadableFile,
    compression_of,
    find_source,
    place,
    share,
    shown_path,
)
from charloom.data.texts import Texts
from charloom.data.urls import RemoteFile, check_open_files, find_remote
from charloom.errors import SettingsError, TextError
from charloom.files import AnyPath, checked_path

Document = FileDocument | FieldDocument | TextDocument
SPLITTERS = {"line": lines, "sentence": sentences, "paragraph": paragraphs}
SHOWN_NOTICES = 3  # lines about single files of a folder
LARGE = 10**9  # bytes of a file; a notice says that it takes long, because nothing else is shown until it is read


@dataclass(frozen=True)
class Corpus:
    """The text to train on or to score. It can be read many times.

    name: short, and valid as a folder's name; documents: the sources of the text; settings: field, records and
    cleaning; size: characters in a chunk, about; notice: called after the first whole reading, with what was left out.
    """

    name: str
    documents: tuple[Document, ...] = field(repr=False)
    settings: TextSettings
    size: int = CHUNK
    notice: Notify = field(default=ignore, repr=False, compare=False)
    _noticed: set[str] = field(default_factory=set, repr=False, compare=False)

    @property
    def shown(self) -> str:
        """For messages: the only document, as the user named it; of several, the short name."""
        return self.documents[0].name if len(self.documents) == 1 else self.name

    def chunks(self) -> Iterator[str]:
        """The clean text from its start, in chunks that are cut anywhere.

        Without records, a newline separates two documents. With records, `RECORD_SEPARATOR` is before the first record,
        between any two, and after the last. No record is empty or has newlines at its ends.

        Raises:
            TextError: a file changed since it was opened, a row of a file with fields is invalid, or no row has the
                field.
        """
        removed, missed = RemovalCount(), MissingField()
        yield from self._chunks(removed, missed)
        if missed.rows and not missed.found:
            raise TextError(missed.first)
        if missed.rows:
            self._notice_once(f"skipped {_counted(missed.rows, 'row')} without the field; the first: {missed.first}")
        if self.settings.allow is not None:
            self._notice_once(
                f"{share(removed.characters, removed.of)} of the text is removed: {removed.characters:,} of "
                f"{removed.of:,} characters are not in `allow`"
            )

    def _notice_once(self, line: str) -> None:
        if line not in self._noticed:
            self._noticed.add(line)
            self.notice(line)

    def _chunks(self, removed: RemovalCount, missed: MissingField) -> Iterator[str]:
        kind = self.settings.records
        if kind == "none":
            return cleaned(gathered(joined(self._documents(missed)), self.size), self.settings.cleaning, removed)
        chunks = gathered(separated(self._documents(missed)), self.size)
        if kind in SPLITTERS:
            chunks = SPLITTERS[kind](chunks)
        chunks, cleaning = tidied(chunks), self.settings.cleaning
        # Tidied twice: first, newlines around a record are removed before they can become spaces. Then cleaning may
        # leave a record empty.
        return chunks if cleaning == Cleaning() else tidied(cleaned(chunks, cleaning, removed))

    def text(self) -> str:
        """The whole text as one string, for corpora that fit in memory."""
        return "".join(self.chunks())

    def _documents(self, missed: MissingField) -> Iterator[Iterable[str]]:
        """The texts that a newline or a separator separates: files, or the values of their field."""
        for document in self.documents:
            if not isinstance(document, FieldDocument):
                yield document.chunks(self.size)
            elif self.settings.records == "file":
                yield joined([value] for value in document.values(missed, self.size))
            else:
                yield from ([value] for value in document.values(missed, self.size))


def open_corpus(
    source: AnyPath | Sequence[AnyPath] | Texts,
    settings: TextSettings | None = None,
    notice: Notify = ignore,
    size: int = CHUNK,
) -> Corpus:
    """Finds and checks every document that the paths name; texts in memory are documents too.

    A path is `-` (stdin), a file, a folder (all its files, sorted, without hidden ones), the name of a named corpus, a
    glob (`**` for any depth), or a URL of a file, a folder or a glob. A file or folder with the name of a corpus is
    read instead of the corpus, with a notice; a path with a slash, such as `./python-docs`, is never a corpus. A file
    that is not text is an error if a path names it. In a folder or a glob it is skipped, with one notice.

    Args:
        source: a path, several paths, or texts.
        settings: encoding, vocabulary, binary (see `open_document`), field, records and cleaning.
        notice: called with one line for each fact that the user should know: guessed encodings, skipped files.
        size: bytes a chunk.

    Raises:
        SettingsError: no path, an unknown encoding, a field of a file that has none, or a setting that does not apply
            with texts.
        TextError: a path is missing, unreadable or undecodable, or has no text.
    """
    settings = settings or TextSettings()
    documents: tuple[Document, ...]
    if isinstance(source, Texts):
        name, documents = source.name, source.documents(settings)
    else:
        name, documents = corpus_name(source), _in_files(_listed(source), settings, notice, size)
    if len(documents) == 1 and settings.records == "file":
        notice(
            f"{documents[0].name} makes one record, and there is no other; give several files or texts, or cut it into "
            "records with `records='line'`, `records='sentence'` or `records='paragraph'`"
        )
    return Corpus(name, documents, settings, size, notice)


def _in_files(names: list[str], settings: TextSettings, notice: Notify, size: int) -> tuple[Document, ...]:
    if names.count("-") > 1:
        raise SettingsError("stdin (-) can be read only once; name it once")
    opener = _Opener(settings, notice, size)
    return tuple(document for path in names for document in opener.open(path))


def corpus_name(paths: AnyPath | Sequence[AnyPath]) -> str:
    """A short name for the corpus, from the first path; valid as a folder's name.

    `stdin`, the name of a folder (of a glob: the folder before its wildcards), or of a file without its endings.
    """
    name = _name_of(_listed(paths)[0])
    return re.sub(r"[^\w.-]+", "-", name)[:60].strip("-._") or "text"


def _name_of(path: str) -> str:
    if path == "-":
        return "stdin"
    if "://" in path:
        within = place(path)
        return _stem(literal_folder(within) if "*" in within else within)
    if os.path.isdir(path):
        return os.path.basename(os.path.abspath(path))
    if glob.has_magic(path) and not os.path.exists(path):
        return os.path.basename(os.path.abspath(literal_folder(path)))
    return _stem(os.path.basename(path))


def _listed(paths: AnyPath | Sequence[AnyPath]) -> list[str]:
    given = paths if isinstance(paths, list | tuple) else [paths]
    if not given:
        raise SettingsError("a corpus needs at least one file, folder, glob, URL or named corpus")
    return [checked_path(path, "paths") for path in given]


@dataclass(frozen=True)
class _Opener:
    settings: TextSettings
    notice: Notify
    size: int

    def open(self, path: str) -> Iterable[Document]:
        exists = os.path.lexists(path) if "\0" not in path else False
        if path in named.NAMES:
            if not exists:
                return self._named(path)
            self.notice(f"reading {path} in this folder, not the named corpus {path}")
        if os.path.isdir(path):
            return self._many(path, in_folder(path), "the folder")
        if "://" in path:
            return self._remote(path)
        if not exists and path != "-":
            if glob.has_magic(path):
                return self._glob(path)
            known = ", ".join(named.NAMES)
            raise TextError(f"{shown_path(path)}: no such file or folder; the named corpora are {known}")
        return [self._file(self._found(path), self.notice)]

    def _named(self, name: str) -> Iterable[Document]:
        if self.settings.field is not None:
            raise SettingsError(f"`field` is for {FIELD_FILES}; the corpus {name} has no fields")
        return named.open_named(name, self.settings, self.notice, self.size)

    def _glob(self, pattern: str) -> Iterable[Document]:
        found = matching(pattern)
        if not found.files and not found.ours:
            raise TextError(f"no file matches {shown_path(pattern)}")
        return self._many(pattern, found, "the glob")

    def _remote(self, url: str) -> Iterable[Document]:
        found = find_remote(url)
        if isinstance(found, RemoteFile):
            return [self._file(self._fetched(found), self.notice)]
        files = {file.name: file for file in found.files}
        if not files and not found.ours:
            raise TextError(f"no file matches {shown_path(url)}")
        check_open_files(len(self._fitting([*files])), url)
        return self._many(url, FoundFiles([*files], found.ours), "the URL", lambda name: self._fetched(files[name]))

    def _found(self, path: str) -> Source:
        source = find_source(path)
        self._tell_size(source.name, source.size, "")
        return source

    def _fetched(self, file: RemoteFile) -> Source:
        return file.copied(lambda size: self._tell_size(file.name, size, " after the copy"))

    def _tell_size(self, name: str, size: int, after: str) -> None:
        """Gives a notice about a large file. The time for a compressed one depends on its size when unpacked."""
        if size >= LARGE:
            takes = "compressed" if compression_of(name) else f"each GB takes 15 to 70 seconds{after}"
            self.notice(f"reading {shown_path(name)}: {size / 1e9:,.1f} GB; {takes}")

    def _file(self, source: Source, notice: Notify) -> Document:
        if self.settings.field is not None and source.ending not in FIELD_ENDINGS:
            raise SettingsError(f"`field` is for {FIELD_FILES}; {source.shown} is none of these")
        document = open_document(source, self.settings, notice, self.size)
        if self.settings.field is not None:
            return FieldDocument(document, self.settings.field)
        if source.ending in FIELD_ENDINGS and not self.settings.binary:
            _hint(document, notice)
        return document

    def _many(
        self, where: str, found: FoundFiles, kind: str, find: Callable[[str], Source] | None = None
    ) -> list[Document]:
        """The documents in many files; notices report skipped files."""
        self._tell_ours(where, found, kind)
        documents, notices, unfit = [], [*found.notices], len(found.files)
        for path in self._fitting(found.files):
            try:
                documents.append(self._file((find or self._found)(path), notices.append))
            except UnreadableFile as error:
                notices.append(f"{error}; skipped")
            except PackedText as error:
                notices.append(str(error))
                continue
            except BinaryFile:
                continue
            unfit -= 1
        self._tell(where, notices)
        wanted = "a text file" if self.settings.field is None else f"one of the {FIELD_FILES}"
        if not documents:
            number = _counted(len(found.files), "file")
            raise TextError(
                f"{kind} {shown_path(where)} holds no text: none of its {number} is {wanted} that can be read"
            )
        if unfit:
            self.notice(f"{shown_path(where)}: skipped {_counted(unfit, 'file')}, not {wanted}")
        return documents

    def _tell_ours(self, where: str, found: FoundFiles, kind: str) -> None:
        if not found.ours:
            return
        more = ", …" if len(found.ours) > SHOWN_NOTICES else ""
        ours = f"a run or a model of charloom: {', '.join(map(shown_path, found.ours[:SHOWN_NOTICES]))}{more}"
        if not found.files:
            raise TextError(f"{kind} {shown_path(where)} contains only {ours}; name a file in it to read that file")
        self.notice(f"{shown_path(where)}: skipped {_counted(len(found.ours), 'folder')} with {ours}")

    def _fitting(self, paths: list[str]) -> list[str]:
        if self.settings.field is None:
            return paths
        return [path for path in paths if _without_compression(path).lower().endswith(FIELD_ENDINGS)]

    def _tell(self, where: str, notices: list[str]) -> None:
        for line in notices[:SHOWN_NOTICES]:
            self.notice(line)
        if (more := len(notices) - SHOWN_NOTICES) > 0:
            self.notice(f"{shown_path(where)}: {more:,} more notices like these")


def _hint(document: FileDocument, notice: Notify) -> None:
    """Gives a notice about fields if none was chosen; a `.json` file without rows has no fields."""
    if names := FieldDocument(document, "").names():
        shown_names = ", ".join(map(repr, names[:SHOWN_FIELDS]))
        notice(f"{document.name} is read as plain text; `field` reads one field only; the fields are {shown_names}")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _stem(name: str) -> str:
    """A file's name without its endings: `notes` of `notes.txt.gz`."""
    return PurePosixPath(_without_compression(PurePosixPath(name).name)).stem


def _without_compression(path: str) -> str:
    ending = PurePosixPath(path).suffix
    return path.removesuffix(ending) if ending.lower() in COMPRESSIONS else path
