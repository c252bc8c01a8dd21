"""Encodings, line ends, and everything that can be opened as a file."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import random
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.config import TextSettings
from charloom.data.reading import BinaryFile, open_document, unix_newlines
from charloom.data.sources import Source, find_source
from charloom.errors import SettingsError, TextError

TEXT = "naïve Straße, кот, שלום, العربية, 漢字かな, e\u0301, 👩\u200d👧 end\nsecond line\n"
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. " * 5


def read(path: Path | str, encoding: str | None = None, size: int = 1 << 20, **settings) -> str:
    chosen = TextSettings(encoding=encoding, **settings)
    return "".join(open_document(find_source(str(path)), chosen, size=size).chunks(size))


@pytest.fixture
def file(tmp_path: Path):
    def write(data: bytes, name: str = "notes.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_marks_decide(file, mark: bytes, encoding: str, size: int):
    """Catches a mark left in the text, UTF-32 taken for UTF-16, and characters cut in two by a chunk's end."""
    path = file(mark + TEXT.encode(encoding))
    assert read(path, size=size) == TEXT
    assert read(path, vocabulary="bytes", size=size) == TEXT


@pytest.mark.parametrize(
    ("insisted", "data"),
    [
        ("utf-8", codecs.BOM_UTF8 + b"abc"),
        ("utf-8-sig", b"abc"),
        ("utf-16", "abc".encode("utf-16-le")),
        ("utf-16", codecs.BOM_UTF16_BE + "abc".encode("utf-16-be")),
        ("utf-16-le", codecs.BOM_UTF16_LE + "abc".encode("utf-16-le")),
        ("UTF32", "abc".encode("utf-32-le")),
        ("cp037", "abc".encode("cp037")),
    ],
)
def test_insisted_encodings(file, insisted: str, data: bytes):
    """Catches Python's refusal of UTF-16 without a mark, and a mark that stays if the user named the encoding."""
    assert read(file(data), insisted) == "abc"


@pytest.mark.parametrize(
    ("encoding", "text", "names"),
    [
        ("cp1252", "The café was naïve, it said “hello” — twice.\n" * 3, {"cp1252"}),
        ("cp1252", "caf\u00e9", {"cp1252"}),
        ("cp1252", "plain words " * 30_000 + "“quoted”" + " plain words" * 9000, {"cp1252"}),
        ("cp1251", RUSSIAN, {"cp1251"}),
        ("koi8-r", RUSSIAN, {"koi8_r"}),
        ("cp1251", "plain words " * 30_000 + RUSSIAN, {"cp1251"}),
        ("shift_jis", "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 9, {"cp932", "shift_jis"}),
        ("gb18030", "道可道,非常道。名可名,非常名。" * 9, {"gb18030"}),
        ("iso8859-7", "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι. " * 5, {"cp1253", "iso8859_7"}),
    ],
)
def test_other_encodings_are_detected_and_named(file, encoding: str, text: str, names: set[str]):
    """Catches a wrong guess, a guess from only the ASCII part of the file, and a guess without a notice."""
    lines: list[str] = []
    document = open_document(find_source(str(file(text.encode(encoding)))), notice=lines.append)
    assert "".join(document.chunks(1000)) == text
    assert len(lines) == 1
    assert document.codec.name in names
    assert f"is not UTF-8; reading it as {document.codec.name}" in lines[0]
    assert lines[0].endswith("(pass `encoding` to choose another)")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1 << 20])
@pytest.mark.parametrize("prefix", ["é" * 9, "漢" * 5 + "a", "👩" * 4])
def test_damaged_utf8_names_the_exact_offset(file, prefix: str, size: int):
    """Catches an offset counted in characters, or from a chunk's start, or without the bytes a decoder held back."""
    good = prefix.encode()
    for bad in (b"\xff", b"\xe6\xbc", b"\xed\xa0\x80"):
        with pytest.raises(
            TextError, match=f"0x{bad[0]:02X} at offset {len(good)} is not utf-8; pass `errors='replace'`"
        ):
            read(file(good + bad + b"a" + good), size=size)
    with pytest.raises(TextError, match=f"0xE6 at offset {len(good)} is not utf-8"):
        read(file(good + b"\xe6"), size=size)


