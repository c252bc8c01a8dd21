"""Tokens as text: each token stands at its own place in the text that they make together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.data.vocabulary import Vocabulary
from charloom.inference.token_texts import TokenPlaces, token_names

RECORDS = Vocabulary("characters", tuple("abc"), unknown=True, separator=True)


def places(vocabulary, ids, separator_text="\n", start=0):
    found = TokenPlaces(vocabulary, separator_text, start)
    return [found.push(token) for token in ids]


def test_names():
    """Catches half a character, a lone surrogate or a record separator as a name."""
    assert token_names(RECORDS, "\n\n") == ("a", "b", "c", "\ufffd", "\n\n")
    names = token_names(Vocabulary("bytes", separator=True), " ")
    assert (names[65], names[127], names[128], names[226], names[256]) == (
        "A",
        "\x7f",
        "bytes:\\x80",
        "bytes:\\xe2",
        " ",
    )
    assert len(names) == 257


@pytest.mark.parametrize("separator_text", ["\n", "\n\n"])
@given(ids=st.lists(st.integers(0, 4)), start=st.integers(0, 9))
def test_a_token_of_characters_begins_where_its_name_stands(separator_text, ids, start):
    """Catches a separator of two characters that counts as one, or a start that is not counted."""
    names = token_names(RECORDS, separator_text)
    text = "." * start + "".join(names[token] for token in ids)
    found = places(RECORDS, ids, separator_text, start)
    assert all(text.startswith(names[token], place) for token, place in zip(ids, found, strict=True))
    assert found == sorted(found)


@given(text=st.text("aé€😀"))
def test_all_bytes_of_a_character_begin_with_it(text):
    """Catches a byte that counts as a character."""
    expected = [place for place, character in enumerate(text) for _ in character.encode()]
    assert places(Vocabulary("bytes"), text.encode()) == expected


@pytest.mark.parametrize("binary", [False, True])
@given(ids=st.lists(st.integers(0, 256), max_size=12))
def test_places_of_any_bytes_lie_in_the_text(binary, ids):
    """Catches a place before or behind the text, and one that lies before the place of the last token."""
    vocabulary = Vocabulary("bytes", separator=True, binary=binary)
    found = places(vocabulary, ids, "\n\n")
    assert found == sorted(found)
    length = len(vocabulary.decode(np.array(ids, np.int64), "\n\n"))
    assert all(0 <= place <= length for place in found)
