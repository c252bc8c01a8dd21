"""The texts in one field of each row of a `.jsonl` or `.json` file, or in one column of a `.csv` or `.tsv` file."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from charloom.data.reading import FileDocument, unix_newlines
from charloom.data.sources import CHUNK
from charloom.errors import TextError

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

TABLES = {".csv": ",", ".tsv": "\t"}
"""The delimiter of each file type, if the first line shows no other one."""

FIELD_ENDINGS = (".jsonl", ".ndjson", ".json", *TABLES)
FIELD_FILES = ".jsonl, .json, .csv and .tsv files"
DELIMITERS = (",", ";", "\t")
# "\ud800" is legal in JSON but is not a character. In binary text, U+DC80 to U+DCFF are bytes and stay.
LONE_SURROGATES = re.compile("[\ud800-\udfff]")
LONE_BUT_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
SHOWN_FIELDS = 20  # in an error; a table may have thousands of columns
LARGEST_ELEMENT = 1 << 26  # characters of an element; without a limit, a file that is not JSON would fill the memory
PUNCTUATION = re.compile(r"\s*(\S)\s*")
MISSING = object()


@dataclass
class MissingField:
    """Rows without the field so far. rows: their number; first: the first of them; found: whether any row has it."""

    rows: int = 0
    first: str = ""
    found: bool = False

    def add(self, rows: int, line: str) -> None:
        """Counts `rows` more; `line` describes the first of them."""
        self.rows += rows
        self.first = self.first or line


@dataclass(frozen=True)
class FieldDocument:
    """The values of one field of a file, in order; without empty values, JSON's null and rows without the field.

    field: a key or column. In JSON, if there is no key `user.name`, it is the `name` of the object `user`.
    """

    file: FileDocument
    field: str

    @property
    def name(self) -> str:
        """For messages."""
        return self.file.name

    def values(self, missed: MissingField, size: int = CHUNK) -> Iterator[str]:
        """Each value; line ends become LF unless the file keeps them. Rows without the field are counted in `missed`.

        Raises:
            TextError: the field does not hold text, or the row is not JSON or CSV; the message names file and row.
        """
        for value in filter(None, self._table(missed, size) if self._is_table else self._objects(missed, size)):
            yield value if self.file.keep_newlines or "\r" not in value else "".join(unix_newlines([value]))

    def names(self) -> list[str]:
        """The columns, or the fields of the first row; empty if the file begins with neither."""
        head = next(self.file.chunks(), "").lstrip()
        if self._is_table:
            line = head.partition("\n")[0]
            return _cells(line, self._delimiter(line))
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

    def _objects(self, missed: MissingField, size: int) -> Iterator[str]:
        surrogates = LONE_BUT_BYTES if self.file.binary else LONE_SURROGATES
        for where, row in self._rows(size):
            value = self._value(row, where, missed)
            yield value if value.isascii() else surrogates.sub("\ufffd", value)

    def _value(self, row: Any, where: str, missed: MissingField) -> str:
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
        """(position for messages, value) of each line, or of each element of an array."""
        chunks = self.file.chunks(size)
        if self.file.source.ending != ".json":
            return self._parsed_lines(chunks)
        head = next((chunk for chunk in chunks if not chunk.isspace()), "")
        whole = chain([head], chunks)
        return self._parsed_array(whole) if head.lstrip().startswith("[") else self._parsed_lines(whole)

    def _parsed_lines(self, chunks: Iterable[str]) -> Iterator[tuple[str, Any]]:
        for number, line in enumerate(_lines(chunks), 1):
            if not line.isspace():
                where = f"line {number:,}"
                try:
                    yield where, json.loads(line)
                except (ValueError, RecursionError) as error:
                    array = "; .json must be an array of objects, or one object a line"
                    hint = array if self.file.source.ending == ".json" else ""
                    raise self._error(where, f"is not JSON: {error}{hint}") from None

    def _parsed_array(self, chunks: Iterator[str]) -> Iterator[tuple[str, Any]]:
        number = 0
        try:
            for number, row in enumerate(_elements(chunks), 1):
                yield f"element {number:,}", row
        except (ValueError, RecursionError) as error:
            raise self._error(f"element {number + 1:,}", f"is not JSON: {error}") from None

    def _table(self, missed: MissingField, size: int) -> Iterator[str]:
        rows = self._cut_rows(_lines(self.file.chunks(size)))
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
        """The rows, with the delimiter that makes the field a column, or the most frequent one of the first line."""
        csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is shorter than a chapter; 2³¹ - 1 fits any C long
        first = next(rows, "")
        return csv.reader(chain([first] * bool(first), rows), strict=True, delimiter=self._delimiter(first))

    def _delimiter(self, line: str) -> str:
        delimiters = sorted(DELIMITERS, key=lambda d: (line.count(d), d == TABLES[self.file.source.ending]))
        return [*delimiters, *(d for d in delimiters if self.field in _cells(line, d))][-1]

    def _lacking(self, where: str, kind: str, names: list[str]) -> str:
        there = ", ".join(map(repr, names[:SHOWN_FIELDS])) + (", …" if len(names) > SHOWN_FIELDS else "")
        return f"{self.file.name}, {where} has no {kind} {self.field!r}; it has {there or 'none'}"

    def _error(self, where: str, found: str) -> TextError:
        return TextError(f"{self.file.name}, {where} {found}")


def _cells(line: str, delimiter: str) -> list[str]:
    """The cells of one line, if it is a row of a table."""
    try:
        return next(csv.reader([line], strict=True, delimiter=delimiter), [])
    except csv.Error:
        return []


def _nested(row: Any, field: str) -> Any:
    """The value of a key. If the key is missing and has a dot, the value in the object named before the dot."""
    if not isinstance(row, dict):
        return MISSING
    if field in row:
        return row[field]
    outer, dot, inner = field.partition(".")
    return _nested(row.get(outer), inner) if dot else MISSING


def _elements(chunks: Iterator[str]) -> Iterator[Any]:
    """The elements of a JSON array, one at a time; the array may be larger than memory.

    Raises:
        ValueError: it is not an array, or an element has more than `LARGEST_ELEMENT` characters.
    """
    decode, text, at, expected, problem = json.JSONDecoder().raw_decode, "", 0, "[", "the file ends before its array"
    for chunk in filter(None, chunks):
        text, at = text[at:] + chunk, 0
        while sign := PUNCTUATION.match(text, at):
            if sign[1] not in expected:
                raise ValueError(f"expecting {' or '.join(expected)}, found {sign[1]!r}")
            if sign[1] == "]" or (expected == "[" and text.startswith("]", sign.end())):
                return _nothing(chain([text[sign.end() + (sign[1] == "[") :]], chunks))
            try:
                row, at = decode(text, sign.end())
            except json.JSONDecodeError as error:  # the element may end in the next chunk
                problem = error.msg
                break
            yield row
            expected = ",]"
        if len(text) - at > LARGEST_ELEMENT:
            raise ValueError(f"it has more than {LARGEST_ELEMENT:,} characters, or {problem}")
    raise ValueError(problem)


def _nothing(chunks: Iterable[str]) -> None:
    if not all(not chunk or chunk.isspace() for chunk in chunks):
        raise ValueError("something follows the array")


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    """Lines with their LF. Only LF ends a line: JSON and CSV may hold other line separators inside a text."""
    begun: list[str] = []
    for chunk in chunks:
        *whole, rest = chunk.split("\n")
        for line in whole:
            yield "".join([*begun, line, "\n"])
            begun.clear()
        begun.append(rest)
    if last := "".join(begun):
        yield last
