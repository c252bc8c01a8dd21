"""From a text's tokens to the pieces that are written: whole characters, records, stop strings and the length."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Sequence

from charloom.config import RecordKind
from charloom.data.vocabulary import RECORD_SEPARATOR, Decoder, Vocabulary

SEPARATOR_TEXTS: dict[RecordKind, str] = {
    "none": "\n",
    "line": "\n",
    "sentence": " ",
    "field": "\n",
    "paragraph": "\n\n",
    "file": "\n\n",
}
"""What is written between two records of a kind."""


class Detokenizer:
    """One text in the making.

    Args:
        vocabulary: gives the tokens' meaning; bytes wait until their character is whole.
        separator_text: what the separator between two records becomes; its characters count.
        length: characters after which the text is done; None for no such end.
        records: records after which the text is done, without a separator after the last; None for no such end.
        stop: strings before which the text is done; several texts may share them.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        separator_text: str = "\n",
        length: int | None = None,
        records: int | None = None,
        stop: StopStrings | None = None,
    ) -> None:
        self.done = length == 0
        self._decoder = Decoder(vocabulary)
        self._separator_text = separator_text
        self._left = sys.maxsize if length is None else length
        self._records = records
        self._ended_records = 0
        self._gate = StopGate(stop or StopStrings(()))

    @property
    def left(self) -> int:
        """Characters until the text is done; very many, where none were asked for."""
        return 0 if self.done else self._left

    def take(self, tokens: Iterable[int]) -> str:
        """What can be written for certain once these tokens have come; nothing once the text is done."""
        pieces = []
        for token in tokens:
            if self.done:
                break
            pieces.append(self.push(token))
        return "".join(pieces)

    def push(self, token: int) -> str:
        """The same for one token."""
        piece = ""
        for character in self._decoder.push(token):
            if self.done:
                break
            piece += self._cut(self._end_record() if character == RECORD_SEPARATOR else self._gate.push(character))
            if self._gate.stopped:
                self.done = True
        return piece

    def _end_record(self) -> str:
        self._ended_records += 1
        if self._ended_records == self._records:
            self.done = True
            return self._gate.release()
        return "".join(map(self._gate.push, self._separator_text))

    def _cut(self, text: str) -> str:
        text = text[: self._left]
        self._left -= len(text)
        self.done = self.done or self._left == 0
        return text


class StopStrings:
    """The automaton of some stop strings (Aho and Corasick 1975); memory and time are linear in their characters.

    A state is the longest end of a text that is the beginning of a stop string; 0 is the empty one. Nothing changes
    once it is made, so texts share it.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.depth = [0]
        """How many characters each state is."""
        self.whole = [0]
        """How many characters the longest stop string has that a text in this state ends with; 0 for none."""
        self._shorter = [0]  # the longest end of a state, other than itself, that is a state too
        self._following: dict[tuple[int, str], int] = {}
        for text in stop:
            self._add(text)
        for (state, character), longer in sorted(self._following.items(), key=lambda edge: self.depth[edge[1]]):
            self._shorter[longer] = self.after(self._shorter[state], character) if state else 0
            self.whole[longer] = self.whole[longer] or self.whole[self._shorter[longer]]

    def __bool__(self) -> bool:
        return bool(self._following)

    def _add(self, text: str) -> None:
        state = 0
        for character in text:
            longer = self._following.setdefault((state, character), len(self.depth))
            if longer == len(self.depth):
                self.depth.append(self.depth[state] + 1)
                self.whole.append(0)
                self._shorter.append(0)
            state = longer
        self.whole[state] = len(text)

    def after(self, state: int, character: str) -> int:
        """The state of a text in this state once a character has come."""
        while state and (state, character) not in self._following:
            state = self._shorter[state]
        return self._following.get((state, character), 0)


class StopGate:
    """Lets characters through until a stop string is whole, and never any part of that string.

    What could still become a stop string waits: always the longest such suffix, so that a match can begin nowhere
    before it. The stop string that is whole first counts; of several, the longest.
    """

    def __init__(self, stop: StopStrings) -> None:
        self.stopped = False
        self._stop, self._state = stop, 0
        self._held: deque[str] = deque()

    def push(self, character: str) -> str:
        """What may be written after this character; nothing once stopped."""
        if not self._stop:
            return character
        if self.stopped:
            return ""
        self._held.append(character)
        self._state = self._stop.after(self._state, character)
        if whole := self._stop.whole[self._state]:
            self.stopped = True
            text = self._let_through(whole)
            self._held.clear()
            return text
        return self._let_through(self._stop.depth[self._state])

    def release(self) -> str:
        """What waited, now that nothing follows."""
        return self._let_through(0)

    def _let_through(self, held: int) -> str:
        """All that waits but for the last so many characters."""
        return "".join(self._held.popleft() for _ in range(len(self._held) - held))
