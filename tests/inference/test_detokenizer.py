"""From tokens to text: whole characters, records, stop strings and the length."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.data.vocabulary import Vocabulary
from charloom.inference.detokenizer import Detokenizer
from charloom.inference.stop_strings import StopGate, StopStrings

ABC = Vocabulary("characters", ("a", "b", "c"), unknown=True, separator=True)
RECORD_SEPARATOR = 4


def detokenized(tokens, vocabulary=ABC, stop=(), **options):
    """The text of each token up to the end, and the finish reason."""
    detokenizer, chunks = Detokenizer(vocabulary, stop=StopStrings(stop), **options), []
    for token in tokens:
        if detokenizer.finish_reason:
            break
        chunks.append(detokenizer.push(token))
    return chunks, detokenizer.finish_reason


def gated(text, stop):
    gate, out = StopGate(StopStrings(stop)), ""
    for character in text:
        chunk = gate.push(character)
        out += chunk
        assert not gate.stopped or not gate.push("x")
        if gate.stopped:
            return out, True
    return out + gate.release(), False


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_the_gate_ends_before_the_first_whole_stop_string(text, stop):
    """Catches overlapping candidates: `aab` in `aaab`, a stop string inside another, one that begins in the
    last one.
    """
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(s) for s in stop)]
    if not ends:
        assert gated(text, stop) == (text, False)
    else:
        longest = max(len(s) for s in stop if text[: ends[0]].endswith(s))
        assert gated(text, stop) == (text[: ends[0] - longest], True)


def test_the_gate_holds_back_only_what_could_become_a_stop_string():
    """Catches a stream that stalls, and one that lets the beginning of a stop string out."""
    gate = StopGate(StopStrings(["bc"]))
    assert [gate.push(c) for c in "abab"] == ["a", "", "ba", ""]
    assert gate.push("c") == ""
    assert gate.stopped


@given(st.text("ab", max_size=40), st.lists(st.text("ab", min_size=1, max_size=9), min_size=1, max_size=4))
def test_the_gate_waits_with_the_longest_beginning_of_a_stop_string(text, stop):
    """Catches a missing transition of the automaton, and one that belongs to another stop string."""
    gate, out = StopGate(StopStrings(stop)), ""
    for end, character in enumerate(text, start=1):
        out += gate.push(character)
        if gate.stopped:
            break
        begun = [n for n in range(end + 1) if any(s.startswith(text[end - n : end]) for s in stop)]
        assert out == text[: end - max(begun)]


def test_long_stop_strings_take_linear_memory():
    """Catches an automaton that stores every prefix: 100,000 characters took 5 GB, and each character took a search."""
    tracemalloc.start()
    stop = StopStrings(["z" * 100_000, "z" * 50_000 + "y"])
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    gate = StopGate(stop)
    assert not any(map(gate.push, "z" * 99_999))
    assert gate.push("a") == "z" * 99_999 + "a"
    assert not any(map(gate.push, "z" * 50_000))
    assert gate.push("y") == ""
    assert gate.stopped


def test_length_is_exact():
    """Catches a separator of two characters that runs over the length, and a text that begins at length 0."""
    assert detokenized([0, RECORD_SEPARATOR, 1], separator_text="\n\n", length=2) == (["a", "\n"], "length")
    assert detokenized([0, 1], length=0) == ([], "length")
    assert detokenized([0, 1, 2], length=2) == (["a", "b"], "length")


def test_records_end_the_text_without_a_separator_behind_the_last():
    """Catches a count that is off by one, and an end that swallows what a stop string held back."""
    tokens = [0, RECORD_SEPARATOR, 1, RECORD_SEPARATOR, 2]
    assert detokenized(tokens, records=2) == (["a", "\n", "b", ""], "records")
    assert detokenized(tokens, records=2, stop=["bc"]) == (["a", "\n", "", "b"], "records")
    assert detokenized(tokens, records=3) == (["a", "\n", "b", "\n", "c"], None)


def test_a_separator_can_complete_a_stop_string():
    """Catches separators that do not pass through the gate."""
    assert detokenized([0, RECORD_SEPARATOR, 1], separator_text="\n\n", stop=["a\n"]) == (["", ""], "stop")


def test_a_stop_string_across_the_length_is_not_begun():
    """Catches the first half of a stop string at the very end of a text of exact length."""
    assert detokenized([0, 1, 2], length=2, stop=["bc"]) == (["a", "", ""], "stop")
    assert detokenized([0, 1, 0], length=2, stop=["bc"]) == (["a", "", "b"], "length")


@given(st.binary(max_size=30) | st.text(max_size=10).map(str.encode), st.integers(0, 8))
def test_bytes_come_out_as_whole_characters(data, length):
    """Catches half a character, in any place, and bytes counted as characters."""
    chunks, done = detokenized(data, Vocabulary("bytes"), length=length)
    text = "".join(chunks)
    assert data.decode("utf-8", "replace").startswith(text)
    assert len(text) <= length
    assert (done == "length") == (len(text) == length)


@pytest.mark.parametrize("text", ["é", "🦊", "日本語"])
def test_a_character_comes_with_its_last_byte(text):
    """Catches a decoder that waits longer than necessary."""
    chunks, _ = detokenized(text.encode(), Vocabulary("bytes"))
    assert "".join(chunks) == text
    assert chunks[-1] == text[-1]


@given(st.lists(st.integers(0, 4), max_size=30), st.integers(0, 12))
def test_the_text_left_and_the_end(tokens, length):
    """Catches a token that counts after the end, and a wrong count of the characters that are left."""
    detokenizer, text = Detokenizer(ABC, length=length, stop=StopStrings(["ab"]), separator_text="-"), ""
    for token in tokens:
        ended = detokenizer.finish_reason
        text += (chunk := detokenizer.push(token))
        assert not (ended and chunk)
        assert detokenizer.left == (0 if detokenizer.finish_reason else length - len(text))
    assert text == "".join(detokenized(tokens, length=length, stop=["ab"], separator_text="-")[0])


@given(
    st.lists(st.integers(0, 4), max_size=30),
    st.integers(0, 30),
    st.none() | st.integers(0, 12),
    st.none() | st.integers(1, 3),
    st.sampled_from([(), ("ab",)]),
)
def test_tokens_taken_together_give_the_same_text(tokens, cut, length, records, stop):
    """Catches a token lost between two chunks, one that counts after the end, and an end that the fast path misses."""
    options = {"length": length, "records": records, "separator_text": "-"}
    one, many = Detokenizer(ABC, stop=StopStrings(stop), **options), Detokenizer(ABC, stop=StopStrings(stop), **options)
    text, taken = "", 0
    for token in tokens:
        if one.finish_reason is None:
            text, taken = text + one.push(token), taken + 1
    (first, before), (rest, after) = many.take(tokens[:cut]), many.take(tokens[cut:])
    assert (first + rest, before + after, many.finish_reason, many.left) == (text, taken, one.finish_reason, one.left)
