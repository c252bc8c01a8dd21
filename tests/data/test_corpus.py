"""Paths, fields and records: which text they give, and the notices about all other files."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.config import TextSettings
from charloom.data import corpus as corpus_module
from charloom.data.corpus import Corpus, corpus_name, open_corpus
from charloom.data.named import TextDocument
from charloom.data.sources import CHUNK
from charloom.data.vocabulary import RECORD_SEPARATOR as B
from charloom.errors import SettingsError, TextError

KINDS = ("none", "line", "sentence", "paragraph", "file")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes files into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(**files: str | bytes) -> Path:
        for name, data in files.items():
            path = tmp_path / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.encode() if isinstance(data, str) else data)
        return tmp_path

    return write


def text_of(*paths: str, **settings) -> str:
    return open_corpus(paths, TextSettings(**settings)).text()


def records_of(texts: list[str], kind: str) -> list[str]:
    """The records of plain texts, by the simplest definition."""
    if kind == "line":
        found = [line for text in texts for line in text.split("\n")]
    elif kind == "paragraph":
        found = [part for text in texts for part in re.split(r"\n\s*\n", text)]
    elif kind == "sentence":
        blocks = [part for text in texts for part in re.split(r"\n\s*\n", text)]
        found = [
            part for block in blocks for part in re.split(r"""(?<=[.!?])\s+|(?<=[.!?]["”])\s+|(?<=。)\s*""", block)
        ]
    else:
        found = texts
    return [record.strip("\r\n") for record in found if record.strip()]


def corpus_of(texts: list[str], settings: TextSettings, size: int = CHUNK) -> Corpus:
    return Corpus("text", tuple(TextDocument("text", text) for text in texts), settings, size)


PARTS = ["a", "b c", "d. ", "!?", '."', "。", "é漢🙂", " ", "\t", "\n", "\n\n", "\n \n", "\r", "\u2028"]
documents = st.lists(st.lists(st.sampled_from(PARTS), max_size=10).map("".join), max_size=3)


@given(documents, st.sampled_from(KINDS[1:]), st.integers(1, 12))
def test_records_at_any_chunk_size(texts: list[str], kind: str, size: int):
    """Catches records that a chunk's end splits, merges, trims or empties."""
    corpus = corpus_of(texts, TextSettings(records=kind), size=size)
    expected = records_of(texts, kind)
    assert corpus.text() == (B + B.join(expected) + B if expected else "")
    assert corpus.text() == corpus.text()


@given(documents, st.sampled_from(KINDS), st.integers(1, 12), st.data())
def test_cleaned_records_at_any_chunk_size(texts: list[str], kind: str, size: int, data: st.DataObject):
    """Catches two separators in a row where cleaning empties a record, and any result that depends on the chunks."""
    cleaning = {
        "newlines_to_spaces": data.draw(st.booleans()),
        "collapse_spaces": data.draw(st.booleans()),
        "allow": data.draw(st.sampled_from([None, "a", "b \n"])),
    }
    settings = TextSettings(records=kind, **cleaning)
    text = corpus_of(texts, settings, size=size).text()
    assert text == corpus_of(texts, settings).text()
    assert not re.search(rf"{B}\s*{B}|{B}[\r\n]|[\r\n]{B}", text)
    assert kind == "none" or not text or (text[0] == text[-1] == B)


@given(st.binary(max_size=60), st.sampled_from(KINDS), st.integers(1, 7), st.booleans())
def test_files_at_any_chunk_size(tmp_path_factory, data: bytes, kind: str, size: int, binary: bool):
    """Catches a file whose text, or whose error, depends on how it is read."""
    path = tmp_path_factory.mktemp("any") / "any.txt"
    path.write_bytes(data)

    def outcome(size: int) -> str:
        try:
            return open_corpus(path, TextSettings(records=kind, binary=binary), size=size).text()
        except TextError as error:
            return str(error)

    assert outcome(size) == outcome(1 << 20)


