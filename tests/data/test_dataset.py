"""Text → ids on disk, with their vocabulary and split."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.config import TextSettings, TrainingSettings
from charloom.data import dataset as dataset_module
from charloom.data import groups, record_shuffle
from charloom.data import ids as module
from charloom.data.batches import training_batches
from charloom.data.corpus import Corpus, open_corpus
from charloom.data.dataset import SPLITS, Dataset, open_dataset, prepare
from charloom.data.ids import Ids, separator_positions
from charloom.data.named import TextDocument
from charloom.data.shuffle import shuffled
from charloom.data.vocabulary import RECORD_SEPARATOR as B
from charloom.data.vocabulary import Vocabulary
from charloom.errors import ModelError, TextError

Make = Callable[..., tuple[Dataset, list[str]]]
BYTES: dict[str, Any] = {"records": "paragraph", "vocabulary": "bytes", "split": "80/10/10"}
TOO_SHORT = "the text is too short for a {} split; the training split gets this part"


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Prepares texts in their own folder; returns the dataset and the notices."""

    def made(*texts: str, base: Vocabulary | None = None, size: int = 1 << 20, seed: int = 0, **settings: Any):
        notices: list[str] = []
        chosen = TextSettings(**settings)
        corpus = Corpus("poem", tuple(TextDocument("poem", text) for text in texts), chosen, size)
        return prepare(corpus, chosen, tmp_path_factory.mktemp("data"), notices.append, base, seed), notices

    return made


def parts(dataset: Dataset) -> list[str]:
    """The text of each split."""
    decode = dataset.vocabulary.decode
    return [decode(np.array(dataset.ids(name).view()), separator_text=B) for name in SPLITS]


def sizes(dataset: Dataset) -> list[int]:
    return [len(dataset.ids(name)) for name in SPLITS]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("90/10/0", [90, 10, 0]),
        ("80/10/10", [80, 10, 10]),
        ("100/0", [100, 0, 0]),
        ("90/0/10", [90, 0, 10]),
        ("50/50/50", [33, 33, 34]),
        ("70/20/10", [70, 20, 10]),
        ("0.7/0.2/0.1", [70, 20, 10]),
        ("29/71", [29, 71, 0]),
        ("9/20/71", [9, 20, 71]),
        ("57/43", [57, 43, 0]),
    ],
)
def test_where_the_splits_are(make: Make, split: str, expected: list[int]):
    """Catches splits out of order, gaps between them, and rounding that loses one: 100 · 0.29 is 28.99… in floats."""
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 100)))
    dataset, notices = make(text, split=split)
    assert sizes(dataset) == expected
    first, second = expected[0], expected[0] + expected[1]
    ids = np.concatenate([dataset.ids(name).view() for name in SPLITS])
    known = dataset.vocabulary.characters
    assert known == tuple(text[:first])
    assert [known[i] if i < first else "" for i in ids] == [*text[:first], *[""] * (100 - first)]
    assert [dataset.bounds[name] for name in SPLITS] == [(0, first), (first, second), (second, 100)]
    assert len(notices) == (first < 100)


@pytest.mark.parametrize("split", ["90/10/0", "80/10/10", "100/0", "90/0/10", "10/10/80", "1/98/1", "1/1/98"])
def test_tiny_texts(make: Make, split: str):
    """Catches a split of one character (nothing to predict), too small a training part, and a lost character."""
    for length in range(2, 31):
        text = ("ab" * 15)[:length]
        dataset, notices = make(text, split=split)
        assert "".join(parts(dataset)) == text
        assert sizes(dataset)[0] >= 2
        assert 1 not in sizes(dataset)
        asked = zip(("validation", "test"), TextSettings(split=split).fractions[1:], sizes(dataset)[1:], strict=True)
        assert notices == [TOO_SHORT.format(name) for name, fraction, size in asked if fraction and not size]