def test_a_guess_is_shown_with_words(file):
    """Catches Polish in Latin-2 that is read as a Nordic encoding, with a notice that does not show it."""
    lines: list[str] = []
    polish = "Zażółć gęślą jaźń, wszyscy ludzie rodzą się wolni i równi. " * 30
    document = open_document(find_source(str(file(polish.encode("iso8859-2")))), notice=lines.append)
    name = document.codec.name
    first, second, third = (word.encode("iso8859-2").decode(name) for word in ("Zażółć", "gęślą", "jaźń"))
    assert f"reading it as {name}, with words such as '{first}', '{second}', '{third}' (" in lines[0]
    lines.clear()
    open_document(find_source(str(file("“quoted” — all the same\n".encode("cp1252") * 9))), notice=lines.append)
    assert "words such as" not in lines[0]


@pytest.mark.parametrize("size", [1, 2, 3, 1 << 20])
@pytest.mark.parametrize(
    ("encoding", "data", "replaced", "ignored", "says"),
    [
        (None, "ééé".encode() + b"\xff" + "ééé".encode(), "ééé\ufffdééé", "éééééé", "utf-8: 1 of 7 characters (14.29%"),
        (None, "漢字漢字".encode()[:-1], "漢字漢\ufffd", "漢字漢", "(25.00%), the first at byte 0xE5"),
        ("utf-8", b"caf\xe9 \xe9!", "caf\ufffd \ufffd!", "caf !", "utf-8: 2 of 7 characters (28.57%)"),
        ("ascii", b"caf\xe9", "caf\ufffd", "caf", "ascii: 1 of 4 characters"),
        ("cp1252", b"ab\xe9\x81", "abé\ufffd", "abé", "cp1252: 1 of 4 characters"),
        ("shift_jis", "吾輩".encode("shift_jis") + b"\xfd", "吾輩\ufffd", "吾輩", "shift_jis: 1 of 3"),
        ("utf-16", "ab".encode("utf-16-le") + b"\x61", "ab\ufffd", "ab", "utf-16-le: 1 of 3 characters"),
    ],
)  # fmt: skip
def test_what_is_not_in_the_encoding_can_be_replaced_or_ignored(
    file, encoding: str | None, data: bytes, replaced: str, ignored: str, says: str, size: int
):
    """Catches an invalid byte or an incomplete character for which no setting helps, and a change without a notice."""
    path = file(data)
    with pytest.raises(TextError, match="pass `errors='replace'` or `errors='ignore'`"):
        read(path, encoding, size=size)
    for errors, expected in (("replace", replaced), ("ignore", ignored)):
        lines: list[str] = []
        settings = TextSettings(encoding=encoding, errors=errors)
        document = open_document(find_source(str(path)), settings, lines.append, size)
        assert "".join(document.chunks(size)) == expected
        assert len(lines) == 1
        assert says in lines[0]
    good = file("good".encode(encoding or "utf-8"))
    assert "".join(open_document(find_source(str(good)), settings, pytest.fail).chunks()) == "good"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le"])
def test_marks_of_joined_files_are_left_out(file, encoding: str, size: int):
    """Catches U+FEFF among a model's characters, from joined files that each began with it."""
    path = file("\ufeffone\n\ufeff\ufefftwo\n".encode(encoding))
    for vocabulary in ("auto", "bytes"):
        lines: list[str] = []
        document = open_document(find_source(str(path)), TextSettings(vocabulary=vocabulary), lines.append, size)
        assert "".join(document.chunks(size)) == "one\ntwo\n"
        assert lines == [f"{path}: left out 2 U+FEFF inside the text (byte-order marks)"]
    assert "\ufeff" in read(file("a\ufeffb".encode()), binary=True)
    lines.clear()
    settings = TextSettings(errors="ignore")
    open_document(find_source(str(file("é\ufeffé".encode() + b"\xff"))), settings, lines.append, size)
    assert "left out 1 U+FEFF" in lines[1]


def test_errors_do_not_make_a_picture_a_text(file):
    """Catches `--errors replace` on a folder that reads its pictures, also with a given encoding."""
    for settings in ({"errors": "replace"}, {"errors": "replace", "encoding": "utf-8"}, {"encoding": "utf-8"}):
        with pytest.raises(BinaryFile):
            read(file(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), **settings)