def test_documents_are_joined_by_a_newline(folder):
    """Catches the last word of one file run into the first of the next, and a newline added where there is one."""
    folder(a_txt="one", b_txt="two\n", c_txt="", d_txt="three")
    assert text_of("a.txt", "b.txt", "c.txt", "d.txt") == "one\ntwo\nthree"
    assert text_of("c.txt") == ""
    assert text_of("a.txt", "c.txt", binary=True) == "one"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("line", ["  one", "two", "three", "four"]),
        ("paragraph", ["  one\ntwo", "three", "four"]),
        ("file", ["  one\ntwo\n \t\n\n\nthree", "four"]),
        ("sentence", ["  one\ntwo", "three", "four"]),
    ],
)
def test_records(folder, kind: str, expected: list[str]):
    """Catches blank lines kept as records, indentation lost, and a file's last record merged with the next file's."""
    folder(a_txt="\n\r\n  one\r\ntwo\n \t\n\n\nthree\n\n", b_txt="four", c_txt=" \n ")
    for size in range(1, 40):
        corpus = open_corpus(["a.txt", "b.txt", "c.txt"], TextSettings(records=kind), size=size)
        assert corpus.text() == B + B.join(expected) + B


def test_one_file_is_one_record(folder):
    """Catches `--records file` on one file, which leaves nothing for validation and no record to learn from."""
    folder(a_txt="one", b_txt="two")
    lines: list[str] = []
    assert open_corpus("a.txt", TextSettings(records="file"), lines.append).text() == f"{B}one{B}"
    assert lines == [
        "a.txt makes one record, and there is no other; give several files or texts, or cut it into "
        "records with `records='line'`, `records='sentence'` or `records='paragraph'`"
    ]
    open_corpus(["a.txt", "b.txt"], TextSettings(records="file"), pytest.fail)
    open_corpus("a.txt", TextSettings(records="line"), pytest.fail)


def test_sentences_end_after_their_closing_quotes(folder):
    """Catches a quote that opens the next sentence, 3.14 cut in two, and scripts whose sentences have no space."""
    folder(a_txt="“Why?” she\nasked. Pi is 3.14! (So.)  Yes... no\n\nEnd 終わり。はい？」次\n")
    text = text_of("a.txt", records="sentence", newlines_to_spaces=True)
    expected = ["“Why?”", "she asked.", "Pi is 3.14!", "(So.)", "Yes...", "no", "End 終わり。", "はい？」", "次"]
    assert text.strip(B).split(B) == expected


def test_newlines_become_spaces_inside_records_only(folder):
    """Catches cleaning before splitting, which leaves no paragraphs to split, and spaces made of newlines around."""
    folder(a_txt="one\ntwo\n\n\nthree\n")
    assert text_of("a.txt", records="paragraph", newlines_to_spaces=True) == f"{B}one two{B}three{B}"
    assert text_of("a.txt", records="line", allow="one\n") == f"{B}one{B}o{B}ee{B}"
    assert text_of("a.txt", records="line", allow="xyz") == ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("allow", "says"),
    [
        ("o", ["84.62% of the text is removed: 11 of 13 characters are not in `allow`"]),
        ("abc\n deghinortuvwxy", ["0.00% of the text is removed: 0 of 13 characters are not in `allow`"]),
        (None, []),
    ],
)
def test_it_is_said_once_what_allow_removes(kind: str, allow: str | None, says: list[str]):
    """Catches removal of 93% of a text without a notice, a notice for each reading, and one for an incomplete
    reading.
    """
    lines: list[str] = []
    texts = (TextDocument("a", "one two three"),)
    corpus = Corpus("a", texts, TextSettings(records=kind, allow=allow, lowercase=True), 4, lines.append)
    next(corpus.chunks())
    assert lines == []
    assert [corpus.text() for _ in range(2)] == [corpus.text()] * 2
    assert lines == says


def test_chunks_start_again_each_time(folder):
    """Catches a second epoch without text."""
    folder(a_txt="line\n" * 100)
    corpus = open_corpus("a.txt", TextSettings(records="line", lowercase=True), size=16)
    begun = corpus.chunks()
    next(begun)
    assert "".join(corpus.chunks()) == "".join(corpus.chunks()) == B + f"line{B}" * 100


