"""Tokens to ids, and ids to text: the characters of a text, or the 256 bytes.

Ids 0 … n-1 are the characters in code point order (or the bytes by value); behind them come, where a model has
them, `unknown` (stands for every folded or unseen character; read, never written) and `separator` (stands between
two records; a model starts a record after it and ends one with it).

In a `str` the separator is the lone surrogate `RECORD_SEPARATOR`, which no decoded text can hold. Undecodable bytes are
Python's surrogate escapes (PEP 383). So one string carries text, record separators and raw bytes.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from charloom import earlier
from charloom.errors import ModelError, UnknownCharacterError

RECORD_SEPARATOR = "\ud800"
UnknownPolicy = Literal["error", "skip", "replace"]
Ids = NDArray[np.unsignedinteger[Any]]


def code_points(text: str) -> NDArray[np.unsignedinteger[Any]]:
    """The text's code points, one number a character: uint8 where all are ASCII (half the work), else uint32."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of tokens.

    kind: `characters` or `bytes`; characters: in id order, empty for bytes; unknown, separator: whether the two special
    tokens exist; binary: whether the bytes are any bytes, and not text in UTF-8.
    """

    kind: Literal["characters", "bytes"]
    characters: tuple[str, ...] = ()
    unknown: bool = False
    separator: bool = False
    binary: bool = False

    @property
    def plain(self) -> int:
        """How many ids stand for text: the characters, or 256."""
        return 256 if self.kind == "bytes" else len(self.characters)

    @property
    def size(self) -> int:
        """V: all ids, the special ones included."""
        return self.plain + self.unknown + self.separator

    @property
    def unknown_id(self) -> int | None:
        """The id of the unknown token, if there is one."""
        return self.plain if self.unknown else None

    @property
    def separator_id(self) -> int | None:
        """The id of the separator token, if there is one."""
        return self.plain + self.unknown if self.separator else None

    @property
    def unit(self) -> str:
        """What one token is called beside a figure: `char` or `byte`."""
        return "byte" if self.kind == "bytes" else "char"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned integer that holds every id."""
        return np.min_scalar_type(self.size - 1)

    @cached_property
    def _table(self) -> NDArray[np.int32]:
        table = np.full(0x110000, -1, np.int32)
        for index, character in enumerate(self.characters):
            table[ord(character)] = index
        if self.separator_id is not None:
            table[ord(RECORD_SEPARATOR)] = self.separator_id
        return table

    def encode(self, text: str, unknown: UnknownPolicy = "error", what: str = "the text") -> Ids:
        """Text to ids.

        Args:
            text: cleaned text; may hold `RECORD_SEPARATOR` where the vocabulary has a separator. For bytes it holds no
                other surrogates than those that stand for bytes.
            unknown: what to do with a character that is not in the vocabulary.
            what: names the text in an error, such as `the prompt`.

        Raises:
            UnknownCharacterError: with policy `error`, for the first such character.
        """
        if self.kind == "bytes":
            return self._encode_bytes(text)
        if text.isascii() and (quick := self._encode_ascii(text.encode("ascii"))) is not None:
            return quick
        codes = code_points(text)
        ids = self._table[codes]
        missing = ids < 0
        if missing.any():
            first = int(np.argmax(missing))
            if unknown == "error":
                raise UnknownCharacterError(
                    f"{_named(text[first])} at position {first} of {what} is not in this model's vocabulary of "
                    f"{len(self.characters)} characters; pass --unknown skip or --unknown replace, or use a "
                    "byte-level model (trained with --vocabulary bytes)"
                )
            ids = ids[~missing] if unknown == "skip" else np.where(missing, self._replacement(), ids)
        return cast(Ids, ids.astype(self.dtype))

    @cached_property
    def _ascii(self) -> tuple[bytes, bytes]:
        """A table from byte to id for `bytes.translate`, and the bytes that it knows."""
        known = bytes(ord(character) for character in self.characters if character.isascii())
        return bytes.maketrans(known, bytes(range(len(known)))), known

    def _encode_ascii(self, data: bytes) -> Ids | None:
        """ASCII text to ids, five times as fast; None where a character is unknown or an id is wider than a byte."""
        table, known = self._ascii
        if self.size > 256 or data.translate(None, known):
            return None
        return np.frombuffer(data.translate(table), np.uint8)

    def _encode_bytes(self, text: str) -> Ids:
        parts = [
            np.frombuffer(part.encode("utf-8", "surrogateescape"), np.uint8) for part in text.split(RECORD_SEPARATOR)
        ]
        if len(parts) == 1:
            return parts[0].astype(self.dtype, copy=False)
        separator = np.array([self.separator_id], self.dtype)
        joined = [piece for part in parts for piece in (separator, part)]
        return np.concatenate(joined[1:]).astype(self.dtype, copy=False)

    def _replacement(self) -> int:
        """What an unknown character becomes: the unknown token, else the first of U+FFFD, `?` and space known."""
        if self.unknown_id is not None:
            return self.unknown_id
        for character in ("\ufffd", "?", " "):
            if character in self.characters:
                return self.characters.index(character)
        raise UnknownCharacterError(
            "--unknown replace needs a model with an unknown token (trained with --min-count 2 or more), or with "
            "'?' or a space among its characters; pass --unknown skip instead"
        )

    def decode(self, ids: Ids, separator_text: str = "\n") -> str:
        """Ids to text, all at once; a separator becomes `separator_text`."""
        decoder = Decoder(self, separator_text)
        return "".join(map(decoder.push, ids.tolist())) + decoder.finish()

    def to_json(self) -> dict[str, Any]:
        """What `vocabulary.json` holds."""
        return {
            "kind": self.kind,
            "characters": list(self.characters),
            "unknown": self.unknown,
            "separator": self.separator,
        } | ({"binary": True} if self.binary else {})

    @staticmethod
    def from_json(data: Any) -> Vocabulary:
        """Reads what `to_json` wrote.

        Raises:
            ModelError: naming the field that is missing or wrong.
        """
        if not isinstance(data, dict):
            raise ModelError(f"vocabulary.json must hold an object; found {type(data).__name__}")
        data = earlier.renamed(data, earlier.VOCABULARY)
        kind, characters = data.get("kind"), data.get("characters")
        if kind not in ("characters", "bytes"):
            raise ModelError(f"vocabulary.json: kind must be 'characters' or 'bytes'; found {kind!r}")
        if not isinstance(characters, list) or not all(isinstance(c, str) and len(c) == 1 for c in characters):
            raise ModelError("vocabulary.json: characters must be a list of single characters")
        if characters != sorted({*characters} - {RECORD_SEPARATOR}):
            raise ModelError("vocabulary.json: characters must be in code point order, each once, none U+D800")
        if bool(characters) != (kind == "characters"):
            raise ModelError(
                f"vocabulary.json: characters must be {'empty' if characters else 'there'} for kind {kind}"
            )
        for name in ("unknown", "separator"):
            if not isinstance(data.get(name), bool):
                raise ModelError(f"vocabulary.json: {name} must be true or false; found {data.get(name)!r}")
        binary = data.get("binary", False)  # older models lack it: their bytes are UTF-8
        if not isinstance(binary, bool) or (binary and kind == "characters"):
            raise ModelError(
                f"vocabulary.json: binary must be true or false, and true for bytes alone; found {binary!r}"
            )
        return Vocabulary(kind, tuple(characters), data["unknown"], data["separator"], binary)


