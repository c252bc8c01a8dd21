"""The text of an evaluation, and the bytes that a compressor reads of it."""

from __future__ import annotations

import pytest

from charloom.config import Cleaning
from charloom.data.vocabulary import Vocabulary
from charloom.errors import SettingsError
from charloom.evaluation.text import encoded, evaluation_text

LETTERS = Vocabulary("characters", tuple("\n abcd"))


def test_options_that_change_nothing_are_refused(random_folder):
    """Catches an option without an effect, and a second text that is not read."""
    folder = random_folder(LETTERS)
    with pytest.raises(SettingsError, match="`encoding` changes nothing without `paths`"):
        evaluation_text(folder, "ab", encoding="utf-8")
    with pytest.raises(SettingsError, match="`unknown` changes nothing without `paths`"):
        evaluation_text(folder, unknown="skip")
    with pytest.raises(SettingsError, match="`text` must be left out"):
        evaluation_text(folder, "ab", "a.txt")
    with pytest.raises(SettingsError, match="a text is needed unless the model is in a run"):
        evaluation_text(folder)


def test_files_are_read_as_options_say(random_folder, tmp_path):
    """Catches an option that is not passed on, and a text that is not cleaned like the corpus."""
    (tmp_path / "a.txt").write_bytes("AbÄ b".encode("latin-1"))
    folder = random_folder(LETTERS, cleaning=Cleaning(lowercase=True))
    found = evaluation_text(folder, paths=tmp_path / "a.txt", encoding="latin-1", unknown="skip")
    assert LETTERS.decode(found.ids_T) == "ab b"
    assert (found.characters, found.beginning(100)) == (3, ("abä b".encode(), 5))


def test_what_a_compressor_reads_can_always_be_encoded(random_folder):
    """Catches a UnicodeEncodeError from half an emoji, which a text in memory may hold."""
    found = encoded(random_folder(LETTERS), "ab\ud83dc\r\n", "skip")
    assert found.beginning(100) == ("ab\ufffdc\n".encode(), 5)
    assert found.beginning(2) == (b"ab", 2)
