"""Cleaning: what is done to every text before a model sees it, whole or in pieces.

In this order: normal form, lower case, newlines to spaces, allowed characters, runs of spaces; so what one step makes
(a space from a newline, a run of spaces around a dropped character) the later ones see.
`RECORD_SEPARATOR` and surrogate escapes pass through all of it.

`clean` is the plain definition; `cleaned` gives the same result from pieces, wherever they were cut. Two steps look
beyond a single character, so their streams hold a few characters back until they are settled.
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
        cleaning: what to do; `collapse_spaces` means U+0020, `newlines_to_spaces` LF, CRLF and CR alike.
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
class Removed:
    """How many characters `allow` removed so far, of how many."""

    characters: int = 0
    of: int = 0


def cleaned(pieces: Iterable[str], cleaning: Cleaning, removed: Removed | None = None) -> Iterator[str]:
    """The pieces of one text, cleaned: together the same as `clean` of the whole. Empty pieces do not come out.

    `removed` counts while pieces are taken.
    """
    if cleaning.newlines_to_spaces:
        pieces = unix_newlines(pieces)
    if form := _form(cleaning):
        pieces = _normalized(pieces, form)
    if cleaning.lowercase:
        pieces = _lowered(pieces)
        pieces = _normalized(pieces, form) if form else pieces
    if cleaning.newlines_to_spaces:
        pieces = (piece.replace("\n", " ") for piece in pieces)
    if cleaning.allow is not None:
        allowed = _allowed(cleaning.allow, form)
        pieces = _counted(pieces, allowed, removed or Removed())
    if cleaning.collapse_spaces:
        pieces = _collapsed(pieces)
    return filter(None, pieces)


def _form(cleaning: Cleaning) -> Form | None:
    forms: dict[str | None, Form] = {"nfc": "NFC", "nfkc": "NFKC"}
    return forms.get(cleaning.normalize)


def _allowed(allow: str, form: Form | None) -> str:
    """The allowed characters, sorted; also as the text's normal form has them, or a two-part é would allow none."""
    return "".join(sorted({*allow, *(unicodedata.normalize(form, allow) if form else "")}))


def _filtered(text: str, allowed: str) -> str:
    """What is allowed of the text. Bytes are filtered 20 times as fast as characters, so ASCII goes that way."""
    if text.isascii():
        unwanted = bytes(code for code in range(128) if chr(code) not in allowed)
        return text.encode("ascii").translate(None, unwanted).decode("ascii")
    return _disallowed(allowed).sub("", text)


def _counted(pieces: Iterable[str], allowed: str, removed: Removed) -> Iterator[str]:
    for piece in pieces:
        kept = _filtered(piece, allowed)
        removed.characters += len(piece) - len(kept)
        removed.of += len(piece) - piece.count(RECORD_SEPARATOR)
        yield kept


@lru_cache(maxsize=8)
def _disallowed(allowed: str) -> re.Pattern[str]:
    return re.compile(f"[^\ud800-\udfff{''.join(map(re.escape, allowed))}]+")


def _single_spaced(text: str) -> str:
    return SPACES.sub(" ", text) if "  " in text else text


def _collapsed(pieces: Iterable[str]) -> Iterator[str]:
    after_space = False
    for piece in pieces:
        text = _single_spaced(piece)
        text = text[1:] if after_space and text.startswith(" ") else text
        after_space = text.endswith(" ") if text else after_space
        yield text


def _normalized(pieces: Iterable[str], form: Form) -> Iterator[str]:
    """Normal form, cut only in front of characters that the text before them cannot change."""
    held = ""
    for piece in pieces:
        text = held + piece
        cut = len(text) - 1
        while cut > 0 and not _starts_anew(text[cut]):
            cut -= 1
        held = text[max(cut, 0) :]
        yield unicodedata.normalize(form, text[: max(cut, 0)])
    yield unicodedata.normalize(form, held)


def _starts_anew(character: str) -> bool:
    """Whether normalizing may begin here: surely for ASCII, capitals, punctuation, ideographs and the like.

    Left out is what may join the character before it: marks, and the letters among which Hangul's and the Indic
    scripts' second halves are. Leaving out too much is safe, it only holds back more.
    """
    if character.isascii():
        return True
    first = unicodedata.normalize("NFKD", character)[0]  # what it is made of decides, under NFKC too
    kind = unicodedata.category(first)
    return "\u4e00" <= first <= "\u9fff" or (kind[0] in "LNPSZC" and kind not in ("Lo", "Lm"))


def _lowered(pieces: Iterable[str]) -> Iterator[str]:
    """Lower case, with the one letter that needs its surroundings: Σ is ς where a word ends, σ elsewhere.

    Unicode's Final_Sigma (The Unicode Standard, §3.13): a cased letter before it and none after it, case-ignorable
    characters aside. `before` is a letter or a space that stands for what came before; a Σ appended to the text asks
    Python's own rule what comes after it, so that the rule is written nowhere here.
    """
    before, held = " ", ""
    for piece in pieces:
        text = held + piece
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
    """How much of the text has its lower case whatever follows: all but a Σ that only ignorable characters follow."""
    end = len(text)
    while end and _case_ignorable(text[end - 1]):
        end -= 1
    return end - 1 if end and text[end - 1] == "Σ" else len(text)


@lru_cache(maxsize=4096)
def _case_ignorable(character: str) -> bool:
    return f"A{character}Σ".lower()[-1] == "ς" and f" {character}Σ".lower()[-1] == "σ"
