"""Texts in memory as a corpus: each string is a document, like a file."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from charloom.config import TextSettings
from charloom.data.fields import LONE_BUT_BYTES, LONE_SURROGATES
from charloom.data.named import TextDocument
from charloom.data.reading import MARK, unix_newlines
from charloom.errors import SettingsError, TextError


@dataclass(frozen=True)
class Texts:
    """The strings that `charloom.train(texts=...)` was given."""

    strings: tuple[str, ...] = field(repr=False)

    @staticmethod
    def of(texts: Iterable[str]) -> Texts:
        """The texts of a list, or of another iterable of strings.

        Raises:
            SettingsError: for one string, for no strings, or for values that are not strings.
        """
        if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
            raise SettingsError(f"`texts` must be a list of strings; got {reprlib.repr(texts)}; pass `texts=[...]`")
        strings = tuple(texts)
        if not strings:
            raise SettingsError("`texts` must have at least one string; got none")
        for number, text in enumerate(strings):
            if not isinstance(text, str):
                raise SettingsError(f"`texts` must be strings; got {reprlib.repr(text)} at index {number}")
        return Texts(strings)

    @property
    def name(self) -> str:
        """The name of this corpus for a run and its model; valid as a folder's name."""
        return "1-text-in-memory" if len(self.strings) == 1 else f"{len(self.strings)}-texts-in-memory"

    def documents(self, settings: TextSettings) -> tuple[TextDocument, ...]:
        """The texts as if they were read from files: line ends become LF, marks U+FEFF are left out.

        Raises:
            SettingsError: for a setting that applies only to files.
            TextError: for a lone surrogate; in binary data, those from U+DC80 to U+DCFF are bytes.
        """
        for name, default in (("field", None), ("encoding", None), ("errors", "strict")):
            if (found := getattr(settings, name)) != default:
                raise SettingsError(f"`{name}` is for files; got {found!r} with `texts`; leave `{name}` out")
        lone = LONE_BUT_BYTES if settings.binary else LONE_SURROGATES
        for number, text in enumerate(self.strings):
            if surrogate := lone.search(text):
                raise TextError(
                    f"`texts` must be Unicode; found the lone surrogate U+{ord(surrogate[0]):04X} at position "
                    f"{surrogate.start()} of the text at index {number}; remove or replace it"
                )
        return tuple(TextDocument(f"text {k}", _as_read(text, settings)) for k, text in enumerate(self.strings))


def _as_read(text: str, settings: TextSettings) -> str:
    text = text if settings.binary else text.replace(MARK, "")
    return text if settings.vocabulary == "bytes" else "".join(unix_newlines([text]))
