"""The characters of an imported network, in the forms that people use."""

from __future__ import annotations

import json

import pytest

from charloom.errors import ModelError, SettingsError
from charloom.importers.tokens import check_tokens, read_characters, renumber


@pytest.fixture
def written(tmp_path):
    """A file with this content."""

    def written(content):
        path = tmp_path / "characters"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


@pytest.mark.parametrize(
    ("content", "characters"),
    [
        ("cab", "cab"),
        ("cab\n", "cab"),
        ("ca\n", "ca\n"),
        ("\n ca", "\n ca"),
        ("\ncab\n", "\ncab"),
        ("\r\nc", "\r\nc"),
        ("→é🙂", "→é🙂"),
        (json.dumps(["c", "\n", "é"]), "c\né"),
        ("\ufeff" + json.dumps(["c", "a"]), "ca"),
        ('\n {"b": 1, "a": 0}', "ab"),
        ('{"1": "b", "0": "a"}', "ab"),
        ('{"1": 0, "0": 1}', "10"),
        (json.dumps({str(index): character for index, character in enumerate("cbadefghijk")}), "cbadefghijk"),
        ('{"vocab_size": 2, "stoi": {"b": 1, "a": 0}, "itos": {"0": "a", "1": "b"}}', "ab"),
        ('{"stoi": {"b": 1, "a": 0}}', "ab"),
        ('{"itos": ["b", "a"]}', "ba"),
    ],
)
def test_every_form(written, content, characters):
    """Catches a newline character that is dropped, a final newline that is kept, and an object in the order of its
    file.
    """
    assert read_characters(written(content), len(characters)) == tuple(characters)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("ab", "the characters must be as many as the network predicts, 3; found 2"),
        ("abcd\n", "the characters must be as many as the network predicts, 3; found 5"),
        ("aba", "must all be different, and none U.D800; found 'a' again"),
        ("[abc", "a file that begins with .* must be JSON; it is not"),
        ("[" * 100_000, "must be JSON"),
        ('["a", "b", 3]', "found a list with a int"),
        ('["a", "b", "the"]', "every token must be one character; found 'the'"),
        ('["a", "b", ""]', "every token must be one character; found ''"),
        ('{"itos": 1, "b": 0, "c": 2}', "every token must be one character; found 'itos'"),
        ('["a", "[UNK]", "<unk>"]', "every token must be one character; found '<unk>'"),
        ('{"a": 1, "b": 2, "c": 3}', "indices must be 0 … 2, each once; 0 is missing"),
        ('{"a": 0, "b": 1, "c": "2"}', "indices must be 0 … 2, each once"),
        ('{"a": [], "b": {}}', "indices must be"),
        (b"ab\xff", "`characters` must be a UTF-8 file; .* at offset 2"),
    ],
)
def test_what_is_refused(written, content, says):
    """Catches tokens that stand for other characters than the network's, and a traceback."""
    with pytest.raises(SettingsError, match=says) as error:
        read_characters(written(content), 3)
    assert str(error.value).startswith("`characters` ")
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path):
    """Catches a traceback for a mistyped name."""
    with pytest.raises(SettingsError, match=r"`characters` must be a file that can be read; .*: No such file"):
        read_characters(tmp_path / "nowhere", 3)


def test_renumbering():
    """Catches ids that are not in code point order, which a vocabulary needs, and the unknown token among them."""
    vocabulary, order = renumber(("é", "[UNK]", "b", "\n"))
    assert vocabulary.characters == ("\n", "b", "é")
    assert vocabulary.unknown
    assert order == [3, 2, 0, 1]


def test_padding_is_left_out():
    """Catches padding that is refused as a word, or kept as a character that can be generated."""
    tokens = ("<pad>", "<unk>", "b", "a")
    check_tokens(tokens, 4)
    vocabulary, order = renumber(tokens)
    assert (vocabulary.characters, vocabulary.unknown) == (("a", "b"), True)
    assert order == [3, 2, 1]


def test_the_separator_is_no_character():
    """Catches a lone surrogate that is charloom's record separator."""
    with pytest.raises(ModelError, match=r"none U.D800"):
        check_tokens(("a", "\ud800"), 2)


@pytest.mark.parametrize("length", [1, 2])
def test_many_tokens_are_compared_once(length):
    """Catches a check that compares every token with every other: 100,000 of them, a file of 500 kB, took minutes."""
    compared = []

    class Token(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared.append(other)
            return str.__eq__(self, other)

    tokens = tuple(Token(chr(0x4E00 + index) * length) for index in range(1000))
    try:
        check_tokens(tokens, len(tokens))
    except ModelError:
        assert length == 2
    assert len(compared) < 20 * len(tokens)
