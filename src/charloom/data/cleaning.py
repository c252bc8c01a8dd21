"""Cleaning of corpora, prompts and scored text, whole or in chunks.

The steps, in this order: normal form, lower case, newlines to spaces, allowed characters, runs of spaces. So a later
step also cleans the result of an earlier one: a space from a newline, a run of spaces around a removed character.
`RECORD_SEPARATOR` and surrogate escapes pass through all steps.

`clean` is the plain definition; `cleaned` gives the same result from chunks, wherever they are cut. Two steps depend on
more than one character, so they keep the last characters of a chunk until the next one arrives.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from charloom.config import Cleaning
from charloom.data.reading import unix_newlines
from charloom.data.vocabulary import RECORD_SEPARATOR

Form = Literal["NFC", "NFKC"]
SPACES = re.compile("  +")


def clean(text: str, cleaning: Cleaning, newlines: Literal["keep", "lf"] = "keep") -> str:
    """A whole text, cleaned.

    Args:
        text: may hold `RECORD_SEPARATOR` and surrogate escapes.
        cleaning: the steps. `collapse_spaces` changes only U+0020; `newlines_to_spaces` changes LF, CRLF and CR.
        newlines: `lf` first turns CRLF and CR into LF, as reading a file does. Prompts for a model of characters
            need it; a model of bytes keeps line ends as they are.
    """
    if newlines == "lf" or cleaning.newlines_to_spaces:
        text = "".join(unix_newlines([text]))
    if form := _form(cleaning):
        text = unicodedata.normalize(form, text)
    if cleaning.lowercase:
        text = text.lower()
        text = unicodedata.normalize(form, text) if form else text  # J̌ has no composed form, but ǰ has
    if cleaning.newlines_to_spaces:
        text = text.replace("\n", " ")
    if cleaning.allow is not None:
        text = _filtered(text, _allowed(cleaning.allow, form))
    return _single_spaced(text) if cleaning.collapse_spaces else text


@dataclass
class RemovalCount:
    """The number of characters that `allow` removed so far, and the number of all characters so far."""

    characters: int = 0
    of: int = 0


def cleaned(chunks: Iterable[str], cleaning: Cleaning, removed: RemovalCount | None = None) -> Iterator[str]:
    """The chunks of one text, cleaned. Joined, they equal `clean` of the whole text. No chunk is empty.

    `removed` counts while chunks are read.
    """
    if cleaning.newlines_to_spaces:
        chunks = unix_newlines(chunks)
    if form := _form(cleaning):
        chunks = _normalized(chunks, form)
    if cleaning.lowercase:
        chunks = _lowered(chunks)
        chunks = _normalized(chunks, form) if form else chunks
    if cleaning.newlines_to_spaces:
        chunks = (chunk.replace("\n", " ") for chunk in chunks)
    if cleaning.allow is not None:
        allowed = _allowed(cleaning.allow, form)
        chunks = _counted(chunks, allowed, removed or RemovalCount())
    if cleaning.collapse_spaces:
        chunks = _collapsed(chunks)
    return filter(None, chunks)


def _form(cleaning: Cleaning) -> Form | None:
    forms: dict[str | None, Form] = {"nfc": "NFC", "nfkc": "NFKC"}
    return forms.get(cleaning.normalize)


def _allowed(allow: str, form: Form | None) -> str:
    """The allowed characters, sorted; also in the normal form of the text: `allow` may hold é as two code points."""
    return "".join(sorted({*allow, *(unicodedata.normalize(form, allow) if form else "")}))


def _filtered(text: str, allowed: str) -> str:
    """The allowed characters of a text. ASCII text is filtered as bytes, which is 20 times as fast."""
    if text.isascii():
        unwanted = bytes(code for code in range(128) if chr(code) not in allowed)
        return text.encode("ascii").translate(None, unwanted).decode("ascii")
    return _disallowed(allowed).sub("", text)


def _counted(chunks: Iterable[str], allowed: str, removed: RemovalCount) -> Iterator[str]:
    for chunk in chunks:
        allowed_chunk = _filtered(chunk, allowed)
        removed.characters += len(chunk) - len(allowed_chunk)
        removed.of += len(chunk) - chunk.count(RECORD_SEPARATOR)
        yield allowed_chunk


@lru_cache(maxsize=8)
def _disallowed(allowed: str) -> re.Pattern[str]:
    return re.compile(f"[^\ud800-\udfff{''.join(map(re.escape, allowed))}]+")


def _single_spaced(text: str) -> str:
    return SPACES.sub(" ", text) if "  " in text else text


def _collapsed(chunks: Iterable[str]) -> Iterator[str]:
    after_space = False
    for chunk in chunks:
        text = _single_spaced(chunk)
        text = text[1:] if after_space and text.startswith(" ") else text
        after_space = text.endswith(" ") if text else after_space
        yield text


def _normalized(chunks: Iterable[str], form: Form) -> Iterator[str]:
    """Normal form; cut only before characters that do not combine with the text before them."""
    held = ""
    for chunk in chunks:
        text = held + chunk
        cut = len(text) - 1
        while cut > 0 and not _starts_anew(text[cut]):
            cut -= 1
        held = text[max(cut, 0) :]
        yield unicodedata.normalize(form, text[: max(cut, 0)])
    yield unicodedata.normalize(form, held)


def _starts_anew(character: str) -> bool:
    """Whether normalization may begin at this character: true for ASCII, capitals, punctuation, ideographs and more.

    False for characters that may combine with the one before: marks, and the letter classes with the second parts of
    Hangul and Indic letters. A wrong False is safe: then only more text is held back.
    """
    if character.isascii():
        return True
    first = unicodedata.normalize("NFKD", character)[0]  # the first part of its decomposition decides, under NFKC too
    kind = unicodedata.category(first)
    return "\u4e00" <= first <= "\u9fff" or (kind[0] in "LNPSZC" and kind not in ("Lo", "Lm"))


def _lowered(chunks: Iterable[str]) -> Iterator[str]:
    """Lower case. Only Σ depends on its context: it becomes ς at the end of a word, and σ elsewhere.

    Unicode's Final_Sigma (The Unicode Standard, §3.13): a cased letter stands before Σ and none after it;
    case-ignorable characters do not count. `before` is a letter or a space in place of the text before. A Σ appended
    to the text makes Python apply the rule to the end of the chunk, so the rule is not repeated here.
    """
    before, held = " ", ""
    for chunk in chunks:
        text = held + chunk
        if text.isascii():
            held = ""
            before = text.rstrip("'.:^`")[-1:] or before  # ASCII's case-ignorable characters
            yield text.lower()
            continue
        cut = _settled(text)
        text, held = text[:cut], text[cut:]
        low = (before + text + "Σ").lower()
        before = "a" if low[-1] == "ς" else " "
        yield low[1:-1]
    yield (before + held).lower()[1:]


def _settled(text: str) -> int:
    """The length of the text with a certain lower case: all, unless it ends with Σ and ignorable characters."""
    end = len(text)
    while end and _case_ignorable(text[end - 1]):
        end -= 1
    return end - 1 if end and text[end - 1] == "Σ" else len(text)


@lru_cache(maxsize=4096)
def _case_ignorable(character: str) -> bool:
    return f"A{character}Σ".lower()[-1] == "ς" and f" {character}Σ".lower()[-1] == "σ"
