"""The texts inside a `.jsonl` or `.csv` file: one field of each line, or one column."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from charloom.errors import TextError
from charloom.text.reading import FileDocument, unix_newlines
from charloom.text.sources import PIECE

FIELD_ENDINGS = (".jsonl", ".csv")
# "\ud800" is legal JSON and no character; in binary text, U+DC80 to U+DCFF stand for bytes and stay.
LONE_SURROGATES = re.compile("[\ud800-\udfff]")
LONE_BUT_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
SHOWN_FIELDS = 20  # of a table with thousands of columns, in an error


@dataclass(frozen=True)
class FieldDocument:
    """The values of one field of a file, in order; empty ones and JSON's null are left out."""

    file: FileDocument
    field: str

    def values(self, size: int = PIECE) -> Iterator[str]:
        """Each text; line ends are LF unless the file keeps its own.

        Raises:
            TextError: names file and line, and the fields or columns there are: the field is missing or no text, or
                the line is not JSON or CSV.
        """
        pieces = self.file.pieces(size)
        values = self._csv(pieces) if self.file.source.ending == ".csv" else self._jsonl(pieces)
        for value in filter(None, values):
            yield value if self.file.keep_newlines or "\r" not in value else "".join(unix_newlines([value]))

    def _jsonl(self, pieces: Iterable[str]) -> Iterator[str]:
        surrogates = LONE_BUT_BYTES if self.file.binary else LONE_SURROGATES
        for number, line in enumerate(_lines(pieces), 1):
            if not line.isspace():
                value = self._value(line, number)
                yield value if value.isascii() else surrogates.sub("\ufffd", value)

    def _value(self, line: str, number: int) -> str:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._error(number, f"is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise self._error(number, f"must hold an object; found {type(row).__name__}")
        if self.field not in row:
            raise self._missing(number, "field", [*row])
        value = row[self.field]
        if not isinstance(value, str | None):
            raise self._error(number, f"must have text in field {self.field!r}; found {type(value).__name__}")
        return value or ""

    def _csv(self, pieces: Iterable[str]) -> Iterator[str]:
        csv.field_size_limit(2**31 - 1)  # Python's own limit, 128 KiB, is shorter than many a text; 2³¹ fits any C long
        rows = csv.reader(_lines(pieces), strict=True)
        try:
            header = next(rows, [])
            if self.field not in header:
                raise self._missing(max(rows.line_num, 1), "column", header)
            column = header.index(self.field)
            for row in filter(None, rows):
                if len(row) <= column:
                    raise self._error(rows.line_num, f"has {len(row)} columns; {self.field!r} is column {column + 1}")
                yield row[column]
        except csv.Error as error:
            raise self._error(rows.line_num, f"is not CSV: {error}") from None

    def _missing(self, number: int, kind: str, names: list[str]) -> TextError:
        there = ", ".join(map(repr, names[:SHOWN_FIELDS])) + (", …" if len(names) > SHOWN_FIELDS else "")
        return self._error(number, f"has no {kind} {self.field!r}; it has {there or 'none'}")

    def _error(self, number: int, found: str) -> TextError:
        return TextError(f"{self.file.name}, line {number:,} {found}")


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """Lines with their LF, which alone ends one: JSON and CSV may hold every other line separator inside a text."""
    begun: list[str] = []
    for piece in pieces:
        *whole, rest = piece.split("\n")
        for line in whole:
            yield "".join([*begun, line, "\n"])
            begun.clear()
        begun.append(rest)
    if last := "".join(begun):
        yield last
