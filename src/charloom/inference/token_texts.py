"""The tokens of a sequence as text: a name for each, and its place in the text of the sequence."""

from __future__ import annotations

from charloom.data.vocabulary import Decoder, Vocabulary


def token_names(vocabulary: Vocabulary, separator_text: str) -> tuple[str, ...]:
    """Every token as a string, in id order.

    A byte from 128 is `bytes:` and its escape, as in OpenAI's protocol: half a character is no text. The unknown token
    is U+FFFD, and the separator is the text between two records.
    """
    plain = vocabulary.characters or [chr(byte) if byte < 128 else f"bytes:\\x{byte:02x}" for byte in range(256)]
    return (*plain, *["\ufffd"] * vocabulary.unknown, *[separator_text] * vocabulary.separator)


class TokenPlaces:
    """Where each token of a sequence begins in its text.

    All bytes of a character begin where the character begins.

    Args:
        vocabulary: the model's.
        separator_text: the text between two records.
        start: the number of characters before the first token.
    """

    def __init__(self, vocabulary: Vocabulary, separator_text: str, start: int = 0) -> None:
        self._decoder = Decoder(vocabulary, separator_text)
        self._separator_id, self._separator_length = vocabulary.separator_id, len(separator_text)
        self._length = start

    def push(self, token: int) -> int:
        """The place of the next token: the number of characters before it."""
        self._length += len(self._decoder.push(token))
        if self._decoder.incomplete:
            return self._length
        return self._length - (self._separator_length if token == self._separator_id else 1)
