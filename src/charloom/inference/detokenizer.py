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
"""What stands between two generated records of a kind."""

FinishReason = Literal["length", "records", "stop", "cancelled", "error"]
"""Why a sequence ended: enough characters or records, a stop string, its client, or no token that could be chosen."""


class Detokenizer:
    """The text of one sequence, token by token.

    Args:
        vocabulary: gives the tokens' meaning; bytes wait until their character is whole.
        separator_text: what the separator between two records becomes; its characters count.
        length: characters after which the text ends; None for no such end.
        records: records after which the text ends, without a separator after the last; None for no such end.
        stop: strings before which the text ends.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        separator_text: str = "\n",
        length: int | None = None,
        records: int | None = None,
        stop: StopStrings | None = None,
    ) -> None:
        self.finish_reason: FinishReason | None = "length" if length == 0 else None
        self._decoder = Decoder(vocabulary)
        self._separator_text = separator_text
        self._left = sys.maxsize if length is None else length
        self._records = records
        self._ended_records = 0
        self._gate = StopGate(stop or StopStrings(()))
        self._separator_id = vocabulary.separator_id
        self._is_plain = vocabulary.kind == "characters" and not stop

    @property
    def left(self) -> int:
        """Characters until the text ends: it takes as many tokens or more. Very many, where no length was asked for."""
        return 0 if self.finish_reason else self._left

    def take(self, tokens: list[int]) -> tuple[str, int]:
        """The text that is certain once these tokens have come, up to its end, and how many of them it took.

        Characters without a stop string are joined at once, which is five times as fast.
        """
        if self._is_plain and self._separator_id not in tokens:
            tokens = tokens[: self.left]
            return self._cut("".join(map(self._decoder.push, tokens))), len(tokens)
        text = ""
        for taken, token in enumerate(tokens):
            if self.finish_reason:
                return text, taken
            text += self.push(token)
        return text, len(tokens)

    def push(self, token: int) -> str:
        """The text that is certain once this token has come; nothing once the text has ended."""
        text = ""
        for character in self._decoder.push(token):
            if self.finish_reason:
                break
            text += self._cut(self._end_record() if character == RECORD_SEPARATOR else self._gate.push(character))
            if self._gate.stopped:
                self.finish_reason = "stop"
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
