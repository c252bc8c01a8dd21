"""Text to token ids, and ids to text. The tokens are the characters of the corpus, or the 256 bytes.

Ids 0 … n-1 are the characters in code point order, or the bytes by value. After them, if the model has them, come
`unknown` (for every rare or unseen character; suppressed in generation) and `separator` (between two records; a record
begins after one and ends with one).

In a `str` the separator is the lone surrogate `RECORD_SEPARATOR`, which decoded text cannot have. Undecodable bytes are
Python's surrogate escapes (PEP 383). So one string can have text, record separators and raw bytes.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from charloom import earlier
from charloom.errors import ModelError, SettingsError, UnknownCharacterError

RECORD_SEPARATOR = "\ud800"
UnknownPolicy = Literal["error", "skip", "replace"]
POLICIES: tuple[UnknownPolicy, ...] = get_args(UnknownPolicy)
IdArray = NDArray[np.unsignedinteger[Any]]


def code_points(text: str) -> NDArray[np.unsignedinteger[Any]]:
    """The code points of a text: uint8 if all are ASCII, which takes half the time, else uint32."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of tokens.

    kind: `characters` or `bytes`; characters: in id order, empty for bytes; unknown, separator: whether the two special
    tokens exist; binary: whether the bytes may be any bytes, or only UTF-8 text.
    """

    kind: Literal["characters", "bytes"]
    characters: tuple[str, ...] = ()
    unknown: bool = False
    separator: bool = False
    binary: bool = False

    @property
    def plain(self) -> int:
        """The number of ids for text: the number of characters, or 256."""
        return 256 if self.kind == "bytes" else len(self.characters)

    @property
    def size(self) -> int:
        """V: the number of ids, including the special ones."""
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
        """The name of one token as a unit: `char` or `byte`."""
        return "byte" if self.kind == "bytes" else "char"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned integer type that fits every id."""
        return np.min_scalar_type(self.size - 1)

    @property
    def strings(self) -> list[str]:
        """Every token as a string, in id order: a character; a byte, from 128 as a surrogate escape (PEP 383); U+FFFD
        for the unknown token; `RECORD_SEPARATOR`.
        """
        plain = self.characters or [bytes([value]).decode("ascii", "surrogateescape") for value in range(256)]
        return [*plain] + ["\ufffd"] * self.unknown + [RECORD_SEPARATOR] * self.separator

    @cached_property
    def _table(self) -> NDArray[np.int32]:
        table = np.full(0x110000, -1, np.int32)
        for index, character in enumerate(self.characters):
            table[ord(character)] = index
        if self.separator_id is not None:
            table[ord(RECORD_SEPARATOR)] = self.separator_id
        return table

    def encode(self, text: str, unknown: UnknownPolicy = "error", what: str = "the text") -> IdArray:
        """Text to ids.

        Args:
            text: cleaned text; may hold `RECORD_SEPARATOR` if the vocabulary has a separator. For bytes, all other
                surrogates must stand for bytes.
            unknown: what to do with a character that is not in the vocabulary.
            what: the name of the text in an error, such as `the prompt`.

        Raises:
            SettingsError: for a policy that does not exist.
            UnknownCharacterError: with policy `error`, for the first such character.
        """
        if unknown not in POLICIES:
            raise SettingsError(f"`unknown` must be one of {', '.join(map(repr, POLICIES))}; got {unknown!r}")
        if self.kind == "bytes":
            return self._encode_bytes(text)
        if text.isascii() and (quick := self._encode_ascii(text.encode("ascii"))) is not None:
            return quick
        codes = code_points(text)
        ids = self._table.take(codes)  # twice as fast as an index
        missing = ids < 0
        if missing.any():
            first = int(np.argmax(missing))
            if unknown == "error":
                raise UnknownCharacterError(
                    f"{_named(text[first])} at position {first} of {what} is not in this model's vocabulary of "
                    f"{len(self.characters)} characters; pass `unknown='skip'` or `unknown='replace'`, or use a "
                    "byte-level model (trained with `vocabulary='bytes'`)"
                )
            ids = ids[~missing] if unknown == "skip" else np.where(missing, self._replacement(), ids)
        return cast(IdArray, ids.astype(self.dtype))

    @cached_property
    def _ascii(self) -> tuple[bytes, bytes]:
        """A table from byte to id for `bytes.translate`, and the bytes in the vocabulary."""
        known = bytes(ord(character) for character in self.characters if character.isascii())
        return bytes.maketrans(known, bytes(range(len(known)))), known

    def _encode_ascii(self, data: bytes) -> IdArray | None:
        """ASCII text to ids, five times as fast; None if a character is unknown or an id does not fit a byte."""
        table, known = self._ascii
        if self.size > 256 or data.translate(None, known):
            return None
        return np.frombuffer(data.translate(table), np.uint8)

    def _encode_bytes(self, text: str) -> IdArray:
        parts = [
            np.frombuffer(part.encode("utf-8", "surrogateescape"), np.uint8) for part in text.split(RECORD_SEPARATOR)
        ]
        if len(parts) == 1:
            return parts[0].astype(self.dtype, copy=False)
        separator = np.array([self.separator_id], self.dtype)
        joined = [chunk for part in parts for chunk in (separator, part)]
        return np.concatenate(joined[1:]).astype(self.dtype, copy=False)

    def _replacement(self) -> int:
        """The id for an unknown character: the unknown token, or the first known one of U+FFFD, `?` and space."""
        if self.unknown_id is not None:
            return self.unknown_id
        for character in ("\ufffd", "?", " "):
            if character in self.characters:
                return self.characters.index(character)
        raise UnknownCharacterError(
            "`unknown='replace'` needs a model with an unknown token (trained with a `min_count` of at least 2), or "
            "with a question mark or a space among its characters; pass `unknown='skip'` instead"
        )

    def decode(self, ids: IdArray, separator_text: str = "\n") -> str:
        """Ids to text; a separator becomes `separator_text`."""
        decoder = Decoder(self, separator_text)
        return "".join(map(decoder.push, ids.tolist())) + decoder.finish()

    def to_json(self) -> dict[str, Any]:
        """The content of `vocabulary.json`."""
        return {
            "kind": self.kind,
            "characters": list(self.characters),
            "unknown": self.unknown,
            "separator": self.separator,
        } | ({"binary": True} if self.binary else {})

    @staticmethod
    def from_json(data: Any) -> Vocabulary:
        """Reads the result of `to_json`.

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
                f"vocabulary.json: characters must {'be empty' if characters else 'not be empty'} for kind {kind}"
            )
        for name in ("unknown", "separator"):
            if not isinstance(data.get(name), bool):
                raise ModelError(f"vocabulary.json: {name} must be true or false; found {data.get(name)!r}")
        binary = data.get("binary", False)  # models of older versions lack it; their bytes are UTF-8
        if not isinstance(binary, bool) or (binary and kind == "characters"):
            raise ModelError(
                f"vocabulary.json: binary must be true or false, and true only for bytes; found {binary!r}"
            )
        return Vocabulary(kind, tuple(characters), data["unknown"], data["separator"], binary)


class Decoder:
    """Converts ids to text, one at a time, in whole characters.

    A byte-level model generates UTF-8: bytes are held back until their character is complete, and invalid bytes become
    U+FFFD. With a binary model each invalid byte becomes a surrogate escape (PEP 383), which counts as a character;
    encoding the text as UTF-8 with `surrogateescape` gives all bytes back. A separator becomes `separator_text`. The
    unknown token, which is suppressed in generation, becomes U+FFFD.
    """

    def __init__(self, vocabulary: Vocabulary, separator_text: str = RECORD_SEPARATOR) -> None:
        self.vocabulary = vocabulary
        self._tokens = (
            [*vocabulary.characters] + ["\ufffd"] * vocabulary.unknown + [separator_text] * vocabulary.separator
        )
        self._separator_text = separator_text
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape" if vocabulary.binary else "replace")

    def push(self, token: int) -> str:
        """The text that this id completes: often one character, sometimes none yet."""
        if self.vocabulary.kind == "characters":
            return self._tokens[token]
        if token < 256:
            return self._utf8.decode(bytes([token]))
        return self.finish() + (self._separator_text if token == self.vocabulary.separator_id else "\ufffd")

    @property
    def incomplete(self) -> bool:
        """Whether bytes are held back until their character is complete."""
        return bool(self._utf8.getstate()[0])

    def finish(self) -> str:
        """The text for an incomplete character at the end: U+FFFD, surrogate escapes, or empty."""
        return self._utf8.decode(b"", final=True)


def _named(character: str) -> str:
    """A character and its code point, for messages: 'é' (U+00E9)."""
    return f"{character!r} (U+{ord(character):04X})"