def test_folders(folder):
    """Catches files that are missed in subfolders, the file system's order, hidden files, and a notice for each
    file.
    """
    folder(
        docs__b_txt="b\n", docs__a_txt="a\n", docs__sub__c_md="c\n", docs__image_png=b"\x89PNG\0\0", docs__x_bin=b"\0",
        docs__sub__noise_gz=gzip.compress(b"\0"), docs__packed_txt_gz=gzip.compress(b"p\n"),
    )  # fmt: skip
    (Path("docs") / ".hidden.txt").write_text("hidden")
    (Path("docs") / ".git").mkdir()
    (Path("docs") / ".git" / "config").write_text("hidden")
    lines: list[str] = []
    corpus = open_corpus("docs", notice=lines.append)
    assert corpus.text() == "a\nb\np\nc\n"
    assert corpus.name == "docs"
    assert lines == ["docs: skipped 3 files, not a text file"]
    assert "\0" in open_corpus("docs", TextSettings(binary=True)).text()


def test_folders_tell_of_a_few_guesses_and_count_the_rest(folder):
    """Catches a thousand notices about a thousand files in one old encoding."""
    folder(**{f"old__{i}_txt": "caf\u00e9 ol\u00e9\n".encode("cp1252") for i in range(5)})
    lines: list[str] = []
    open_corpus("old", notice=lines.append)
    assert len(lines) == 4
    assert lines[-1] == "old: 2 more notices like these"


def test_folders_without_text(folder):
    """Catches an empty corpus instead of an error for a folder of pictures."""
    folder(pictures__a_png=b"\0")
    with pytest.raises(TextError, match="the folder pictures holds no text: none of its 1 file is a text file"):
        open_corpus("pictures")
    (Path("pictures") / "a.png").unlink()
    with pytest.raises(TextError, match="none of its 0 files"):
        open_corpus("pictures")


def test_runs_and_models_in_a_folder_are_not_its_text(folder):
    """Catches a second run on a folder that learns the log, the samples and the model card of the first run."""
    run = {f"novel__runs__my-1__{name}": "charloom's own\n" for name in ("run_toml", "log_jsonl", "samples_txt")}
    model = {
        f"novel__best__{name}": "{}" for name in ("config_json", "vocabulary_json", "model_safetensors", "README_md")
    }
    folder(novel__a_txt="text\n", novel__config_json="{}\n", **run, **model)
    for path in ("novel", "novel/**", "**/*.*"):
        lines: list[str] = []
        assert open_corpus(path, notice=lines.append).text() == "text\n{}\n"
        assert len(lines) == 1
        assert f"{path}: skipped 2 folders with a run or a model of charloom: novel/best, novel/runs/my-1" in lines[0]
    assert text_of("novel/runs/my-1/samples.txt") == text_of("novel/runs/my-1/*.txt") == "charloom's own\n"
    for path in ("novel/runs", "novel/runs/my-1"):
        with pytest.raises(TextError, match=f"the folder {path} contains only a run .*: novel/runs/my-1; name a file"):
            open_corpus(path, notice=pytest.fail)


def test_one_broken_file_of_a_folder_costs_a_notice(folder):
    """Catches a thousand chapters that are not read because one file is damaged."""
    cut = gzip.compress(b"cut " * 99)[:-9]
    folder(docs__a_txt="a\n", docs__b_txt_gz=cut, docs__c_txt_gz=b"no gzip", docs__d_txt="d\n")
    for settings in (TextSettings(), TextSettings(binary=True)):
        lines: list[str] = []
        assert open_corpus("docs", settings, lines.append).text() == "a\nd\n"
        assert [line.partition(" ")[0] for line in lines] == ["docs/b.txt.gz", "docs/c.txt.gz"]
        assert all(line.endswith("; skipped") for line in lines)
    with pytest.raises(TextError, match="cannot be unpacked"):
        open_corpus("docs/b.txt.gz")
    with pytest.raises(TextError, match=r"the glob docs/\*.gz holds no text"):
        open_corpus("docs/*.gz")


