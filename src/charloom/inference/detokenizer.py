"""From a sequence's tokens to its text: whole characters, record separators, stop strings and the length."""

from __future__ import annotations

import sys
from typing import Literal

from charloom.config import RecordKind
from charloom.data.vocabulary import RECORD_SEPARATOR, Decoder, Vocabulary
from charloom.inference.stop_strings import StopGate, StopStrings

SEPARATOR_TEXTS: dict[RecordKind, str] = {
    "none": "\n",
    "line": "\n",
    "sentence": " ",
    "field": "\n",
    "paragraph": "\n\n",
    "file": "\n\n",
}
"""The text between two generated records of each kind."""

FinishReason = Literal["length", "records", "stop", "cancelled", "error"]
"""Why a sequence ended: enough characters or records, a stop string, cancelled by its client, or an error because no
token could be chosen.
"""


class Detokenizer:
    """The text of one sequence, token by token.

    Args:
        vocabulary: gives the meaning of the tokens. Bytes are stored until their character is complete.
        separator_text: replaces the separator between two records; its characters count.
        length: the text ends after this number of characters; None sets no limit.
        tokens: the text ends after this number of tokens; None sets no limit. It then holds whole characters only.
        records: the text ends after this number of records, without a separator after the last; None sets no limit.
        stop: the text ends before any of these strings.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        separator_text: str = "\n",
        length: int | None = None,
        tokens: int | None = None,
        records: int | None = None,
        stop: StopStrings | None = None,
    ) -> None:
        self.finish_reason: FinishReason | None = "length" if 0 in (length, tokens) else None
        self._decoder = Decoder(vocabulary)
        self._separator_text = separator_text
        self._left = sys.maxsize if length is None else length
        self._tokens_left = sys.maxsize if tokens is None else tokens
        self._records = records
        self._ended_records = 0
        self._gate = StopGate(stop or StopStrings(()))
        self._separator_id = vocabulary.separator_id
        self._is_plain = vocabulary.kind == "characters" and not stop

    @property
    def left(self) -> int:
        """The least number of tokens that the text still needs, if no stop string or record ends it. Very large without
        a limit.
        """
        return 0 if self.finish_reason else min(self._left, self._tokens_left)

    def take(self, tokens: list[int]) -> tuple[str, int]:
        """(the text that these tokens make final, up to the end of the text; how many of them were used).

        Without stop strings, characters are joined in one call, which is five times as fast.
        """
        if self._is_plain and self._separator_id not in tokens:
            tokens = tokens[: self.left]
            return self._cut("".join(map(self._decoder.push, tokens))) + self._count(len(tokens)), len(tokens)
        text = ""
        for taken, token in enumerate(tokens):
            if self.finish_reason:
                return text, taken
            text += self.push(token)
        return text, len(tokens)

    def push(self, token: int) -> str:
        """The text that this token makes final; empty after the end of the text."""
        text = ""
        for character in self._decoder.push(token):
            if self.finish_reason:
                break
            text += self._cut(self._end_record() if character == RECORD_SEPARATOR else self._gate.push(character))
            if self._gate.stopped:
                self.finish_reason = "stop"
        return text + self._count(1)

    def _count(self, tokens: int) -> str:
        """Counts tokens. After the last one, returns the text that the gate delayed: nothing can complete it."""
        self._tokens_left -= tokens
        if self._tokens_left > 0 or self.finish_reason:
            return ""
        text = self._cut(self._gate.release())
        self.finish_reason = "length"
        return text

    def _end_record(self) -> str:
        self._ended_records += 1
        if self._ended_records == self._records:
            self.finish_reason = "records"
            return self._gate.release()
        return "".join(map(self._gate.push, self._separator_text))

    def _cut(self, text: str) -> str:
        text = text[: self._left]
        self._left -= len(text)
        if self._left == 0:
            self.finish_reason = self.finish_reason or "length"
        return text
