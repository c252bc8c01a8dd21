"""A user's text as a model reads it: cleaned like the training text, then token ids.

Shapes: T tokens.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from charloom.config import Cleaning
from charloom.data.cleaning import clean
from charloom.data.vocabulary import RECORD_SEPARATOR, IdArray, UnknownPolicy, Vocabulary
from charloom.errors import SettingsError, TextError, UnknownCharacterError

# All surrogates except U+DC80 … U+DCFF, which stand for undecodable bytes. LONE_IN_RECORDS also excepts the record
# separator.
LONE = re.compile("[\\ud800-\\udc7f\\udd00-\\udfff]")
LONE_IN_RECORDS = re.compile("[\\ud801-\\udc7f\\udd00-\\udfff]")

NEWLINES = re.compile("\n+")


@dataclass(frozen=True)
class Tokenizer:
    """vocabulary: of the model; cleaning: of the training text.

    If a model of records does not know the newline, newlines in a text are record separators: `Model.generate` puts
    them between two records. Like in the training text, several are one separator.
    """

    vocabulary: Vocabulary
    cleaning: Cleaning

    def clean(self, text: str) -> str:
        """The text, cleaned like the training text; for a model of characters, with LF at each line end."""
        return clean(text, self.cleaning, newlines="keep" if self.vocabulary.kind == "bytes" else "lf")

    def tokens(self, prompt: str | Sequence[int], unknown: UnknownPolicy = "error") -> IdArray:
        """The tokens of a prompt itself, from text or from token ids.

        Raises:
            SettingsError: if the prompt is neither a string nor a list of token ids of this model.
            UnknownCharacterError: for a character that the model does not know.
        """
        if not isinstance(prompt, list | tuple):
            return self._encode(prompt, unknown, "the prompt")
        size = self.vocabulary.size
        for token in prompt:
            if type(token) is not int or not 0 <= token < size:
                found = reprlib.repr(token)
                raise SettingsError(
                    f"the prompt must be a string or token ids from 0 to {size - 1}; got {found} in a list"
                )
        return np.array(prompt, self.vocabulary.dtype)

    def prompt(self, prompt: str | Sequence[int], unknown: UnknownPolicy) -> IdArray:
        """The tokens to read before generation; empty if the first token is to be sampled.

        They are the tokens of the prompt. A model of records first reads a separator. Without a prompt, any other model
        first reads a newline, if it has one.

        Raises:
            SettingsError, UnknownCharacterError: as in `tokens`.
        """
        prompt_T = self.tokens(prompt, unknown)
        if self.vocabulary.separator_id is not None:
            return self._after_separator(prompt_T)
        if len(prompt_T) == 0 and (self.vocabulary.kind == "bytes" or "\n" in self.vocabulary.characters):
            return self.vocabulary.encode("\n")
        return prompt_T

    def ids(self, text: str, unknown: UnknownPolicy) -> IdArray:
        """The tokens of a text to read; for a model of records, after a separator.

        Raises:
            UnknownCharacterError: for a character that the model does not know.
        """
        return self._after_separator(self._encode(text, unknown, "the text"))

    def text(self, text: str, unknown: UnknownPolicy) -> tuple[IdArray, int]:
        """The tokens of a text to predict, and the number of characters that are predicted: all but the first token.

        A model of records reads a separator first, so it also predicts the first character.

        Raises:
            SettingsError: if the text is not a string.
            TextError: if the text is too short for a prediction.
            UnknownCharacterError: for a character that the model does not know.
        """
        own_T = self._encode(text, unknown, "the text")
        ids_T = self._after_separator(own_T)
        characters = len(self.clean(text)) if self.vocabulary.kind == "bytes" else len(own_T)
        characters -= len(ids_T) == len(own_T)  # without a separator, nothing predicts the first token
        if characters < 1 or len(ids_T) < 2:
            raise TextError("the text must hold at least 2 characters, or 1 for a model of records; found fewer")
        return ids_T, characters

    def _after_separator(self, ids_T: IdArray) -> IdArray:
        """The ids; for a model of records after a separator, unless they already begin with one."""
        separator = self.vocabulary.separator_id
        if separator is None or (len(ids_T) > 0 and ids_T[0] == separator):
            return ids_T
        return np.concatenate([np.array([separator], self.vocabulary.dtype), ids_T])

    def _encode(self, text: object, unknown: UnknownPolicy, what: str) -> IdArray:
        if not isinstance(text, str):
            raise SettingsError(f"{what} must be a string; got {reprlib.repr(text)}")
        text = self.clean(text)
        if self.vocabulary.kind == "bytes":
            text = self._without_surrogates(text, unknown, what)
        elif self.vocabulary.separator and "\n" not in self.vocabulary.characters:
            text = NEWLINES.sub(RECORD_SEPARATOR, text)
        return self.vocabulary.encode(text, unknown, what)

    def _without_surrogates(self, text: str, unknown: UnknownPolicy, what: str) -> str:
        """The text without lone surrogates, such as half an emoji from a cut JSON string. UTF-8 cannot encode them."""
        lone = LONE_IN_RECORDS if self.vocabulary.separator else LONE
        if (found := lone.search(text)) is None:
            return text
        if unknown == "error":
            raise UnknownCharacterError(
                f"{what} must be Unicode text; found the lone surrogate U+{ord(found[0]):04X} at position "
                f"{found.start()}; pass `unknown='skip'` or `unknown='replace'`"
            )
        return lone.sub("" if unknown == "skip" else "\ufffd", text)
