"""Files from which another program extracts text: PDF, word processor files, e-books. The error names the program."""

from __future__ import annotations

import shlex
import zipfile
from pathlib import PurePosixPath

from charloom.data.sources import BinaryFile, Source, Spool

PANDOC = "pandoc {file} --to plain --output {text}"
PACKED_FORMATS = {
    ".pdf": ("a PDF file", "pdftotext {file} {text}"),
    ".docx": ("a Word document", PANDOC),
    ".odt": ("an OpenDocument text", PANDOC),
    ".epub": ("an e-book (EPUB)", PANDOC),
    ".rtf": ("an RTF document", PANDOC),
}
"""For each ending: what the file is, and the command that extracts its text."""

STARTS = {b"%PDF-": ".pdf", b"{\\rtf": ".rtf"}
ZIP_START = b"PK\x03\x04"
MIMETYPES = {b"application/epub+zip": ".epub", b"application/vnd.oasis.opendocument.text": ".odt"}


class PackedText(BinaryFile):
    """A file from which another program can extract text; skipped in folders, with a notice."""


def refuse_packed(source: Source) -> None:
    """Checks by content and ending that a file is in none of the `PACKED_FORMATS`.

    Raises:
        PackedText: if it is one.
    """
    ending = _by_contents(source) or source.ending
    if ending in PACKED_FORMATS:
        kind, command = PACKED_FORMATS[ending]
        name = f"my{ending}" if isinstance(source.place, Spool) else PurePosixPath(source.name).name
        text = name.removesuffix(source.ending) + ".txt"
        raise PackedText(
            f"{source.shown} is {kind}, not plain text; extract its text first: "
            + command.format(file=shlex.quote(name), text=shlex.quote(text))
        )


def _by_contents(source: Source) -> str | None:
    """The ending that belongs to the content; None if it is in none of the `PACKED_FORMATS`."""
    head = source.bytes_at(0, 5)
    if head.startswith(ZIP_START):
        return _of_zip(source)
    return next((ending for start, ending in STARTS.items() if head.startswith(start)), None)


def _of_zip(source: Source) -> str | None:
    try:
        with source.opened() as file, zipfile.ZipFile(file) as archive:
            if "word/document.xml" in archive.namelist():
                return ".docx"
            with archive.open("mimetype") as member:
                return MIMETYPES.get(member.read(64).strip())
    except Exception:  # damaged, encrypted or of another format: it is refused later, as binary
        return None