@pytest.mark.parametrize("size", [1, 2, 3, 1 << 20])
@pytest.mark.parametrize(
    ("encoding", "before", "bad", "at"),
    [
        ("utf-8", "ab漢".encode(), b"\xff", 0),
        ("ascii", b"abc", b"\xe9", 0),
        ("cp1252", b"ab\xe9", b"\x81", 0),
        ("shift_jis", "吾輩".encode("shift_jis"), b"\xfd", 0),
        ("utf-16-le", "ab👩".encode("utf-16-le"), b"\x00\xd8a\x00", 0),
        ("utf-16-le", "ab".encode("utf-16-le"), b"\x61", 0),
    ],
)
def test_insisted_encodings_name_the_exact_offset(file, encoding: str, before: bytes, bad: bytes, at: int, size: int):
    """Catches an offset that is correct only for UTF-8."""
    with pytest.raises(TextError, match=f"notes.txt: byte 0x{bad[at]:02X} at offset {len(before)} is not "):
        read(file(before + bad), encoding, size=size)


@pytest.mark.parametrize("encoding", ["cp1252", "koi8-r", "shift_jis", "utf-16"])
def test_bytes_are_those_of_utf8(file, encoding: str):
    """Catches a byte-level model that learns the bytes of an old encoding, which cannot be decoded as UTF-8."""
    text = {
        "cp1252": "Ça coûte 5 € à l’entrée. ",
        "koi8-r": RUSSIAN,
        "shift_jis": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    }
    expected = text.get(encoding, RUSSIAN) * 9
    assert read(file(expected.encode(encoding)), vocabulary="bytes") == expected
    with pytest.raises(TextError, match="0xFF at offset 9 is not utf-8"):
        read(file("漢字か".encode() + b"\xff"), vocabulary="bytes")


@pytest.mark.parametrize("size", [1, 4, 1 << 20])
@pytest.mark.parametrize(("encoding", "width"), [(None, 1), ("latin-1", 1), ("utf-16", 2)])
def test_nul_bytes_look_binary(file, encoding: str | None, width: int, size: int):
    """Catches a picture, or UTF-16 without its mark, read as text; and a NUL counted from a chunk's start."""
    data = "naïve\0x".encode(encoding or "utf-8")[2 * (encoding == "utf-16") :]
    offset = data.index(b"\0" * width) + (width == 2)
    with pytest.raises(
        BinaryFile, match=f"looks binary: a NUL byte at offset {offset}; only a model trained with `binary=True`"
    ):
        read(file(data), encoding, size=size)
    with pytest.raises(BinaryFile, match=r"offset 1; .*utf-16-le"):
        read(file("plain".encode("utf-16-le")), size=size)


def test_nul_bytes_behind_a_bad_byte_look_binary_too(file):
    """Catches a picture that is called damaged UTF-8, or guessed to be Korean, because its first NUL comes late."""
    with pytest.raises(BinaryFile, match="offset 5,000"):
        read(file(b"\xff" * 5000 + b"\0"), size=100)


def test_random_bytes_look_binary_without_any_nul(file):
    """Catches compressed data that is accepted in some encoding."""
    noise = bytes(random.Random(0).choices(range(1, 256), k=5000))
    few = b"caf\xe9 \x01\x02" * 9
    for data in (noise, few):
        with pytest.raises(BinaryFile, match="no other encoding fits"):
            read(file(data))


@given(st.binary(max_size=60), st.integers(1, 9))
def test_binary_keeps_every_byte(tmp_path_factory, data: bytes, size: int):
    """Catches a byte, or a carriage return, that a model of binary data would never see."""
    path = tmp_path_factory.mktemp("raw") / "any.bin"
    path.write_bytes(data)
    assert read(path, binary=True, size=size).encode("utf-8", "surrogateescape") == data


def test_binary_converts_nothing(file):
    """Catches a sound file that begins with a mark of UTF-16 or UTF-8 and would lose its bytes."""
    for data in (codecs.BOM_UTF16_LE + "ab".encode("utf-16-le"), codecs.BOM_UTF8 + b"ab", "é".encode("cp1252")):
        assert read(file(data), binary=True).encode("utf-8", "surrogateescape") == data


