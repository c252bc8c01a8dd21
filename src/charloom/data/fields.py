"""The texts inside a `.jsonl`, `.json`, `.csv` or `.tsv` file: one field of each row, or one column."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from charloom.data.reading import FileDocument, unix_newlines
from charloom.data.sources import PIECE
from charloom.errors import TextError

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

TABLES = {".csv": ",", ".tsv": "\t"}
"""By ending: what stands between two columns where the first line says nothing else."""

FIELD_ENDINGS = (".jsonl", ".ndjson", ".json", *TABLES)
FIELD_FILES = ".jsonl, .json, .csv and .tsv files"
DELIMITERS = (",", ";", "\t")
# "\ud800" is legal JSON and no character; in binary text, U+DC80 to U+DCFF stand for bytes and stay.
LONE_SURROGATES = re.compile("[\ud800-\udfff]")
LONE_BUT_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
SHOWN_FIELDS = 20  # of a table with thousands of columns, in an error
LARGEST_ELEMENT = 1 << 26  # characters of an array's element: without a limit, what is no JSON is held whole in memory
SIGN = re.compile(r"\s*(\S)\s*")
MISSING = object()


@dataclass
class Missed:
    """Rows without the field so far, over all documents: how many, what the first one has, and whether any has it."""

    rows: int = 0
    first: str = ""
    found: bool = False

    def add(self, rows: int, line: str) -> None:
        """Counts so many more; `line` tells of the first."""
        self.rows += rows
        self.first = self.first or line


@dataclass(frozen=True)
class FieldDocument:
    """The values of one field of a file, in order; empty ones, JSON's null and rows without it are left out.

    field: a key or column; in JSON `user.name` is also the `name` of the object `user`, if no key is called so.
    """

    file: FileDocument
    field: str

    @property
    def name(self) -> str:
        """For messages."""
        return self.file.name

    def values(self, missed: Missed, size: int = PIECE) -> Iterator[str]:
        """Each text; line ends are LF unless the file keeps its own. Rows without the field are counted in `missed`.

        Raises:
            TextError: names file and row: the field holds no text, or the row is not JSON or CSV.
        """
        for value in filter(None, self._table(missed, size) if self._is_table else self._objects(missed, size)):
            yield value if self.file.keep_newlines or "\r" not in value else "".join(unix_newlines([value]))

    def names(self) -> list[str]:
        """The columns, or the fields of the first row; none where the file begins with neither."""
        head = next(self.file.pieces(), "").lstrip()
        if self._is_table:
            line = head.partition("\n")[0]
            return _cells(line, self._sign(line))
        try:
            row = (
                json.JSONDecoder().raw_decode(head[1:].lstrip())[0]
                if head[:1] == "["
                else json.loads(head.partition("\n")[0])
            )
        except (ValueError, RecursionError):
            return []
        return [*row] if isinstance(row, dict) else []

    @property
    def _is_table(self) -> bool:
        return self.file.source.ending in TABLES

    def _objects(self, missed: Missed, size: int) -> Iterator[str]:
        surrogates = LONE_BUT_BYTES if self.file.binary else LONE_SURROGATES
        for where, row in self._rows(size):
            value = self._value(row, where, missed)
            yield value if value.isascii() else surrogates.sub("\ufffd", value)

    def _value(self, row: Any, where: str, missed: Missed) -> str:
        if not isinstance(row, dict):
            raise self._error(where, f"must hold an object; found {type(row).__name__}")
        value = _nested(row, self.field)
        if value is MISSING:
            missed.add(1, self._lacking(where, "field", [*row]))
            return ""
        if not isinstance(value, str | None):
            raise self._error(where, f"must have text in field {self.field!r}; found {type(value).__name__}")
        missed.found = True
        return value or ""

    def _rows(self, size: int) -> Iterator[tuple[str, Any]]:
        """Where it stands, and what it is: each line, or each element of an array."""
        pieces = self.file.pieces(size)
        if self.file.source.ending != ".json":
            return self._parsed_lines(pieces)
        head = next((piece for piece in pieces if not piece.isspace()), "")
        whole = chain([head], pieces)
        return self._parsed_array(whole) if head.lstrip().startswith("[") else self._parsed_lines(whole)

    def _parsed_lines(self, pieces: Iterable[str]) -> Iterator[tuple[str, Any]]:
        for number, line in enumerate(_lines(pieces), 1):
            if not line.isspace():
                where = f"line {number:,}"
                try:
                    yield where, json.loads(line)
                except (ValueError, RecursionError) as error:
                    array = "; .json must be an array of objects, or one object a line"
                    hint = array if self.file.source.ending == ".json" else ""
                    raise self._error(where, f"is not JSON: {error}{hint}") from None

    def _parsed_array(self, pieces: Iterator[str]) -> Iterator[tuple[str, Any]]:
        number = 0
        try:
            for number, row in enumerate(_elements(pieces), 1):
                yield f"element {number:,}", row
        except (ValueError, RecursionError) as error:
            raise self._error(f"element {number + 1:,}", f"is not JSON: {error}") from None

    def _table(self, missed: Missed, size: int) -> Iterator[str]:
        rows = self._cut_rows(_lines(self.file.pieces(size)))
        try:
            header = next(rows, [])
            if self.field not in header:
                line = self._lacking(f"line {max(rows.line_num, 1):,}", "column", header)
                missed.add(max(1, sum(map(bool, rows))), line)
                return
            column, missed.found = header.index(self.field), True
            for row in filter(None, rows):
                if len(row) > column:
                    yield row[column]
                else:
                    missed.add(1, f"{self.file.name}, line {rows.line_num:,} has {len(row)} of {len(header)} columns")
        except csv.Error as error:
            raise self._error(f"line {rows.line_num:,}", f"is not CSV: {error}") from None

    def _cut_rows(self, rows: Iterator[str]) -> CsvReader:
        """The rows, cut at the sign that makes the field a column; else at the commonest one of the first line."""
        csv.field_size_limit(2**31 - 1)  # Python's own limit, 128 KiB, is shorter than many a text; 2³¹ fits any C long
        first = next(rows, "")
        return csv.reader(chain([first] * bool(first), rows), strict=True, delimiter=self._sign(first))

    def _sign(self, line: str) -> str:
        signs = sorted(DELIMITERS, key=lambda sign: (line.count(sign), sign == TABLES[self.file.source.ending]))
        return [*signs, *(sign for sign in signs if self.field in _cells(line, sign))][-1]

    def _lacking(self, where: str, kind: str, names: list[str]) -> str:
        there = ", ".join(map(repr, names[:SHOWN_FIELDS])) + (", …" if len(names) > SHOWN_FIELDS else "")
        return f"{self.file.name}, {where} has no {kind} {self.field!r}; it has {there or 'none'}"

    def _error(self, where: str, found: str) -> TextError:
        return TextError(f"{self.file.name}, {where} {found}")


def _cells(line: str, sign: str) -> list[str]:
    """The cells of one line, if it is a row of a table."""
    try:
        return next(csv.reader([line], strict=True, delimiter=sign), [])
    except csv.Error:
        return []


def _nested(row: Any, field: str) -> Any:
    """The value under a key; where there is none, and the key has a dot, that inside the object before the dot."""
    if not isinstance(row, dict):
        return MISSING
    if field in row:
        return row[field]
    outer, dot, inner = field.partition(".")
    return _nested(row.get(outer), inner) if dot else MISSING


def _elements(pieces: Iterator[str]) -> Iterator[Any]:
    """The elements of a JSON array, one at a time, so that the array may be larger than memory.

    Raises:
        ValueError: it is no such array, or an element has more than `LARGEST_ELEMENT` characters.
    """
    decode, text, at, signs, problem = json.JSONDecoder().raw_decode, "", 0, "[", "the file ends before its array"
    for piece in filter(None, pieces):
        text, at = text[at:] + piece, 0
        while sign := SIGN.match(text, at):
            if sign[1] not in signs:
                raise ValueError(f"expecting {' or '.join(signs)}, found {sign[1]!r}")
            if sign[1] == "]" or (signs == "[" and text.startswith("]", sign.end())):
                return _nothing(chain([text[sign.end() + (sign[1] == "[") :]], pieces))
            try:
                row, at = decode(text, sign.end())
            except json.JSONDecodeError as error:  # its end may be in the next piece
                problem = error.msg
                break
            yield row
            signs = ",]"
        if len(text) - at > LARGEST_ELEMENT:
            raise ValueError(f"it has more than {LARGEST_ELEMENT:,} characters, or {problem}")
    raise ValueError(problem)


def _nothing(pieces: Iterable[str]) -> None:
    if not all(not piece or piece.isspace() for piece in pieces):
        raise ValueError("something follows the array")


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