class Decoder:
    """Ids to text, a few at a time; never gives half a character.

    A byte-level model writes UTF-8, so bytes wait here until their character is whole; bytes that can never become one
    come out as U+FFFD. Of a binary model each of them comes out as a surrogate escape (PEP 383), which counts as a
    character: encoded as UTF-8 with `surrogateescape`, the text is every byte as it was. The separator becomes
    `separator_text`; the unknown token, which is never generated, as U+FFFD.
    """

    def __init__(self, vocabulary: Vocabulary, separator_text: str = RECORD_SEPARATOR) -> None:
        self.vocabulary = vocabulary
        self._tokens = (
            [*vocabulary.characters] + ["\ufffd"] * vocabulary.unknown + [separator_text] * vocabulary.separator
        )
        self._separator_text = separator_text
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape" if vocabulary.binary else "replace")

    def push(self, token: int) -> str:
        """The text that is certain once this id has come: often one character, sometimes none yet."""
        if self.vocabulary.kind == "characters":
            return self._tokens[token]
        if token < 256:
            return self._utf8.decode(bytes([token]))
        return self.finish() + (self._separator_text if token == self.vocabulary.separator_id else "\ufffd")

    def finish(self) -> str:
        """What an unfinished character at the end comes out as: U+FFFD or surrogate escapes, or nothing."""
        return self._utf8.decode(b"", final=True)


def _named(character: str) -> str:
    """A character and its code point, for messages: 'é' (U+00E9)."""
    return f"{character!r} (U+{ord(character):04X})"
