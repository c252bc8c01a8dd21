"""From a text's symbols to the pieces that are written: whole characters, records, stop strings and the length."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from charloom.config import RecordKind
from charloom.text.vocabulary import BOUNDARY, Decoder, Vocabulary

SEPARATORS: dict[RecordKind, str] = {
    "none": "\n",
    "line": "\n",
    "sentence": " ",
    "field": "\n",
    "paragraph": "\n\n",
    "file": "\n\n",
}
"""What is written between two records of a kind."""


class Assembler:
    """One text in the making.

    Args:
        vocabulary: gives the symbols' meaning; bytes wait until their character is whole.
        separator: what a boundary between two records is written as; its characters count.
        length: characters after which the text is done; None for no such end.
        records: records after which the text is done, without a separator after the last; None for no such end.
        stop: strings before which the text is done.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        separator: str = "\n",
        length: int | None = None,
        records: int | None = None,
        stop: Sequence[str] = (),
    ) -> None:
        self.done = length == 0
        self._decoder = Decoder(vocabulary)
        self._separator = separator
        self._left = sys.maxsize if length is None else length
        self._records = records
        self._boundaries = 0
        self._gate = StopGate(stop)

    @property
    def left(self) -> int:
        """Characters until the text is done; very many, where none were asked for."""
        return 0 if self.done else self._left

    def take(self, symbols: Iterable[int]) -> str:
        """What can be written for certain once these symbols have come; nothing once the text is done."""
        pieces = []
        for symbol in symbols:
            if self.done:
                break
            pieces.append(self.push(symbol))
        return "".join(pieces)

    def push(self, symbol: int) -> str:
        """The same for one symbol."""
        piece = ""
        for character in self._decoder.push(symbol):
            if self.done:
                break
            piece += self._cut(self._boundary() if character == BOUNDARY else self._gate.push(character))
            if self._gate.stopped:
                self.done = True
        return piece

    def _boundary(self) -> str:
        self._boundaries += 1
        if self._boundaries == self._records:
            self.done = True
            return self._gate.release()
        return "".join(map(self._gate.push, self._separator))

    def _cut(self, text: str) -> str:
        text = text[: self._left]
        self._left -= len(text)
        self.done = self.done or self._left == 0
        return text


class StopGate:
    """Lets characters through until a stop string is whole, and never any part of that string.

    What could still become a stop string waits: always the longest such suffix, so that a match can begin nowhere
    before it. The stop string that is whole first counts; of several, the longest.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.stopped = False
        self._stop = sorted(stop, key=len, reverse=True)
        self._beginnings = {text[:end] for text in stop for end in range(1, len(text))}
        self._held = ""

    def push(self, character: str) -> str:
        """What may be written after this character; nothing once stopped."""
        if not self._stop:
            return character
        if self.stopped:
            return ""
        text = self._held + character
        for stop in self._stop:
            if text.endswith(stop):
                self.stopped, self._held = True, ""
                return text[: -len(stop)]
        start = next((s for s in range(len(text)) if text[s:] in self._beginnings), len(text))
        self._held = text[start:]
        return text[:start]

    def release(self) -> str:
        """What waited, now that nothing follows."""
        held, self._held = self._held, ""
        return held