@given(st.integers(1, 40), st.sampled_from(["90/10/0", "80/10/10", "100/0", "1/98/1"]))
def test_splits_by_records(make: Make, count: int, split: str):
    """Catches a record cut in two, one that is lost or in two splits, and a split without separators at its ends."""
    records = [f"record {chr(97 + i % 7)}" * (1 + i % 3) for i in range(count)]
    dataset, notices = make("\n".join([*records, *"abcdefg"]), records="line", keep_order=True, split=split)
    records += [*"abcdefg"]
    found = []
    for part in filter(None, parts(dataset)):
        assert part[0] == part[-1] == B
        found += part[1:-1].split(B)
    plain = [
        record.translate({ord(c): "\ufffd" for c in set(record) - set(dataset.vocabulary.characters)})
        for record in records
    ]
    assert found == plain
    train = parts(dataset)[0].count(B) - 1
    fraction = TextSettings(split=split).fractions[0]
    assert train == int(len(records) * fraction) or any("too short" in line for line in notices)


@given(
    st.lists(st.text("abc", min_size=2, max_size=9), min_size=1, max_size=30),
    st.integers(0, 2**63 - 1),
    st.integers(1, 12),
    st.integers(1, 40),
)
def test_independent_records_are_shuffled_before_the_split(
    make: Make, records: list[str], seed: int, block: int, bucket: int
):
    """Catches a record that is lost, doubled or cut where a block or a bucket ends; and a split by the file's order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        patch.setattr(record_shuffle, "BLOCK", block)
        patch.setattr(record_shuffle, "BUCKET", bucket)
        dataset, _ = make("\n".join(records), records="line", split="80/20", seed=seed)
    found = [record for part in filter(None, parts(dataset)) for record in part[1:-1].split(B)]
    assert all(part[0] == part[-1] == B for part in filter(None, parts(dataset)))
    known = {*dataset.vocabulary.characters}
    plain = ["".join(c if c in known else "\ufffd" for c in record) for record in records]
    assert sorted(found) == sorted(plain)
    order = shuffled(np.arange(len(records)), len(records), seed, record_shuffle.SPLITTING)
    assert found == [plain[index] for index in np.argsort(order)]


def test_a_sorted_list_is_validated_by_all_its_letters(make: Make):
    """Catches a validation split with only the last letters of a sorted list, which training never sees."""
    names = [a + b + c for a in "abcdefghij" for b in "klmno" for c in "pqrst"]
    dataset, notices = make("\n".join(names), records="line")
    train, validation = (part[1:-1].split(B) for part in parts(dataset)[:2])
    assert notices == []
    assert {name[0] for name in train} == {name[0] for name in names}
    assert len({name[0] for name in validation}) >= 7
    other, _ = make("\n".join(names), records="line", seed=1)
    assert parts(other)[1] != parts(dataset)[1]
    ordered, notices = make("\n".join(names), records="line", keep_order=True)
    assert parts(ordered)[1][1:-1].split(B) == [name.replace("j", "\ufffd") for name in names[225:]]


def test_one_record_is_for_training(make: Make):
    """Catches an empty training split."""
    dataset, notices = make("only one", records="line", split="80/10/10")
    assert parts(dataset) == [f"{B}only one{B}", "", ""]
    assert notices == [TOO_SHORT.format("validation"), TOO_SHORT.format("test")]


@pytest.mark.parametrize(("texts", "characters"), [([""], 0), (["a"], 1), (["ééé"], 0), ([], 0), (["\n", "\n"], 0)])
def test_fewer_than_2_characters(make: Make, texts: list[str], characters: int):
    """Catches a traceback, separators counted as characters, and characters counted before cleaning."""
    message = f"^a text must have at least 2 characters; poem has {characters} after cleaning$"
    with pytest.raises(TextError, match=message):
        make(*texts, records="line", allow="a")


def test_two_characters_are_a_text(make: Make):
    """Catches a limit for small texts that is off by one."""
    assert parts(make("ab")[0])[0] == "ab"
    assert parts(make("a", "b", records="file", keep_order=True, split="100/0")[0])[0] == f"{B}a{B}b{B}"


def test_hash_and_count_are_those_of_the_file(tmp_path: Path, zen: str):
    """Catches a hash that `sha256sum` would not give, and bytes counted as characters."""
    text = f"{zen}äöü漢\U0001f642"
    (tmp_path / "zen.txt.gz").write_bytes(gzip.compress(text.encode()))
    dataset = prepare(open_corpus(tmp_path / "zen.txt.gz"), TextSettings(), tmp_path, print)
    assert dataset.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert dataset.characters == len(text)


def test_hash_and_count_of_bytes(tmp_path: Path):
    """Catches a hash of text that stands for bytes, where any file can be read."""
    data = bytes(range(256)) * 4 + b"\r\n\xc3"
    (tmp_path / "any").write_bytes(data)
    settings = TextSettings(binary=True, split="100/0")
    dataset = prepare(open_corpus(tmp_path / "any", settings), settings, tmp_path, print)
    assert open_dataset(tmp_path).vocabulary == Vocabulary("bytes", binary=True)
    assert dataset.sha256 == hashlib.sha256(data).hexdigest()
    assert np.array(dataset.ids("train").view()).tobytes() == data


def test_hash_and_count_of_records(make: Make):
    """Catches records that hash like the text they make when run together, and separators counted as characters."""
    dataset, _ = make("ab\ncd\n", records="line")
    assert dataset.sha256 == hashlib.sha256(b"\x1eab\x1ecd\x1e").hexdigest()
    assert dataset.characters == 4


def test_tokens_are_sorted(make: Make):
    """Catches ids in order of appearance."""
    dataset, _ = make("b\U0001f642\uffeea\néA", split="100/0")
    assert dataset.vocabulary == Vocabulary("characters", ("\n", "A", "a", "b", "é", "\uffee", "\U0001f642"))
    assert np.array(dataset.ids("train").view()).tolist() == [3, 6, 5, 2, 0, 4, 1]


def test_rare_characters_are_folded(make: Make):
    """Catches counts that include the validation split (x), a threshold off by one (b), and ids that are not
    rewritten.
    """
    dataset, notices = make("aaabbcaaax" + "xx", min_count=2, split="10/2")
    assert dataset.vocabulary == Vocabulary("characters", ("a", "b"), unknown=True)
    assert parts(dataset) == ["aaabb\ufffdaaa\ufffd", "\ufffd\ufffd", ""]
    assert notices == []
    assert make("aaabbcaaax" + "xx", min_count=1, split="10/2")[0].vocabulary.characters == ("a", "b", "c", "x")
    assert make("aaabbcaaax" + "xx", min_count=3, split="10/2")[0].vocabulary.characters == ("a",)


def test_folding_keeps_the_separators(make: Make):
    """Catches a separator whose id is still that of the larger vocabulary."""
    dataset, _ = make("aab\naac\naad\naae", records="line", min_count=2, split="3/1")
    assert parts(dataset) == [f"{B}aa\ufffd" * 3 + B, f"{B}aa\ufffd{B}", ""]


def test_nothing_is_left(make: Make):
    """Catches a model whose only token is the unknown one."""
    with pytest.raises(TextError, match=r"^a character must occur 5 times in the training split; none"):
        make("abcd" * 4, min_count=5)


def test_characters_that_training_never_sees(make: Make):
    """Catches a validation character with an id that the model never learns, and a line for each of them."""
    dataset, notices = make("ab" * 45 + "aéaaaéaaaa")
    assert dataset.vocabulary == Vocabulary("characters", ("a", "b"), unknown=True)
    assert parts(dataset)[1] == "a\ufffdaaa\ufffdaaaa"
    assert notices == ["the training split lacks 1 character of the other splits ('é'); each becomes the unknown token"]
    _, notices = make("ab" * 45 + "cdefghijkl")
    assert notices == [
        "the training split lacks 10 characters of the other splits ('c' 'd' 'e' 'f' 'g' …); "
        "each becomes the unknown token"
    ]


@pytest.mark.parametrize("unknown", [False, True])
def test_a_base_keeps_its_tokens(make: Make, unknown: bool):
    """Catches fine-tuning that drops tokens which the new text lacks, or that adds no new tokens."""
    base = Vocabulary("characters", ("a", "m", "z", "é"), unknown)
    dataset, notices = make("banana" * 15 + "bananaézzz", base=base)
    assert dataset.vocabulary == Vocabulary("characters", ("a", "b", "m", "n", "z", "é"), unknown)
    assert "".join(parts(dataset)) == "banana" * 15 + "bananaézzz"
    assert notices == []
    dataset, _ = make("banana" * 15, base=base, min_count=100)
    assert dataset.vocabulary == Vocabulary("characters", ("a", "m", "z", "é"), True)


def test_a_base_may_need_wider_ids(make: Make):
    """Catches ids that wrap around when 2 characters become 302."""
    base = Vocabulary("characters", tuple(map(chr, range(0x4E00, 0x4E00 + 300))))
    dataset, _ = make("ab" * 50, base=base)
    assert dataset.vocabulary.dtype == np.uint16
    assert open_dataset(dataset.folder).vocabulary == dataset.vocabulary
    assert "".join(parts(dataset)) == "ab" * 50


@pytest.mark.parametrize(("count", "kind"), [(4000, "characters"), (4001, "bytes")])
def test_auto_takes_bytes_above_4000_characters(make: Make, count: int, kind: str):
    """Catches a threshold off by one, and separators that are counted as characters."""
    text = "".join(map(chr, range(0x4E00, 0x4E00 + count)))
    for settings in ({}, {"records": "file"}):
        dataset, _ = make(text, split="100/0", **settings)
        assert dataset.vocabulary.kind == kind
        assert parts(dataset)[0].strip(B) == text
    assert make(text, vocabulary="characters")[0].vocabulary.kind == "characters"
    assert make("ab", vocabulary="bytes")[0].vocabulary == Vocabulary("bytes")


@given(
    st.lists(st.text("aab \né漢\U0001f642", min_size=2), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(1, 5),
    st.sampled_from(["none", "line", "file"]),
    st.sampled_from(["characters", "bytes"]),
    st.integers(1, 2),
)
def test_result_does_not_depend_on_chunks(
    make: Make, texts: list[str], size: int, block: int, records: str, kind: str, min_count: int
):
    """Catches a count, hash or id that is wrong at the end of a chunk or block."""
    settings = {"records": records, "vocabulary": kind, "min_count": min_count}

    def outcome(size: int, block: int) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "BLOCK", block)
            patch.setattr(record_shuffle, "BLOCK", block)
            patch.setattr(record_shuffle, "BUCKET", 3 * block)
            try:
                made, notices = make(*texts, size=size, **settings)
            except TextError as error:
                return str(error)
            stored = [(made.folder / name).read_bytes() for name in ("ids.bin", "dataset.json")]
            return stored, notices

    assert outcome(size, block) == outcome(1 << 20, 1 << 22)


def test_opening_gives_what_was_prepared(make: Make, corpus: str):
    """Catches a run that resumes on other data than it began with."""
    for settings in ({}, {"records": "paragraph", "min_count": 9, "split": "80/10/10"}, {"vocabulary": "bytes"}):
        dataset, _ = make(corpus, **settings)
        again = open_dataset(dataset.folder)
        assert again == dataset
        assert parts(again) == parts(dataset)
        assert {path.name for path in dataset.folder.iterdir()} == {"ids.bin", "dataset.json"}


def damage(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((folder / "dataset.json").read_text())
    change(data)
    (folder / "dataset.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda d: d.pop("bounds"), "it is damaged: bounds must be given"),
        (lambda d: d.pop("vocabulary"), "it is damaged: vocabulary must be given"),
        (lambda d: d.pop("sha256"), "it is damaged: sha256 must be given"),
        (lambda d: d.update(characters=-1), "it is damaged: characters must be at least 0; got -1"),
        (lambda d: d["bounds"].pop("test"), "it is damaged: test must be given"),
        (lambda d: d["bounds"].update(train=[0]), "it is damaged: train must be given"),
        (lambda d: d["bounds"].update(train=["a", "b"]), "it is damaged: train must be a whole number"),
        (lambda d: d["bounds"].update(train=[0, 1, 2]), "it is damaged: train must"),
        (lambda d: d["bounds"].update(train=[-1, 5]), "it is damaged: train must be at least 0"),
        (lambda d: d["vocabulary"].update(kind="x"), "it is damaged: vocabulary.json: kind must be"),
        (lambda d: d["bounds"].update(train=[9, 5]), "does not fit dataset.json"),
        (lambda d: d["bounds"].update(validation=[90, 101]), "does not fit dataset.json"),
        (lambda d: d["vocabulary"].update(kind="bytes", characters=[], separator=True), "does not fit dataset.json"),
    ],
)
def test_damaged_data_are_refused(make: Make, change: Callable[[dict[str, Any]], object], found: str):
    """Catches a traceback, or training on wrong characters, after a run folder was truncated or edited."""
    dataset, _ = make("ab" * 50)
    damage(dataset.folder, change)
    with pytest.raises(ModelError) as caught:
        open_dataset(dataset.folder)
    assert str(caught.value).startswith(str(dataset.folder))
    assert found in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", ["", "{", "[1]", '"text"', "3", "[" * 100_000, "\udcff"])
def test_data_that_are_no_object(make: Make, content: str):
    """Catches a traceback for a file that was written half."""
    dataset, _ = make("ab" * 50)
    (dataset.folder / "dataset.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError, match=r"dataset\.json must be as a run left it; it is damaged: "):
        open_dataset(dataset.folder)


@pytest.mark.parametrize("name", ["ids.bin", "dataset.json"])
def test_missing_and_truncated_data(make: Make, name: str):
    """Catches ids that are cut short and read as if whole."""
    dataset, _ = make("ab" * 50)
    path = dataset.folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"is damaged|one is damaged"):
        open_dataset(dataset.folder)
    path.unlink()
    with pytest.raises(ModelError, match=rf"must hold a run's data; {name}: No such file .*; was the folder copied"):
        open_dataset(dataset.folder)


@pytest.mark.parametrize("place", [0, 41, 99])
@pytest.mark.parametrize("mapped", [False, True])
def test_an_id_beyond_the_vocabulary_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch, place: int, mapped: bool):
    """Catches an id beyond the vocabulary, with which a kernel reads and writes outside its arrays."""
    dataset, _ = make("ab" * 50)
    monkeypatch.setattr(module, "BLOCK", 16)
    if mapped:
        monkeypatch.setattr(module, "MAPPED_ABOVE", 8)
    path = dataset.folder / "ids.bin"
    data = bytearray(path.read_bytes())
    data[place] = 2
    path.write_bytes(data)
    with pytest.raises(ModelError, match=f"every id must be below 2, .* found 2 at position {place};"):
        open_dataset(dataset.folder)


@pytest.mark.parametrize("mapped", [False, True])
def test_ids_that_are_not_those_written_are_refused(make: Make, monkeypatch: pytest.MonkeyPatch, mapped: bool):
    """Catches a file of zeros after a power cut: its ids are valid, but they are another text."""
    dataset, _ = make("ab" * 50)
    monkeypatch.setattr(module, "BLOCK", 16)
    if mapped:
        monkeypatch.setattr(module, "MAPPED_ABOVE", 8)
    path = dataset.folder / "ids.bin"
    path.write_bytes(bytes(100))
    with pytest.raises(ModelError, match=r"ids.bin must have the SHA-256 that dataset.json gives; found another; "):
        open_dataset(dataset.folder)


def test_data_of_an_older_version_have_no_checksum(make: Make):
    """Catches older run folders that can no longer be opened."""
    dataset, _ = make("ab" * 50)
    damage(dataset.folder, lambda data: data.pop("ids_sha256"))
    assert open_dataset(dataset.folder) == dataset


@pytest.mark.parametrize("settings", [{}, {"batches": "windows"}, {"batches": "records"}])
@pytest.mark.parametrize("text", [{}, BYTES, {**BYTES, "keep_order": True}])
def test_mapped_ids_are_the_same(
    make: Make, text: dict[str, Any], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """Catches an offset or a length that is wrong only in a mapped file."""
    corpus = "\n\n".join(f"paragraph {n * n}" for n in range(500))  # all paragraphs differ
    small, _ = make(corpus, **text)
    for large in (module, groups):
        monkeypatch.setattr(large, "MAPPED_ABOVE", 100)
    large, _ = make(corpus, **text)
    assert isinstance(large.ids("train").view(), np.memmap)
    for name in ("train", "validation"):
        pair = [
            training_batches(
                made.ids(name),
                made.vocabulary.separator_id,
                TrainingSettings(**settings),
                TextSettings(**text).independent,
                print,
            )
            for made in (small, large)
        ]
        assert len(pair[0]) == len(pair[1])
        for index in range(0, len(pair[0]), 7):
            np.testing.assert_equal(pair[0].batch(1, index), pair[1].batch(1, index), strict=True)


def test_mapped_ids_leave_no_map_behind(make: Make, monkeypatch: pytest.MonkeyPatch):
    """Catches a map that stays open, whose pages all count as memory in use, and a map that can be written to."""
    monkeypatch.setattr(module, "MAPPED_ABOVE", 10)
    ids = make("ab" * 50)[0].ids("train")
    assert ids.view() is not ids.view()
    assert not ids.view().flags.writeable


@given(st.binary(max_size=50), st.integers(1, 9), st.data())
def test_blocks_and_separators(data: bytes, block: int, draw: st.DataObject):
    """Catches ids that a block's end doubles or drops."""
    array = np.frombuffer(data, np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        blocks = [*Ids.of(array).blocks()]
        assert [position for position, _ in blocks] == [*range(0, len(array), block)]
        assert b"".join(part.tobytes() for _, part in blocks) == data
        token = draw.draw(st.sampled_from(sorted({0, *data})))
        assert separator_positions(Ids.of(array), token).tolist() == [
            i for i, value in enumerate(data) if value == token
        ]


def test_a_large_text_has_a_validation_split_that_is_read_in_minutes(make: Make, monkeypatch: pytest.MonkeyPatch):
    """Catches a run of five minutes that then measures a tenth of 10 GB for hours, and a limit on a split that the user
    chose.
    """
    monkeypatch.setattr(dataset_module, "MOST_VALIDATION", 30)
    text = "abcdefghi\n" * 100
    assert sizes(make(text)[0]) == [970, 30, 0]
    assert sizes(make(text, split="90/10/0")[0]) == [900, 100, 0]
    assert sizes(make(text[:200])[0]) == [180, 20, 0]
    records, _ = make(text, records="line", keep_order=True)  # 1001 tokens in 100 records: 2 have 20, 3 would have 30
    assert [part.count(B) - 1 for part in parts(records)[:2]] == [98, 2]
    for limit in (30, 1):  # 1: a record has more tokens than validation should have
        monkeypatch.setattr(dataset_module, "MOST_VALIDATION", limit)
        assert [part.count(B) for part in parts(make("only one", records="line")[0])] == [2, 0, 0]
    assert [part.count(B) - 1 for part in parts(make(text, records="line")[0])[:2]] == [99, 1]