def test_damaged_text_in_a_folder_is_no_binary_file(folder):
    """Catches a text with one bad byte that is skipped in silence."""
    folder(docs__a_txt="good", docs__b_txt="ééé".encode() + b"\xff")
    with pytest.raises(TextError, match=r"docs/b.txt: byte 0xFF at offset 6 is not utf-8"):
        open_corpus("docs")


def test_a_pdf_in_a_folder_is_named(folder):
    """Catches a PDF that is skipped like a picture, although one command would extract its text."""
    folder(docs__a_txt="good", docs__b_pdf=b"%PDF-1.7\0", docs__c_png=b"\0")
    lines: list[str] = []
    assert open_corpus("docs", notice=lines.append).text() == "good"
    assert "docs/b.pdf is a PDF file" in lines[0]
    assert lines[1:] == ["docs: skipped 2 files, not a text file"]


def test_globs(folder):
    """Catches `**` that does not go deep, folders opened as files, and an order that is the file system's."""
    folder(t__b_txt="b\n", t__a_txt="a\n", t__deep__er__c_txt="c\n", t__n_md="n\n")
    assert text_of("t/*.txt") == "a\nb\n"
    assert text_of("t/**/*.txt") == "a\nb\nc\n"
    assert text_of("t/**") == "a\nb\nc\nn\n"
    assert text_of("t/[an].*") == "a\nn\n"
    with pytest.raises(TextError, match=r"no file matches t/\*.rst"):
        open_corpus("t/*.rst")


def test_a_file_whose_name_looks_like_a_glob(folder):
    """Catches a file that exists and cannot be named."""
    path = folder() / "a[1].txt"
    path.write_text("here")
    assert text_of("a[1].txt") == "here"
    assert corpus_name("a[1].txt") == "a-1"


def test_stdin_and_urls(folder, monkeypatch: pytest.MonkeyPatch):
    """Catches stdin that is empty on its second reading, and stdin that is named twice."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe\r\n")))
    corpus = open_corpus("-")
    assert (corpus.name, corpus.text(), corpus.text()) == ("stdin", "from a pipe\n", "from a pipe\n")
    with pytest.raises(SettingsError, match="only once"):
        open_corpus(["-", "-"])
    with fsspec.open("memory://far/away.txt", "wb") as file:
        file.write(b"from afar")
    assert open_corpus("memory://far/away.txt").text() == "from afar"


ROWS = [{"text": "one\r\ntwo", "n": 1}, {"text": ""}, {"text": None}, {"text": "a\u2028b \ud800 🙂"}]


def test_jsonl(folder):
    """Catches U+2028 taken for a line's end, half a surrogate pair let in, and null read as `None`."""
    lines = "\n".join(map(json.dumps, ROWS)) + "\n\n"
    folder(a_jsonl=lines, b_jsonl_gz=gzip.compress(lines.encode()))
    expected = ["one\ntwo", "a\u2028b \ufffd 🙂"]
    for name in ("a.jsonl", "b.jsonl.gz"):
        assert text_of(name, field="text") == "\n".join(expected)
        assert text_of(name, field="text", records="field") == B + B.join(expected) + B
        assert text_of(name, field="text", records="line") == B + B.join(["one", "two", expected[1]]) + B
        assert text_of(name, field="text", records="file") == B + "\n".join(expected) + B
    assert text_of("a.jsonl") == lines
    raw = json.dumps(ROWS[3], ensure_ascii=False).replace("\ud800", "").encode() + b"\n" + b'{"text": "\xff"}'
    folder(c_jsonl=raw)
    assert text_of("c.jsonl", field="text", binary=True).encode("utf-8", "surrogateescape").endswith(b"\n\xff")


