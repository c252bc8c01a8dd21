"""`charloom eval`: figures that are the model's, in a table and as JSON."""

from __future__ import annotations

import json
import lzma
import math

import pytest

from charloom.generate.model import Model

ZEN = "Beautiful is better than ugly.\nExplicit is better than implicit.\n"


def test_json_has_every_figure(charloom, tmp_path, tiny):
    """A figure under another's name, or one that is not the model's own."""
    (tmp_path / "a.txt").write_text(ZEN * 3)
    ended = charloom("eval", tiny, "a.txt", "--json")
    assert (ended.status, ended.err) == (0, "")
    report, score = json.loads(ended.out), Model.load(tiny).score(ZEN * 3)
    assert report == {
        "characters": len(ZEN) * 3 - 1,
        "nats_per_char": pytest.approx(score.nats_per_char),
        "bits_per_char": pytest.approx(score.nats_per_char / math.log(2)),
        "perplexity": pytest.approx(math.exp(score.nats_per_char)),
        "accuracy": pytest.approx(score.accuracy),
        "xz_bits_per_char": 8 * len(lzma.compress((ZEN * 3).encode(), preset=9 | lzma.PRESET_EXTREME)) / len(ZEN) / 3,
    }


def test_several_files_are_one_text(charloom, tmp_path, tiny):
    """Only the first file measured, or the state lost between two."""
    one, two = ZEN.splitlines(keepends=True)
    for name, text in (("a.txt", one), ("b.txt", two), ("both.txt", ZEN)):
        (tmp_path / name).write_text(text)
    assert charloom("eval", tiny, "a.txt", "b.txt", "--json").out == charloom("eval", tiny, "both.txt", "--json").out


def test_the_table_is_labelled_and_aligned(charloom, tmp_path, tiny):
    """Nats that could be read as bits; figures that do not stand below each other."""
    (tmp_path / "a.txt").write_text(ZEN)
    lines = charloom("eval", tiny, "a.txt").out.splitlines()
    assert [line[:16].strip() for line in lines] == [
        "characters",
        "nats per char",
        "bits per char",
        "perplexity",
        "top-1 accuracy",
    ]
    assert all(line[15] == " " and line[16] != " " for line in lines)
    assert "xz -9e" in lines[2]


def test_a_byte_level_model_tells_bits_per_byte_too(charloom, tmp_path, tiny_bytes):
    """Bits per byte sold as bits per character: é is one character and two bytes."""
    (tmp_path / "a.txt").write_text("é" * 50, encoding="utf-8")
    report = json.loads(charloom("eval", tiny_bytes, "a.txt", "--json").out)
    assert (report["characters"], report["bytes"]) == (49, 99)
    assert report["bits_per_byte"] * 99 == pytest.approx(report["bits_per_char"] * 49)


def test_unknown_characters(charloom, tmp_path, tiny):
    """Skipped characters that are counted all the same; a policy that does not exist taken for another."""
    (tmp_path / "a.txt").write_text("Now is é better", encoding="utf-8")
    assert json.loads(charloom("eval", tiny, "a.txt", "--unknown", "skip", "--json").out)["characters"] == 13
    ended = charloom("eval", tiny, "a.txt", "--unknown", "guess")
    assert ended.status == 2
    assert "'guess' is not one of 'error', 'skip', 'replace'" in ended.complaint


def test_texts_are_prepared_as_the_models_own(charloom, tmp_path, smallest, corpus_file):
    """Capitals that a model of lower case never saw, counted against it."""
    assert charloom("train", corpus_file, *smallest, "--lowercase", "--out", "low", "--quiet").status == 0
    (tmp_path / "a.txt").write_text(ZEN.upper())
    (tmp_path / "b.txt").write_text(ZEN.lower())
    shouted, said = (charloom("eval", "low", name, "--json") for name in ("a.txt", "b.txt"))
    assert shouted.status == 0
    assert json.loads(shouted.out)["nats_per_char"] == json.loads(said.out)["nats_per_char"]


def test_a_text_of_nothing(charloom, tmp_path, tiny):
    """A division by zero."""
    (tmp_path / "a.txt").write_text("")
    ended = charloom("eval", tiny, "a.txt")
    assert ended.status == 1
    assert "at least 2 characters" in ended.complaint
