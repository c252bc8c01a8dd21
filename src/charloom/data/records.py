"""Documents → one text, or records with `RECORD_SEPARATOR` before the first, between any two, and after the last.

Chunks are cut anywhere, so each step keeps the end of a chunk that the next chunk may still change. All work is
done by string methods and regular expressions on whole chunks: a corpus may have tens of millions of lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from charloom.data.vocabulary import RECORD_SEPARATOR

BLANK_LINES = re.compile(r"\n\s*\n")
# A full stop, closing quotes or brackets, and space. East Asian full stops need no space. An abbreviation ends a
# sentence too, because recognising it needs a dictionary for each language.
SENTENCE_END = re.compile(r"""([.!?…]["'”’»)\]]*)\s+|([。！？]["'”’」』）]*)\s*""")
SENTENCE_END_BEGUN = re.compile(r"""[.!?…。！？]["'”’»)\]」』）]*\s*\Z""")
EMPTY_RECORDS = re.compile(rf"{RECORD_SEPARATOR}(?:\s*{RECORD_SEPARATOR})+")
NEWLINES_AFTER = re.compile(rf"{RECORD_SEPARATOR}[\r\n]+")
# With the look-behind, the time for a run of newlines grows with its length, not with the square of it.
NEWLINES_BEFORE = re.compile(rf"(?<![\r\n])[\r\n]+{RECORD_SEPARATOR}")


def joined(documents: Iterable[Iterable[str]]) -> Iterator[str]:
    """One text: each document ends with a newline before the next begins."""
    last = "\n"
    for document in documents:
        begun = False
        for chunk in filter(None, document):
            if not begun and last != "\n":
                yield "\n"
            yield chunk
            begun, last = True, chunk[-1]


def separated(documents: Iterable[Iterable[str]]) -> Iterator[str]:
    """A separator before each document and after the last."""
    for document in documents:
        yield RECORD_SEPARATOR
        yield from document
    yield RECORD_SEPARATOR


def gathered(chunks: Iterable[str], size: int) -> Iterator[str]:
    """The same text in chunks of at least half of `size` characters, because each chunk costs time."""
    waiting: list[str] = []
    length = 0
    for chunk in chunks:
        waiting.append(chunk)
        length += len(chunk)
        if length >= size // 2:
            yield "".join(waiting)
            waiting, length = [], 0
    if length:
        yield "".join(waiting)


def lines(chunks: Iterable[str]) -> Iterator[str]:
    """Replaces every newline by a separator."""
    return (chunk.replace("\n", RECORD_SEPARATOR) for chunk in chunks)


def sentences(chunks: Iterable[str]) -> Iterator[str]:
    """Replaces the space after every sentence, and every run of blank lines, by a separator."""
    held = ""
    for chunk in paragraphs(chunks):
        text = held + chunk
        begun = SENTENCE_END_BEGUN.search(text)
        end = begun.start() if begun else len(text)
        held = text[end:]
        yield SENTENCE_END.sub(rf"\1\2{RECORD_SEPARATOR}", text[:end])
    yield SENTENCE_END.sub(rf"\1\2{RECORD_SEPARATOR}", held)


def paragraphs(chunks: Iterable[str]) -> Iterator[str]:
    """Replaces every run of blank lines by a separator; a line with only whitespace is blank."""
    held = ""
    for chunk in chunks:
        text = held + chunk
        end = len(text.rstrip())
        held = text[end:]
        yield BLANK_LINES.sub(RECORD_SEPARATOR, text[:end])
    yield BLANK_LINES.sub(RECORD_SEPARATOR, held)


def tidied(chunks: Iterable[str]) -> Iterator[str]:
    """Records without newlines at their ends, and without records that have only whitespace.

    So two separators are never neighbours. If no record remains, the text is empty.
    """
    held, anything = "", False
    for chunk in chunks:
        text = held + chunk
        end = _solid(text)
        held = EMPTY_RECORDS.sub(
            RECORD_SEPARATOR, text[end:]
        )  # a million empty lines must not be held back and read again
        if end:
            anything = True
            yield _tidy(text[:end])
    if anything:
        yield _tidy(held)


def _solid(text: str) -> int:
    """The start of the whitespace and separators at the end of the text; the next chunk decides whether they stay."""
    end = len(text)
    while end and (text[end - 1] == RECORD_SEPARATOR or text[end - 1].isspace()):
        end -= 1
    return end


def _tidy(text: str) -> str:
    if RECORD_SEPARATOR not in text:
        return text
    text = EMPTY_RECORDS.sub(RECORD_SEPARATOR, text)
    # `in` is several times as fast as a substitution, and most texts need no substitution.
    if f"{RECORD_SEPARATOR}\n" in text or f"{RECORD_SEPARATOR}\r" in text:
        text = NEWLINES_AFTER.sub(RECORD_SEPARATOR, text)
    if f"\n{RECORD_SEPARATOR}" in text or f"\r{RECORD_SEPARATOR}" in text:
        text = NEWLINES_BEFORE.sub(RECORD_SEPARATOR, text)
    return text
