"""PDF, word processor files and e-books, which are not text but contain text."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest

from charloom.data.packed import PackedText, refuse_packed
from charloom.data.sources import find_source
from charloom.errors import TextError


def archive(**files: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        for name, text in files.items():
            made.writestr(name.replace("__", "/").replace("_", "."), text)
    return data.getvalue()


WORD = archive(word__document_xml="<w/>")
BOOK = archive(mimetype="application/epub+zip")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("my book.pdf", b"%PDF-1.7\n", "is a PDF file, not plain text; .*: pdftotext 'my book.pdf' 'my book.txt'$"),
        ("book", b"%PDF-1.7\n", "book is a PDF file, .*: pdftotext book book.txt$"),
        ("a.docx", WORD, "a.docx is a Word document, .*: pandoc a.docx --to plain --output a.txt$"),
        ("a.docx", b"", "a Word document"),
        ("a.txt", WORD, "a Word document"),
        ("a.docx.gz", gzip.compress(WORD), "a Word document"),
        ("a.EPUB", BOOK, "an e-book"),
        ("a", BOOK, "an e-book"),
        ("a.odt", archive(mimetype="application/vnd.oasis.opendocument.text"), "an OpenDocument text"),
        ("a.rtf", b"{\\rtf1 text}", "an RTF document"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # archives contain their time of creation
)  # fmt: skip
def test_each_kind_says_how_to_get_its_text_out(tmp_path: Path, monkeypatch, name: str, data: bytes, says: str):
    """Catches an error for a book that only says "looks binary", and a book in ASCII codes that is learned as text."""
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(data)
    with pytest.raises(PackedText, match=says):
        refuse_packed(find_source(name))


@pytest.mark.parametrize(
    "data", [b"", b"PK", archive(a="b"), WORD[:40], BOOK[:-9], b"PK\x03\x04" + bytes(99), b"text"], ids=range(7)
)
def test_other_files_pass(tmp_path: Path, data: bytes):
    """Catches a traceback for a damaged archive."""
    (tmp_path / "a.txt").write_bytes(data)
    refuse_packed(find_source(str(tmp_path / "a.txt")))


def test_what_came_through_a_pipe_has_no_name_to_give(monkeypatch):
    """Catches advice to extract the text of a file named stdin."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"%PDF-1.7")))
    with pytest.raises(TextError, match=r"stdin is a PDF file, .*: pdftotext my.pdf my.pdf.txt$"):
        refuse_packed(find_source("-"))
