"""The static score by character and by line: nothing is lost, doubled, or given to another character."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from charloom.data.tokenizer import Tokenizer
from charloom.data.vocabulary import RECORD_SEPARATOR, Vocabulary
from charloom.evaluation import static
from charloom.evaluation.characters import CharacterNats, per_character, per_line
from charloom.evaluation.engine import open_evaluation_engine
from charloom.evaluation.text import EvaluationText, encoded
from charloom.model import Model

LETTERS = Vocabulary("characters", tuple("\n abcd"))
RECORDS = Vocabulary("characters", tuple("abcd"), separator=True)
BYTES = Vocabulary("bytes")
BINARY = Vocabulary("bytes", binary=True)
BYTE_RECORDS = Vocabulary("bytes", separator=True)


def joined(chunks):
    """All chunks as one."""
    chunks = [*chunks]
    starts = np.cumsum([0, *(len(chunk.text) for chunk in chunks[:-1])])
    assert [chunk.start for chunk in chunks] == starts.tolist()
    return CharacterNats("".join(c.text for c in chunks), np.concatenate([c.nats_C for c in chunks]), 0)


@pytest.mark.parametrize("block", [3, static.BLOCK])
@pytest.mark.parametrize(
    ("vocabulary", "text"),
    [
        (LETTERS, "abcd dcba\n\nab d" * 3),
        (RECORDS, RECORD_SEPARATOR.join(["ab", "dcba", "a"])),
        (BYTES, "é🦊 aé\n漢字🦊"),
        (BYTES, "a🦊"),
        (BINARY, "a\udcff\udce2(é\udce2\udc82"),
        (BYTE_RECORDS, RECORD_SEPARATOR + "é🦊" + RECORD_SEPARATOR + "a" + RECORD_SEPARATOR),
    ],
)
def test_characters_add_up_to_the_score(monkeypatch, random_folder, vocabulary, text, block):
    """Catches a character lost at the end of a block, bytes of one counted with another, and a first one predicted."""
    monkeypatch.setattr(static, "BLOCK", block)
    folder = random_folder(vocabulary)
    found, score = joined(per_character(folder, encoded(folder, text, "error"))), Model(folder).score(text)
    shown = text.removeprefix(RECORD_SEPARATOR) if vocabulary.separator else text
    assert found.text == shown
    assert np.nansum(found.nats_C) == pytest.approx(score.nats, rel=1e-6)
    unpredicted = np.isnan(found.nats_C)
    assert unpredicted.tolist() == [not vocabulary.separator and len(shown[0].encode(errors="replace")) == 1] + [
        False
    ] * (len(shown) - 1)


def test_a_character_is_the_sum_of_its_bytes(random_folder):
    """Catches a mean of bytes, and one byte taken for all."""
    folder = random_folder(BYTES)
    text = encoded(folder, "aé🦊b", "error")
    ((nats_N, _),) = static.targets(open_evaluation_engine(folder), text.ids_T)
    found = joined(per_character(folder, text)).nats_C
    np.testing.assert_allclose(found[1:], [nats_N[:2].sum(), nats_N[2:6].sum(), nats_N[6]])


def test_a_split_that_begins_within_a_character(random_folder):
    """Catches a UnicodeDecodeError: a validation split may begin with the last bytes of a character."""
    folder = random_folder(BYTES)
    ids_T = np.frombuffer("🦊ab".encode()[1:], np.uint8)
    found = joined(per_character(folder, EvaluationText(Tokenizer(BYTES, folder.cleaning), ids_T, 2)))
    assert (found.text, np.isnan(found.nats_C).tolist()) == ("\ufffd" * 3 + "ab", [True] + [False] * 4)


def test_lines_by_hand():
    """Catches a newline counted with the next line, a line cut where a chunk ends, and a last line that is lost."""
    nan = math.nan
    chunks = [
        CharacterNats("ab", np.array([nan, 1.0]), 0),
        CharacterNats("c\n\nd" + RECORD_SEPARATOR, np.array([2.0, 4.0, 8.0, 16.0, 32.0]), 2),
        CharacterNats("e", np.array([64.0]), 7),
    ]
    found = [(line.number, line.text, line.characters, line.nats) for line in per_line(chunks)]
    assert found == [(1, "abc", 3, 7.0), (2, "", 1, 8.0), (3, "d", 2, 48.0), (4, "e", 1, 64.0)]
    (first,) = per_line([CharacterNats("\n", np.array([nan]), 0)])
    assert (first.characters, first.bits_per_char) == (0, None)


def test_a_line_of_independent_records_is_scored_as_if_alone(random_folder):
    """Catches a record that is read after the one before it, or without the separator that ends it."""
    folder = random_folder(RECORDS, records="line", keep_order=False)
    texts = ["ab", "dcbaabcd", "a", "cc"]
    lines = [*per_line(per_character(folder, encoded(folder, RECORD_SEPARATOR.join([*texts, ""]), "error")))]
    assert [line.text for line in lines] == texts
    for line in lines:
        alone = Model(folder).score(line.text + RECORD_SEPARATOR)
        assert (line.nats, line.characters) == (pytest.approx(alone.nats, rel=1e-5), alone.characters)
        assert line.bits_per_char == pytest.approx(alone.bits_per_char, rel=1e-5)


def test_memory_does_not_grow_with_the_text(monkeypatch, random_folder):
    """Catches nats, characters or lines that are kept for the whole text: 8 bytes a character would be 480,000."""
    monkeypatch.setattr(static, "BLOCK", 512)
    folder = random_folder(LETTERS)
    text = encoded(folder, "ab\n" * 20_000, "error")
    tracemalloc.start()
    assert sum(line.characters for line in per_line(per_character(folder, text))) == 59_999
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000
