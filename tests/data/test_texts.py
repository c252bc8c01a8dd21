"""Texts in memory, which are read like files with the same characters."""

from __future__ import annotations

import pytest

from charloom.config import TextSettings
from charloom.data.corpus import open_corpus
from charloom.data.texts import Texts
from charloom.data.vocabulary import RECORD_SEPARATOR as B
from charloom.errors import SettingsError, TextError

TEXTS = ["one\r\ntwo\r", "\ufeffthree\n\n", "", "é 漢\nfour"]
SETTINGS = [
    {},
    {"vocabulary": "bytes"},
    {"binary": True},
    *({"records": kind} for kind in ("line", "sentence", "paragraph", "file")),
    {"lowercase": True, "newlines_to_spaces": True, "records": "file"},
]


@pytest.mark.parametrize("values", SETTINGS)
@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_they_are_read_as_files_are(tmp_path, values, size):
    """Catches: line ends, byte-order marks or records that differ between a file and a string."""
    paths = [tmp_path / f"{number}.txt" for number in range(len(TEXTS))]
    for path, text in zip(paths, TEXTS, strict=True):
        path.write_bytes(text.encode())
    settings = TextSettings(**values)
    corpus, files = (open_corpus(source, settings, size=size) for source in (Texts.of(TEXTS), paths))
    assert corpus.text() == files.text()
    assert corpus.text() == files.text()  # can be read twice
    assert corpus.name == "4-texts-in-memory"


def test_each_text_is_a_record_of_the_kind_file():
    """Catches: a text that a newline cuts, and two that are one."""
    notices = []
    corpus = open_corpus(Texts.of(word + "\nx" for word in ("a", "b")), TextSettings(records="file"), notices.append)
    assert corpus.text() == f"{B}a\nx{B}b\nx{B}"
    assert notices == []
    open_corpus(Texts.of(["a"]), TextSettings(records="file"), notices.append)
    assert notices[0].startswith("text 0 makes one record")


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ("abc", r"list of strings; got 'abc'; pass `texts=\[...\]`"),
        (b"abc", "list of strings; got b'abc'"),
        (5, "list of strings; got 5"),
        ([], "at least one string; got none"),
        (["a", 5], "strings; got 5 at index 1"),
    ],
)
def test_mistakes(texts, found):
    """Catches: a string that is read as a list of characters, and a traceback."""
    with pytest.raises(SettingsError, match=f"^`texts` must .*{found}"):
        Texts.of(texts)


@pytest.mark.parametrize("values", [{"field": "x"}, {"encoding": "utf-8"}, {"errors": "ignore"}])
def test_settings_of_files_are_refused(values):
    """Catches: a setting that changes nothing, without an error."""
    with pytest.raises(SettingsError, match=f"`{next(iter(values))}` is for files"):
        open_corpus(Texts.of(["abc"]), TextSettings(**values))


@pytest.mark.parametrize(
    ("text", "binary", "refused"),
    [("ab\ud83d", False, True), (f"a{B}", True, True), ("a\udc80", False, True), ("a\udc80", True, False)],
)
def test_lone_surrogates_are_refused_where_they_are_no_bytes(text, binary, refused):
    """Catches: half an emoji that ends in a UnicodeEncodeError, and a string that forges a record separator."""
    if not refused:
        assert open_corpus(Texts.of(["b", text]), TextSettings(binary=binary)).text() == f"b\n{text}"
        return
    with pytest.raises(TextError, match=r"lone surrogate U\+.* at position \d of the text at index 1"):
        open_corpus(Texts.of(["b", text]), TextSettings(binary=binary))