def test_binary_checks_a_compressed_file_to_its_end(file):
    """Catches a truncated `.gz` that is found only when training reads it."""
    with pytest.raises(TextError, match="cannot be unpacked"):
        open_document(find_source(str(file(gzip.compress(b"x" * 99)[:-9], "a.gz"))), TextSettings(binary=True))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1 << 20])
def test_line_ends_become_lf_wherever_they_are_cut(file, size: int):
    """Catches a CRLF cut in two that becomes two newlines, and a CR at the very end that is lost."""
    path = file(b"a\r\nb\rc\n\r\n\r\rd\r")
    assert read(path, size=size) == "a\nb\nc\n\n\n\nd\n"
    assert read(path, vocabulary="bytes", size=size) == "a\r\nb\rc\n\r\n\r\rd\r"
    assert "".join(unix_newlines(["a\r", "", "\nb"])) == "a\nb"


@pytest.mark.parametrize("name", ["klingon", "", "a\0b", "é", "rot13", "hex", "idna", "utf-7", "unicode_escape"])
def test_unknown_and_unfit_encodings(file, name: str):
    """Catches a traceback for a mistyped name, and codecs that are not encodings of files."""
    for vocabulary in ("characters", "bytes"):
        with pytest.raises(SettingsError, match="`encoding` must be one "):
            read(file(b"abc"), name, vocabulary=vocabulary)


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_compressed(file, ending: str, pack):
    """Catches packed bytes read as text, only the first of several members read, and a traceback for a cut file."""
    packed = pack(codecs.BOM_UTF8 + TEXT.encode())
    assert read(file(packed, f"a.txt{ending.upper()}"), size=5) == TEXT
    assert read(file(pack(b"one ") + pack(b"two"), f"b{ending}")) == "one two"
    for broken in (packed[:-9], b"not packed at all"):
        with pytest.raises(TextError, match=rf"c{ending} cannot be (unpacked|read)"):
            read(file(broken, f"c{ending}"))


def test_stdin_can_be_read_twice(monkeypatch: pytest.MonkeyPatch):
    """Catches a second epoch over an empty stdin."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    document = open_document(find_source("-"))
    assert ["".join(document.chunks(7)) for _ in range(2)] == [TEXT, TEXT]
    assert document.name == "stdin"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_can_be_read_twice(tmp_path: Path):
    """Catches `charloom train <(command)` that fails at the second reading."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    thread = threading.Thread(target=pipe.write_bytes, args=(TEXT.encode(),))
    thread.start()
    document = open_document(find_source(str(pipe)))
    thread.join()
    assert ["".join(document.chunks()) for _ in range(2)] == [TEXT, TEXT]


def test_endings_of_sources(file):
    """Catches an ending hidden by compression, capitals or a URL's query."""
    assert find_source(str(file(b"", "A.JSONL.gz"))).ending == ".jsonl"
    assert find_source(str(file(b"", "a.v2.csv"))).ending == ".csv"
    source = Source("https://host.org/data.csv.xz?token=a.b", Path())
    assert (source.ending, source.compression) == (".csv", ".xz")
    assert Source("memory://data.csv", Path()).ending == ".csv"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("nowhere.txt", "nowhere.txt: no such file"),
        (".", ". is a folder"),
        ("", "''"),
        ("a\0b", r"'a\\x00b' cannot be opened"),
        ("a\nb", r"'a\\nb': no such file"),
        ("x" * 5000, "cannot be opened: File name too long"),
    ],
)
def test_missing_files(path: str, found: str):
    """Catches a traceback, or a message of two lines, for what cannot be opened."""
    with pytest.raises(TextError, match=found) as caught:
        find_source(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_changes_between_two_passes(file):
    """Catches a UnicodeDecodeError in the middle of training."""
    path = file(b"good")
    document = open_document(find_source(str(path)))
    path.write_bytes(b"bad \xff")
    with pytest.raises(TextError, match="changed while it was read: byte 0xFF at offset 4 "):
        list(document.chunks())
