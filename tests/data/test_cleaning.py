"""Cleaning in chunks against cleaning the whole."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.config import Cleaning
from charloom.data.cleaning import clean, cleaned
from charloom.data.vocabulary import RECORD_SEPARATOR

# All kinds that depend on more than one character: marks, jamo, halfwidth voicing, Indic halves, sigma and the
# characters that it ignores, letters that change their length, line ends, spaces, separators, surrogate escapes.
TRICKY = (
    "ΣσςaAJǰİıßﬁ\u0301\u030c\u0323\u0345\u1100\u1161\u11a8각ｶﾞ\u09c7\u09be'.:\u00ad \n\r\t\u00a0é①漢🙂شﻼ"
    + RECORD_SEPARATOR
    + "\udcff"
)
texts = st.text(st.one_of(st.sampled_from(TRICKY), st.characters()), max_size=40)
cleanings = st.builds(
    Cleaning,
    lowercase=st.booleans(),
    allow=st.none() | st.text(st.sampled_from("abΣσς é\u0301\n漢ﬁ^-]\\"), max_size=6),
    newlines_to_spaces=st.booleans(),
    collapse_spaces=st.booleans(),
    normalize=st.sampled_from([None, "nfc", "nfkc"]),
)


def cut(text: str, places: list[int]) -> list[str]:
    bounds = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(bounds)]


@given(texts, cleanings, st.lists(st.integers(0, 100), max_size=8))
def test_chunks_give_what_the_whole_gives(text: str, cleaning: Cleaning, places: list[int]):
    """Catches a step that ignores the characters on the other side of a cut."""
    assert "".join(cleaned(cut(text, places), cleaning)) == clean(text, cleaning)


@given(st.text(st.sampled_from("ΣΑα.' \u0301\u00ad1"), max_size=12))
def test_sigma_one_character_at_a_time(text: str):
    """Catches a rule for the final sigma that differs from Python's."""
    assert "".join(cleaned(text, Cleaning(lowercase=True))) == text.lower()


@given(texts, st.sampled_from(["nfc", "nfkc"]))
def test_normal_forms_one_character_at_a_time(text: str, form: str):
    """Catches a cut in front of a character that joins the one before it."""
    whole = unicodedata.normalize(form.upper(), text)
    assert "".join(cleaned(text, Cleaning(normalize=form))) == whole


def test_no_character_joins_the_one_before_a_cut():
    """Catches a script whose second parts of characters are taken for the beginning of a character."""
    broken = []
    for code in [*range(0xD800), *range(0xE000, 0x110000)]:
        parts = unicodedata.normalize("NFD", chr(code))
        if len(parts) > 1:
            whole = unicodedata.normalize("NFC", parts)
            if "".join(cleaned(parts, Cleaning(normalize="nfc"))) != whole:
                broken.append(code)
    assert not broken


@given(texts, cleanings.filter(lambda cleaning: cleaning.allow is None))
def test_clean_text_stays_as_it_is(text: str, cleaning: Cleaning):
    """Catches an order of steps that would change a model's own output when it becomes a prompt."""
    once = clean(text, cleaning)
    assert clean(once, cleaning) == once


@given(texts)
def test_nothing_asked_nothing_done(text: str):
    """Catches cleaning that is on by default."""
    assert clean(text, Cleaning()) == "".join(cleaned([text], Cleaning())) == text


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        ({"lowercase": True}, "ΟΔΥΣΣΕΥΣ Σ", "οδυσσευς σ"),
        ({"lowercase": True, "normalize": "nfc"}, "J\u030c", "ǰ"),
        ({"allow": "ab "}, "a-b c!\n", "ab "),
        ({"allow": "é", "normalize": "nfc"}, "e\u0301x", "é"),
        ({"allow": "e\u0301", "normalize": "nfc"}, "éx", "é"),
        ({"allow": "^]-\\"}, "a^]-\\_é", "^]-\\"),
        ({"allow": ""}, f"a{RECORD_SEPARATOR}b\udcff", f"{RECORD_SEPARATOR}\udcff"),
        ({"newlines_to_spaces": True}, "a\r\nb\rc\nd", "a b c d"),
        ({"newlines_to_spaces": True, "collapse_spaces": True}, "a \n\n b", "a b"),
        ({"allow": "a ", "collapse_spaces": True}, "a - a", "a a"),
        ({"collapse_spaces": True}, "a  \t  b", "a \t b"),
        ({"collapse_spaces": True}, f"a  {RECORD_SEPARATOR}  b", f"a {RECORD_SEPARATOR} b"),
        ({"normalize": "nfkc"}, "ﬁ①", "fi1"),
    ],
)
def test_each_step_and_their_order(settings: dict, text: str, expected: str):
    """Catches a step with another effect, or at a wrong position in the order."""
    assert clean(text, Cleaning(**settings)) == expected


def test_prompts_may_have_their_line_ends_changed():
    """Catches carriage returns in a prompt from Windows, which no model of characters knows."""
    assert clean("a\r\nb\rc", Cleaning(), newlines="lf") == "a\nb\nc"
    assert clean("a\r\nb\rc", Cleaning()) == "a\r\nb\rc"
