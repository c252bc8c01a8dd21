"""Text to token ids, and token ids to text."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.data.vocabulary import RECORD_SEPARATOR, Decoder, Vocabulary, code_points
from charloom.errors import ModelError, UnknownCharacterError

ANY = st.characters(exclude_categories=["Cs"])
BYTES = Vocabulary("bytes", separator=True)


def of(text: str, **special: bool) -> Vocabulary:
    return Vocabulary("characters", tuple(sorted(set(text) - {RECORD_SEPARATOR})), **special)


@given(st.text(st.one_of(ANY, st.sampled_from(["\udc80", "\udcff", "a", "\U0010ffff"]))))
def test_code_points(text: str):
    """Catches a character beyond U+FFFF that becomes two, and text that loses its order or a lone surrogate."""
    assert code_points(text).tolist() == [*map(ord, text)]


def test_ids_are_in_code_point_order():
    """Catches the order of the locale, of UTF-16 or of first appearance, and special tokens among characters."""
    vocabulary = of("b\U0001f642\uffeea\néA", unknown=True, separator=True)
    assert vocabulary.characters == ("\n", "A", "a", "b", "é", "\uffee", "\U0001f642")
    assert vocabulary.encode(f"\n\U0001f642{RECORD_SEPARATOR}é").tolist() == [0, 6, 8, 4]
    assert (vocabulary.plain, vocabulary.unknown_id, vocabulary.separator_id, vocabulary.size) == (7, 7, 8, 9)


@pytest.mark.parametrize(
    ("unknown", "separator", "ids"),
    [(False, False, (None, None)), (True, False, (2, None)), (False, True, (None, 2)), (True, True, (2, 3))],
)
def test_special_tokens_come_after_the_characters(unknown: bool, separator: bool, ids: tuple[int | None, int | None]):
    """Catches a gap or two equal ids if only one of the two tokens exists."""
    vocabulary = Vocabulary("characters", ("a", "b"), unknown, separator)
    assert (vocabulary.unknown_id, vocabulary.separator_id) == ids
    assert vocabulary.size == 2 + unknown + separator


@given(st.text(st.one_of(ANY, st.just(RECORD_SEPARATOR))), st.booleans())
def test_characters_there_and_back(text: str, unknown: bool):
    """Catches text that changes when it is encoded and decoded by characters."""
    vocabulary = of(text, unknown=unknown, separator=True)
    ids = vocabulary.encode(text)
    assert len(ids) == len(text)
    assert ids.dtype == vocabulary.dtype
    assert vocabulary.decode(ids, separator_text=RECORD_SEPARATOR) == text


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=4))
def test_any_bytes_are_their_own_ids(parts: list[bytes]):
    """Catches a byte changed on its way through a string, and a separator misplaced or taken for a byte."""
    text = RECORD_SEPARATOR.join(part.decode("utf-8", "surrogateescape") for part in parts)
    expected = [token for part in parts for token in (256, *part)][1:]
    assert BYTES.encode(text).tolist() == expected
    if len(parts) == 1:
        plain = Vocabulary("bytes").encode(text)
        assert plain.tobytes() == parts[0]
        assert plain.dtype == np.uint8


@given(st.text(st.one_of(ANY, st.just(RECORD_SEPARATOR))))
def test_bytes_there_and_back(text: str):
    """Catches text that changes when it is encoded and decoded by bytes."""
    assert BYTES.decode(BYTES.encode(text), separator_text=RECORD_SEPARATOR) == text


def test_separators_become_newlines():
    """Catches a lone surrogate in text for users."""
    for vocabulary in (of("ab", separator=True), BYTES):
        assert (
            vocabulary.decode(vocabulary.encode(f"{RECORD_SEPARATOR}a{RECORD_SEPARATOR}b{RECORD_SEPARATOR}"))
            == "\na\nb\n"
        )


def test_no_text_is_no_ids():
    """Catches an empty prompt that fails."""
    for vocabulary in (of("ab"), BYTES, Vocabulary("bytes")):
        assert vocabulary.encode("").tolist() == []
        assert vocabulary.encode("").dtype == vocabulary.dtype
        assert vocabulary.decode(vocabulary.encode("")) == ""


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("abé漢", "'é' (U+00E9) at position 2"),
        ("ab\U0001f642é", "'\U0001f642' (U+1F642) at position 2"),
        ("\n", "'\\n' (U+000A) at position 0"),
        ("a\u2028", "'\\u2028' (U+2028) at position 1"),
        (f"a{RECORD_SEPARATOR}", "'\\ud800' (U+D800) at position 1"),
    ],
)
def test_the_first_unknown_character_is_named(text: str, named: str):
    """Catches the last unknown character instead of the first, a position in bytes or UTF-16, and a message of two
    lines.
    """
    with pytest.raises(UnknownCharacterError) as caught:
        of("ab", unknown=True).encode(text, what="the prompt")
    assert str(caught.value) == (
        f"{named} of the prompt is not in this model's vocabulary of 2 characters; pass `unknown='skip'` or "
        "`unknown='replace'`, or use a byte-level model (trained with `vocabulary='bytes'`)"
    )


@pytest.mark.parametrize(
    ("characters", "unknown", "expected"),
    [
        (" ?ab\ufffd", True, [2, 5, 3, 5]),
        (" ?ab\ufffd", False, [2, 4, 3, 4]),
        (" ?ab", False, [2, 1, 3, 1]),
        (" ab", False, [1, 0, 2, 0]),
    ],
)
def test_unknown_characters(characters: str, unknown: bool, expected: list[int]):
    """Catches a replacement that is not the unknown token or the next best one, and skipping too many characters."""
    vocabulary = of(characters, unknown=unknown)
    a, b = vocabulary.encode("ab").tolist()
    assert vocabulary.encode("aébé", "skip").tolist() == [a, b]
    assert vocabulary.encode("aébé", "replace").tolist() == expected
    assert vocabulary.encode("ab", "replace").tolist() == [a, b]
    assert vocabulary.encode("é", "skip").tolist() == []
    assert {vocabulary.encode("aéb", policy).dtype for policy in ("skip", "replace")} == {vocabulary.dtype}


def test_replacing_where_nothing_can_stand_in():
    """Catches an id of None, and an error if there is nothing to replace."""
    assert of("ab").encode("ba", "replace").tolist() == [1, 0]
    with pytest.raises(UnknownCharacterError, match=r"^`unknown='replace'` needs a model with an unknown token .*skip"):
        of("ab").encode("é", "replace")


@pytest.mark.parametrize(
    ("tokens", "dtype"), [(1, np.uint8), (255, np.uint8), (256, np.uint8), (257, np.uint16), (65537, np.uint32)]
)
def test_ids_are_the_smallest_that_fit(tokens: int, dtype: type):
    """Catches an id that overflows to 0, and ids that take twice the memory."""
    text = "".join(map(chr, range(0x10000, 0x10000 + tokens)))
    assert of(text).dtype == dtype
    assert of(text).encode(text).tolist() == [*range(tokens)]
    special = of(text[:-1], separator=True)
    assert special.dtype == dtype
    assert special.encode(RECORD_SEPARATOR).tolist() == [tokens - 1]


def test_bytes_with_a_separator_need_two():
    """Catches separator 256 stored as byte 0."""
    assert Vocabulary("bytes").dtype == np.uint8
    assert BYTES.dtype == np.uint16
    assert BYTES.encode(f"{RECORD_SEPARATOR}\0").tolist() == [256, 0]


@given(st.binary(max_size=40))
def test_a_decoder_says_what_python_says(data: bytes):
    """Catches an incomplete character, one that comes late, and bytes lost in invalid UTF-8."""
    decoder = Decoder(Vocabulary("bytes"))
    chunks = [decoder.push(token) for token in data]
    assert "".join(chunks) + decoder.finish() == data.decode("utf-8", "replace")
    assert decoder.finish() == ""


@given(st.text(ANY, max_size=20))
def test_a_decoder_gives_each_character_with_its_last_byte(text: str):
    """Catches a character that is held back until the next one."""
    decoder = Decoder(Vocabulary("bytes"))
    for character in text:
        *first, last = character.encode()
        assert [decoder.push(token) for token in first] == [""] * len(first)
        assert decoder.push(last) == character


def test_a_separator_inside_a_character():
    """Catches an incomplete character that removes the separator, or joins the bytes of the next record."""
    first, second = "é".encode()
    decoder = Decoder(BYTES)
    assert [decoder.push(token) for token in (first, 256, second, 97)] == [
        "",
        f"\ufffd{RECORD_SEPARATOR}",
        "\ufffd",
        "a",
    ]
    assert Decoder(BYTES, "\n\n").push(256) == "\n\n"
    assert decoder.push(first) + decoder.finish() == "\ufffd"
    assert decoder.push(97) == "a"


@given(st.lists(st.integers(0, 255), max_size=40))
def test_a_binary_decoder_gives_every_byte(data: list[int]):
    """Catches a byte of binary data that comes out as U+FFFD, and so as three others."""
    decoder = Decoder(Vocabulary("bytes", binary=True))
    text = "".join(map(decoder.push, data)) + decoder.finish()
    assert text.encode("utf-8", "surrogateescape") == bytes(data)


def test_binary_is_stored_where_it_is_true_alone():
    """Catches a model of binary data whose folder does not say so, and an older folder that is refused."""
    binary = Vocabulary("bytes", binary=True)
    assert Vocabulary.from_json(binary.to_json()) == binary
    assert "binary" not in BYTES.to_json()
    for wrong in (BYTES.to_json() | {"binary": 1}, of("ab").to_json() | {"binary": True}):
        with pytest.raises(ModelError, match=r"vocabulary.json: binary must be"):
            Vocabulary.from_json(wrong)


def test_the_unknown_token_is_shown():
    """Catches an unknown token that is decoded as the separator, or as nothing."""
    assert of("ab", unknown=True, separator=True).decode(np.array([0, 2, 3], np.uint8), "|") == "a\ufffd|"


def test_units():
    """Catches bits per byte that are called bits per character."""
    assert (of("ab").unit, BYTES.unit) == ("char", "byte")


@given(st.sets(st.characters(), max_size=8), st.booleans(), st.booleans())
def test_json_there_and_back(characters: set[str], unknown: bool, separator: bool):
    """Catches NUL, U+2028, lone surrogates or emoji that change in a model folder."""
    text = "".join(characters | {"\0", "\u2028", "\udc80", "\U0001f642", '"', "\\"})
    vocabulary = of(text, unknown=unknown, separator=separator)
    stored = json.dumps(vocabulary.to_json()).encode("utf-8")
    assert Vocabulary.from_json(json.loads(stored.decode("utf-8"))) == vocabulary


def test_json_of_bytes():
    """Catches a byte vocabulary that is written with characters, or read without its separator."""
    for vocabulary in (BYTES, Vocabulary("bytes")):
        assert Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))) == vocabulary


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "words"}, "kind must be 'characters' or 'bytes'; found 'words'"),
        ({"kind": None}, "kind must be 'characters' or 'bytes'; found None"),
        ({"kind": ["bytes"]}, "kind must be 'characters' or 'bytes'; found ['bytes']"),
        ({"characters": "ab"}, "characters must be a list of single characters"),
        ({"characters": None}, "characters must be a list of single characters"),
        ({"characters": ["a", "bc"]}, "characters must be a list of single characters"),
        ({"characters": ["a", ""]}, "characters must be a list of single characters"),
        ({"characters": ["a", 7]}, "characters must be a list of single characters"),
        ({"characters": ["b", "a"]}, "characters must be in code point order, each once, none U+D800"),
        ({"characters": ["a", "a"]}, "characters must be in code point order, each once, none U+D800"),
        ({"characters": ["a", RECORD_SEPARATOR]}, "characters must be in code point order, each once, none U+D800"),
        ({"characters": []}, "characters must not be empty for kind characters"),
        ({"kind": "bytes"}, "characters must be empty for kind bytes"),
        ({"unknown": 1}, "unknown must be true or false; found 1"),
        ({"unknown": None}, "unknown must be true or false; found None"),
        ({"separator": "false"}, "separator must be true or false; found 'false'"),
        ({"separator": None}, "separator must be true or false; found None"),
    ],
)
def test_a_damaged_file_is_refused(change: dict[str, Any], message: str):
    """Catches a damaged file that gives ids another meaning."""
    good = of("ab").to_json()
    Vocabulary.from_json(good)
    with pytest.raises(ModelError, match=f"^{re.escape(f'vocabulary.json: {message}')}$"):
        Vocabulary.from_json(good | change)
    with pytest.raises(ModelError, match=f"^vocabulary.json: {next(iter(change))} must"):
        Vocabulary.from_json({name: value for name, value in good.items() if name not in change})


@pytest.mark.parametrize("data", [None, 3, "bytes", ["a"]])
def test_a_file_that_holds_no_object(data: Any):
    """Catches an AttributeError."""
    with pytest.raises(ModelError, match=f"must hold an object; found {type(data).__name__}$"):
        Vocabulary.from_json(data)
