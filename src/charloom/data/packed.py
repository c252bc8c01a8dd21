"""Files that hold text but are none: PDF, word processors, e-books. An error says which program gets the text out."""

from __future__ import annotations

import shlex
import zipfile
from pathlib import PurePosixPath

from charloom.data.sources import BinaryFile, Source, Spool

PANDOC = "pandoc {file} --to plain --output {text}"
KINDS = {
    ".pdf": ("a PDF file", "pdftotext {file} {text}"),
    ".docx": ("a Word document", PANDOC),
    ".odt": ("an OpenDocument text", PANDOC),
    ".epub": ("an e-book (EPUB)", PANDOC),
    ".rtf": ("an RTF document", PANDOC),
}
"""By ending: what it is, and the command that gets its text out."""

STARTS = {b"%PDF-": ".pdf", b"{\\rtf": ".rtf"}
ZIP_START = b"PK\x03\x04"
MIMETYPES = {b"application/epub+zip": ".epub", b"application/vnd.oasis.opendocument.text": ".odt"}


class PackedText(BinaryFile):
    """A file out of which another program can get text; folders skip it, and say so."""


def refuse_packed(source: Source) -> None:
    """Lets all other files pass.

    Raises:
        PackedText: for a file of one of the `KINDS`, by its contents or its ending.
    """
    ending = _by_contents(source) or source.ending
    if ending in KINDS:
        kind, command = KINDS[ending]
        name = f"my{ending}" if isinstance(source.place, Spool) else PurePosixPath(source.name).name
        text = name.removesuffix(source.ending) + ".txt"
        raise PackedText(
            f"{source.shown} is {kind}, not plain text; get its text out of it first: "
            + command.format(file=shlex.quote(name), text=shlex.quote(text))
        )


def _by_contents(source: Source) -> str | None:
    """The ending that a file should have; None for what is not among the `KINDS`."""
    head = source.sample(0, 5)
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
    except Exception:  # damaged, encrypted or of another kind: whatever it is, it is refused as binary later
        return None