def test_csv(folder):
    """Catches a text with commas, quotes or newlines cut apart, and Python's limit of 128 KiB a value."""
    long = "x" * 200_000
    folder(a_csv=f'id,text\r\n1,"one, ""two""\r\nthree"\r\n\r\n2,\r\n3,{long}\r\n')
    assert text_of("a.csv", field="text", records="field") == f'{B}one, "two"\nthree{B}{long}{B}'
    assert open_corpus("a.csv", TextSettings(field="text"), size=3).text() == f'one, "two"\nthree\n{long}'
    assert text_of("a.csv", field="text", vocabulary="bytes").startswith('one, "two"\r\nthree')


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a.jsonl", '{"body": 1, "id": 2}\n{"id": 1}\n', r"line 1 has no field 'text'; it has 'body', 'id'"),
        ("a.jsonl", '{"text": "x"}\n{"text": \n', r"line 2 is not JSON: Expecting value"),
        ("a.jsonl", "[1]\n", r"line 1 must hold an object; found list"),
        ("a.jsonl", "[" * 100_000, r"line 1 is not JSON"),
        ("a.jsonl", '{"text": 5}', r"line 1 must have text in field 'text'; found int"),
        ("a.json", '[{"text": "x"}, {"text": ', r"element 2 is not JSON: Expecting value"),
        ("a.json", '[{"text": "x"} {"text": "y"}]', r"element 2 is not JSON: expecting , or \], found '{'"),
        ("a.json", '[{"text": "x"},]', r"element 2 is not JSON: Expecting value"),
        ("a.json", '[{"text": "x"}]]', r"element 2 is not JSON: something follows"),
        ("a.json", '[{"text": "x"}', r"element 2 is not JSON: the file ends before its array"),
        ("a.json", '["x"]', r"element 1 must hold an object; found str"),
        ("a.json", '[{"body": "x"}]', r"element 1 has no field 'text'; it has 'body'"),
        ("a.json", "[" * 100_000, r"element 1 is not JSON"),
        (
            "a.json",
            '{\n "text": "x"\n}',
            r"line 1 is not JSON: .*; .json must be an array of objects, or one object a line",
        ),
        ("a.csv", "id,body\n1,x\n", r"line 1 has no column 'text'; it has 'id', 'body'"),
        ("a.csv", "id;body\n1;x\n", r"line 1 has no column 'text'; it has 'id', 'body'"),
        ("a.csv", "", r"line 1 has no column 'text'; it has none"),
        ("a.csv", 'id,text\n1,"x\n', r"line 2 is not CSV: unexpected end of data"),
        ("a.tsv", "id\tbody\n1\tx\n", r"line 1 has no column 'text'; it has 'id', 'body'"),
    ],
)
def test_bad_rows_name_file_and_line(folder, name: str, data: str, found: str):
    """Catches a traceback, and a message without the file and line among a million lines."""
    (folder() / name).write_text(data)
    with pytest.raises(TextError, match=rf"{name}, {found}") as caught:
        text_of(name, field="text")
    assert "\n" not in str(caught.value)


ELEMENTS = [{"text": f"number {i}, [{i}]", "n": [{"x": "]"}, i]} for i in range(40)]


@pytest.mark.parametrize("size", [1, 2, 7, 100, 1 << 20])
@pytest.mark.parametrize("layout", [{}, {"indent": 2}, {"separators": (",", ":")}])
def test_json_arrays(folder, size: int, layout: dict):
    """Catches an array that is read as one line, an element that a chunk's end cuts, and lines that are not
    an array.
    """
    folder(a_json=f" \n{json.dumps(ELEMENTS, **layout)}\n", b_json="\n".join(map(json.dumps, ELEMENTS)), c_json=" [ ] ")
    expected = B + B.join(row["text"] for row in ELEMENTS) + B
    for name in ("a.json", "b.json"):
        assert open_corpus(name, TextSettings(field="text", records="field"), size=size).text() == expected
    assert open_corpus("c.json", TextSettings(field="text"), size=size).text() == ""


