"""The characters of an imported network, in the order of their indices.

Other programs number characters in the order of a set, or by frequency. charloom's ids are in code point order, so the
import puts the rows of the weights into that order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from charloom.data.vocabulary import RECORD_SEPARATOR, Vocabulary
from charloom.errors import ModelError, SettingsError
from charloom.files import read

UNKNOWN = ("[UNK]", "<unk>", "<UNK>")
"""Names of the token for unseen characters, in Keras's StringLookup and in other programs."""

PADDING = ("<pad>", "<PAD>", "[PAD]")
"""Names of the padding token. It stands for no text, so an import leaves it out."""

NAMED = ("itos", "stoi")
"""Index to token and token to index: the keys of both in nanoGPT's `meta` and in torchtext."""


def read_characters(path: Path, count: int) -> tuple[str, ...]:
    """The characters of a file in the order of their indices.

    A file that begins with `[` or `{` is JSON: a list, or an object from character to index or from index to character.
    Any other file has the characters themselves. If it has one character too many, a final newline does not count.

    Args:
        path: a UTF-8 file.
        count: the number of tokens that the network predicts (V).

    Raises:
        SettingsError: if the file cannot be read, or holds another number of characters, or one twice.
    """
    try:
        text = read(path).decode("utf-8")
        tokens = _from_json(text) if text.lstrip("\ufeff \t\r\n")[:1] in ("[", "{") else _from_text(text, count)
        check_tokens(tokens, count)
    except OSError as error:
        raise SettingsError(f"`characters` must be a file that can be read; {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"`characters` must be a UTF-8 file; {path} is not: {error.reason} at offset {error.start:,}"
        ) from None
    except ModelError as error:
        raise SettingsError(f"`characters` {path}: {error}") from None
    return tokens


def _from_text(text: str, count: int) -> tuple[str, ...]:
    return tuple(text[:-1] if len(text) == count + 1 and text.endswith("\n") else text)


def _from_json(text: str) -> tuple[str, ...]:
    try:
        return in_order(json.loads(text.lstrip("\ufeff")))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"a file that begins with [ or {{ must be JSON; it is not: {error}") from None


def in_order(value: Any) -> tuple[str, ...]:
    """Tokens in index order, from a tuple, list or string, or from a mapping of token to index or index to token.

    A mapping may also hold one of those under `itos` or `stoi`.

    Raises:
        ModelError: for anything else, such as a set, which has no order.
    """
    if isinstance(value, Mapping):
        named = next((value[name] for name in NAMED if isinstance(value.get(name), Mapping | list | tuple)), None)
        value = _by_index(value) if named is None else in_order(named)
    if not isinstance(value, tuple | list | str) or not all(isinstance(token, str) for token in value):
        raise ModelError(
            f"the characters must be a list, a string, or a mapping to or from their index; found {_kind(value)}"
        )
    return tuple(value)


def _by_index(mapping: Mapping[Any, Any]) -> list[Any]:
    """The tokens of a mapping. In JSON every key is a string, so the values show its direction."""
    pairs = [*mapping.items()]
    if all(isinstance(index, int) for index in mapping.values()):
        pairs = [(index, token) for token, index in pairs]
    places = {int(index): token for index, token in pairs if str(index).isdecimal()}
    missing = [index for index in range(len(pairs)) if index not in places]
    if missing:
        raise ModelError(f"the characters' indices must be 0 … {len(pairs) - 1}, each once; {missing[0]} is missing")
    return [places[index] for index in range(len(pairs))]


def _kind(value: Any) -> str:
    """The type of a wrong value, or of its first wrong element, for an error."""
    if not isinstance(value, tuple | list):
        return f"a {type(value).__name__}"
    return f"a {type(value).__name__} with a {next(type(x).__name__ for x in value if not isinstance(x, str))}"


def check_tokens(tokens: tuple[str, ...], count: int) -> None:
    """Checks that tokens are single characters, each once, and as many as the network predicts.

    Raises:
        ModelError: naming the first wrong token.
    """
    unknown = _unknown(tokens)
    words = [token for token in tokens if len(token) != 1 and token not in (unknown, *PADDING)]
    if words:
        raise ModelError(f"every token must be one character; found {words[0]!r}; charloom has no word-level models")
    if len(tokens) != count:
        raise ModelError(f"the characters must be as many as the network predicts, {count}; found {len(tokens)}")
    twice = sorted({token for token, times in Counter(tokens).items() if times > 1} | {RECORD_SEPARATOR} & {*tokens})
    if twice:
        raise ModelError(f"the characters must all be different, and none U+D800; found {twice[0]!r} again")


def _unknown(tokens: tuple[str, ...]) -> str | None:
    """The token for unseen characters, if there is one."""
    return next((name for name in UNKNOWN if name in tokens), None)


def renumber(tokens: tuple[str, ...]) -> tuple[Vocabulary, list[int]]:
    """charloom's vocabulary of checked tokens, and for each of its ids the index in the file; without padding."""
    unknown = _unknown(tokens)
    characters = sorted(token for token in tokens if token != unknown and token not in PADDING)
    index = {token: place for place, token in enumerate(tokens)}
    last = [] if unknown is None else [index[unknown]]
    return Vocabulary("characters", tuple(characters), unknown is not None), [
        *map(index.__getitem__, characters),
        *last,
    ]
