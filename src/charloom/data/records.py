"""Documents → one stream of text, or of records with `RECORD_SEPARATOR` before the first, between, and after the last.

Pieces are cut anywhere, so each step holds back what the next piece may still change. All work is done by string
methods and regular expressions on whole pieces: a corpus may have tens of millions of lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from charloom.data.vocabulary import RECORD_SEPARATOR

BLANK_LINES = re.compile(r"\n\s*\n")
# A full stop, its closing quotes or brackets, and the space after them; East Asian stops need none. Abbreviations end
# a sentence too: telling them apart needs a dictionary for each language.
SENTENCE_END = re.compile(r"""([.!?…]["'”’»)\]]*)\s+|([。！？]["'”’」』）]*)\s*""")
SENTENCE_END_BEGUN = re.compile(r"""[.!?…。！？]["'”’»)\]」』）]*\s*\Z""")
EMPTY_RECORDS = re.compile(rf"{RECORD_SEPARATOR}(?:\s*{RECORD_SEPARATOR})+")
NEWLINES_AFTER = re.compile(rf"{RECORD_SEPARATOR}[\r\n]+")
# The look-behind makes a long run of newlines cost its length, not its square.
NEWLINES_BEFORE = re.compile(rf"(?<![\r\n])[\r\n]+{RECORD_SEPARATOR}")


def joined(documents: Iterable[Iterable[str]]) -> Iterator[str]:
    """One text: each document ends with a newline before the next begins."""
    last = "\n"
    for document in documents:
        begun = False
        for piece in filter(None, document):
            if not begun and last != "\n":
                yield "\n"
            yield piece
            begun, last = True, piece[-1]


def bounded(documents: Iterable[Iterable[str]]) -> Iterator[str]:
    """A separator before each document and after the last."""
    for document in documents:
        yield RECORD_SEPARATOR
        yield from document
    yield RECORD_SEPARATOR


def gathered(pieces: Iterable[str], size: int) -> Iterator[str]:
    """The same text in pieces of at least half `size` characters, so that many short ones cost no more than few."""
    waiting: list[str] = []
    length = 0
    for piece in pieces:
        waiting.append(piece)
        length += len(piece)
        if length >= size // 2:
            yield "".join(waiting)
            waiting, length = [], 0
    if length:
        yield "".join(waiting)


def lines(pieces: Iterable[str]) -> Iterator[str]:
    """A separator for every newline."""
    return (piece.replace("\n", RECORD_SEPARATOR) for piece in pieces)


def sentences(pieces: Iterable[str]) -> Iterator[str]:
    """A separator after every sentence, in place of the space there, and for every run of blank lines."""
    held = ""
    for piece in paragraphs(pieces):
        text = held + piece
        begun = SENTENCE_END_BEGUN.search(text)
        end = begun.start() if begun else len(text)
        held = text[end:]
        yield SENTENCE_END.sub(rf"\1\2{RECORD_SEPARATOR}", text[:end])
    yield SENTENCE_END.sub(rf"\1\2{RECORD_SEPARATOR}", held)


def paragraphs(pieces: Iterable[str]) -> Iterator[str]:
    """A separator for every run of blank lines, which are those of whitespace alone."""
    held = ""
    for piece in pieces:
        text = held + piece
        end = len(text.rstrip())
        held = text[end:]
        yield BLANK_LINES.sub(RECORD_SEPARATOR, text[:end])
    yield BLANK_LINES.sub(RECORD_SEPARATOR, held)


def tidied(pieces: Iterable[str]) -> Iterator[str]:
    """Records without the newlines around them, and none that is only whitespace: never two separators in a row.

    Where no record is left, nothing comes out.
    """
    held, anything = "", False
    for piece in pieces:
        text = held + piece
        end = _solid(text)
        held = EMPTY_RECORDS.sub(
            RECORD_SEPARATOR, text[end:]
        )  # or a million empty lines would wait, and be seen each time
        if end:
            anything = True
            yield _tidy(text[:end])
    if anything:
        yield _tidy(held)


def _solid(text: str) -> int:
    """Where the whitespace and separators at the end begin: what follows decides what becomes of those."""
    end = len(text)
    while end and (text[end - 1] == RECORD_SEPARATOR or text[end - 1].isspace()):
        end -= 1
    return end


def _tidy(text: str) -> str:
    if RECORD_SEPARATOR not in text:
        return text
    text = EMPTY_RECORDS.sub(RECORD_SEPARATOR, text)
    # Looking first is several times faster than substituting, and mostly there is nothing.
    if f"{RECORD_SEPARATOR}\n" in text or f"{RECORD_SEPARATOR}\r" in text:
        text = NEWLINES_AFTER.sub(RECORD_SEPARATOR, text)
    if f"\n{RECORD_SEPARATOR}" in text or f"\r{RECORD_SEPARATOR}" in text:
        text = NEWLINES_BEFORE.sub(RECORD_SEPARATOR, text)
    return text