def test_an_element_without_end(folder, monkeypatch: pytest.MonkeyPatch):
    """Catches gigabytes in memory because one closing quote is missing."""
    monkeypatch.setattr("charloom.data.fields.LARGEST_ELEMENT", 1000)
    folder(a_json='[{"text": "x"}, {"text": "' + "y" * 5000)
    with pytest.raises(TextError, match=r"element 2 is not JSON: it has more than 1,000 characters, or Unterminated"):
        open_corpus("a.json", TextSettings(field="text"), size=100).text()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.tsv", 'id\ttext\n1\tone, two\n2\t"a\tb"\n'),
        ("a.csv", 'id;text\n1;"one, two"\n2;"a\tb"\n'),
        ("b.csv", 'id\ttext\n1\tone, two\n2\t"a\tb"\n'),
        ("c.csv", 'text,"x;y;z"\n"one, two",2\n"a\tb",3\n'),
        ("b.tsv", 'text,id\n"one, two",2\n"a\tb",3\n'),
    ],
)
def test_tables_are_cut_where_the_field_is_a_column(folder, name: str, data: str):
    """Catches Excel's `;`, tabs under `.csv`, and a sign inside a quoted name that is counted."""
    (folder() / name).write_text(data)
    assert text_of(name, field="text", records="field") == f"{B}one, two{B}a\tb{B}"


@pytest.mark.parametrize(
    ("row", "value"),
    [
        ({"user": {"name": "inner"}}, "inner"),
        ({"user.name": "outer", "user": {"name": "inner"}}, "outer"),
        ({"user": {"name.first": "deep"}}, None),
        ({"user": {"name": None}}, ""),
        ({"user": "text"}, None),
        ({"user": None}, None),
    ],
)
def test_fields_inside_fields(folder, row: dict, value: str | None):
    """Catches a dot that is never a path, and a dot in the name of a key that is taken for a path."""
    folder(a_jsonl=json.dumps(row))
    if value is None:
        with pytest.raises(TextError, match=r"line 1 has no field 'user.name'"):
            text_of("a.jsonl", field="user.name")
    else:
        assert text_of("a.jsonl", field="user.name") == value


def test_rows_without_the_field_are_counted(folder):
    """Catches a file that is refused because one row lacks its text, and rows that are dropped without a notice."""
    folder(
        a_jsonl='{"x": 1}\n{"text": "one"}\n{"text": null}\n{"y": 2}\n',
        b_csv="id,text\n1,two\n2\n", c_csv="id,body\n1,x\n2,y\n",
    )  # fmt: skip
    lines: list[str] = []
    corpus = open_corpus(["a.jsonl", "b.csv", "c.csv"], TextSettings(field="text"), lines.append)
    assert corpus.text() == corpus.text() == "one\ntwo"
    assert lines == ["skipped 5 rows without the field; the first: a.jsonl, line 1 has no field 'text'; it has 'x'"]
    lines.clear()
    open_corpus("b.csv", TextSettings(field="text"), lines.append).text()
    assert lines == ["skipped 1 row without the field; the first: b.csv, line 3 has 1 of 2 columns"]


@pytest.mark.parametrize(
    ("name", "data", "names"),
    [
        ("a.jsonl", '{"id": 1, "text": "x"}\n', "'id', 'text'"),
        ("a.json", '[{"id": 1, "text": "x"}]', "'id', 'text'"),
        ("a.csv", "id;text\n1;x\n", "'id', 'text'"),
        ("a.tsv", "id\ttext\n1\tx\n", "'id', 'text'"),
        ("b.json", '{"id": 1, "text": "x"}\n{"id": 2}', "'id', 'text'"),
        ("b.csv", "", ""),
        ("c.json", "{", ""),
        ("d.json", '{\n "version": 1\n}', ""),
        ("e.json", "[1, 2]", ""),
        ("f.csv", '"a\nb\n', ""),
    ],
)
def test_a_hint_where_a_field_may_be_meant(folder, name: str, data: str, names: str):
    """Catches commas, quotes and keys that are learned because the user does not know --field."""
    (folder() / name).write_text(data)
    lines: list[str] = []
    assert open_corpus(name, notice=lines.append).text() == data
    hint = f"{name} is read as plain text; `field` reads one field only; the fields are {names}"
    assert lines == ([hint] if names else [])
    open_corpus(name, TextSettings(binary=True), pytest.fail)


def test_a_first_line_that_is_no_row(folder):
    """Catches csv.Error from the search for the delimiter in the first line."""
    (folder() / "a.csv").write_bytes(b"a\rb,text\n1,x\n")
    with pytest.raises(TextError, match=r"a.csv, line 1 is not CSV: new-line character"):
        text_of("a.csv", field="text", vocabulary="bytes")


def test_fields_of_files_that_have_none(folder):
    """Catches `--field` that is silently ignored."""
    folder(a_txt="x", d__a_txt="x", d__b_jsonl='{"text": "y"}', e__a_txt="x")
    with pytest.raises(
        SettingsError, match=r"`field` is for .jsonl, .json, .csv and .tsv files; a.txt is none of these"
    ):
        text_of("a.txt", field="text")
    with pytest.raises(SettingsError, match="the corpus python-docs has no fields"):
        text_of("python-docs", field="text")
    lines: list[str] = []
    assert open_corpus("d", TextSettings(field="text"), notice=lines.append).text() == "y"
    assert lines == ["d: skipped 1 file, not one of the .jsonl, .json, .csv and .tsv files"]
    with pytest.raises(TextError, match=r"the folder e holds no text"):
        text_of("e", field="text")


def test_named_corpora_and_files_of_their_name(folder):
    """Catches a user's folder that is replaced by a corpus of the same name, and a missing notice."""
    lines: list[str] = []
    assert "assert" in open_corpus("python-docs", notice=lines.append).text()
    assert not lines
    (folder() / "python-docs").write_text("mine")
    assert open_corpus("python-docs", notice=lines.append).text() == "mine"
    assert lines == ["reading python-docs in this folder, not the named corpus python-docs"]
    with pytest.raises(TextError, match="python-source: no such file"):
        open_corpus("./python-source")


@pytest.mark.parametrize("path", ["missing.txt", "", "a\0b", "a\0*"])
def test_missing(path: str):
    """Catches a traceback for a path that does not exist, or that cannot be a path."""
    with pytest.raises(TextError):
        open_corpus(path)
    with pytest.raises(SettingsError, match="at least one"):
        open_corpus([])


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("-", "stdin"),
        ("books/tiny-shakespeare.txt", "tiny-shakespeare"),
        ("v1.2 notes (final).txt.gz", "v1.2-notes-final"),
        ("messages.jsonl.xz", "messages"),
        ("s3://bucket/my/key.txt?version=3", "key"),
        ("memory://notes.csv", "notes"),
        ("/data/letters/*.txt", "letters"),
        ("/data/letters/**/a?.txt", "letters"),
        ("война и мир.txt", "война-и-мир"),
        ("...", "text"),
        ("🙂.txt", "text"),
        ("x" * 300, "x" * 60),
        (".bashrc", "bashrc"),
        ("python-docs", "python-docs"),
    ],
)
def test_names(path: str, name: str):
    """Catches a run folder that cannot be made, or is called `input-txt`."""
    assert corpus_name([path, "other.txt"]) == corpus_name(path) == name


def test_one_path_is_not_a_list_of_letters(folder):
    """Catches a string that is read as a list of one-letter paths, and a Path that is refused."""
    folder(ab_txt="text")
    assert open_corpus("ab.txt").text() == open_corpus(Path("ab.txt")).text() == "text"


def test_a_large_file_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches minutes without a word while 10 GB are read."""
    monkeypatch.setattr(corpus_module, "LARGE", 10)
    (tmp_path / "a.txt").write_text("0123456789")
    (tmp_path / "b.txt").write_text("012345678")
    notices: list[str] = []
    open_corpus([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")], notice=notices.append)
    assert notices == [f"reading {tmp_path / 'a.txt'}: 0.0 GB; each GB takes 15 to 70 seconds"]
