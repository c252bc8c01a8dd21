"""`charloom eval`: the correct figures, in a table and as JSON."""

from __future__ import annotations

import json
import math
import re
import shutil

import pytest
from click.testing import CliRunner

from charloom.cli import eval as eval_
from charloom.evaluation import compressors
from charloom.evaluation.compressors import ppmd_bits, xz_bits
from charloom.model import Model

pytestmark = pytest.mark.processor

ZEN = "Beautiful is better than ugly.\nExplicit is better than implicit.\n"


def test_json_has_every_figure(charloom, tmp_path, tiny):
    """Catches a figure under a wrong name, and a figure of another model."""
    (tmp_path / "a.txt").write_text(ZEN * 3)
    shutil.copytree(tiny / "best", tmp_path / "alone")  # without the run's data
    ended = charloom("eval", "alone", "a.txt", "--json")
    assert (ended.status, ended.err) == (0, "")
    report, score = json.loads(ended.out), Model.load(tiny).score(ZEN * 3)
    assert report == {
        "characters": len(ZEN) * 3 - 1,
        "nats_per_char": pytest.approx(score.nats_per_char),
        "bits_per_char": pytest.approx(score.nats_per_char / math.log(2)),
        "perplexity": pytest.approx(math.exp(score.nats_per_char)),
        "accuracy": pytest.approx(score.accuracy),
        "xz_bits_per_char": xz_bits((ZEN * 3).encode()) / len(ZEN) / 3,
        "ppmd_bits_per_char": ppmd_bits((ZEN * 3).encode()) / len(ZEN) / 3,
        "compressors_read_bytes_before": 0,
        "compressors_characters": len(ZEN) * 3,
    }


def test_compressors_are_given_only_so_much(monkeypatch, tmp_path, smallest, charloom, corpus_file, corpus):
    """Catches xz -9e on a whole gigabyte, and bits of a part divided by the characters or bytes of the whole text."""
    assert charloom("train", corpus_file, *smallest, "--out", "run", "--quiet", "--vocabulary", "bytes").status == 0
    shutil.copytree(tmp_path / "run/best", tmp_path / "alone")  # without the run's data
    (tmp_path / "a.txt").write_text("é" + corpus, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compressors, "MOST", 200)
    for arguments, characters in (
        (["run"], len(corpus) - len(corpus) * 9 // 10),
        (["alone", "a.txt"], 1 + len(corpus)),
    ):
        report = json.loads(CliRunner().invoke(eval_.command, [*arguments, "--json"]).output)
        assert (report["characters"], report["compressors_characters"]) == (characters - 1, 200)
        assert "for the first 200 characters" in CliRunner().invoke(eval_.command, arguments).output
    assert report["xz_bits_per_char"] == xz_bits(("é" + corpus)[:200].encode()) / 200


def test_a_run_is_measured_on_what_it_kept_for_that(charloom, tmp_path, smallest, corpus_file, corpus):
    """Catches a score of the training text, compressors that are not primed with it, and bits of both texts."""
    assert charloom("train", corpus_file, *smallest, "--out", "run", "--quiet").status == 0
    report = json.loads(charloom("eval", "run", "--json").out)
    data = corpus.encode()
    train, held_out = data[: len(data) * 9 // 10], data[len(data) * 9 // 10 :]
    assert report["characters"] == len(held_out) - 1
    assert report["nats_per_char"] == pytest.approx(Model.load(tmp_path / "run").score(held_out.decode()).nats_per_char)
    assert report["compressors_read_bytes_before"] == len(train)
    for name, coder in (("xz", xz_bits), ("ppmd", ppmd_bits)):
        assert report[f"{name}_bits_per_char"] == pytest.approx((coder(data) - coder(train)) / len(held_out))
    assert json.loads(charloom("eval", "run/best", "--json").out) == report


def test_a_model_without_texts_of_its_own_needs_one(charloom, tiny, tmp_path, smallest, corpus_file):
    """Catches a traceback for a folder that was shared without its data, and for a run without a validation split."""
    shutil.copytree(tiny / "best", tmp_path / "alone")
    assert "a text is needed" in charloom("eval", "alone").complaint
    assert charloom("train", corpus_file, *smallest, "--split", "1/0", "--out", "all", "--quiet").status == 0
    assert "has no validation split" in charloom("eval", "all").complaint


def test_windows_begin_cold(charloom, tmp_path, tiny):
    """Catches a state that is carried from one window to the next, lost characters, and a mean of means."""
    (tmp_path / "a.txt").write_text(ZEN * 2)
    model, text = Model.load(tiny), ZEN * 2
    scores = [model.score(text[start : start + 17]) for start in range(0, len(text) - 16, 4)]
    ended = charloom("eval", tiny, "a.txt", "--protocol", "windows:16", "--json")
    found = json.loads(ended.out)["windows_nats_per_char"]
    assert found == pytest.approx(sum(score.nats for score in scores) / sum(score.tokens for score in scores), rel=1e-4)
    assert "windows of 16" in charloom("eval", tiny, "a.txt", "--protocol", "windows:16").out
    one = json.loads(charloom("eval", tiny, "a.txt", "--protocol", "windows:9999", "--json").out)
    assert one["windows_nats_per_char"] == pytest.approx(one["nats_per_char"], rel=1e-4)
    assert f"windows of {len(text) - 1}" in charloom("eval", tiny, "a.txt", "--protocol", "windows:9999").out
    assert "windows:N" in charloom("eval", tiny, "a.txt", "--protocol", "windows:x").complaint


def test_learning_on_reads_before_it_learns(charloom, tmp_path, tiny):
    """Catches a text that is learned before it is scored, a lost state, and a result that equals the static one."""
    (tmp_path / "short.txt").write_text(ZEN[:20])
    (tmp_path / "long.txt").write_text(ZEN * 30)
    short, long = (
        json.loads(charloom("eval", tiny, f"{name}.txt", "--dynamic", "--json").out) for name in ("short", "long")
    )
    assert short["dynamic_nats_per_char"] == pytest.approx(short["nats_per_char"], rel=1e-4)  # the update comes after
    assert long["dynamic_nats_per_char"] < 0.98 * long["nats_per_char"]
    assert "dynamic         " in charloom("eval", tiny, "long.txt", "--dynamic").out


def test_several_files_are_one_text(charloom, tmp_path, tiny):
    """Catches a score of only the first file, and a state that is lost between two files."""
    one, two = ZEN.splitlines(keepends=True)
    for name, text in (("a.txt", one), ("b.txt", two), ("both.txt", ZEN)):
        (tmp_path / name).write_text(text)
    assert charloom("eval", tiny, "a.txt", "b.txt", "--json").out == charloom("eval", tiny, "both.txt", "--json").out


def test_the_table_is_labelled_and_aligned(charloom, tmp_path, tiny):
    """Catches nats without a label, and figures that are not aligned."""
    (tmp_path / "a.txt").write_text(ZEN)
    lines = charloom("eval", tiny, "a.txt").out.splitlines()
    assert [line[:16].strip() for line in lines] == [
        "characters",
        "nats per char",
        "bits per char",
        "perplexity",
        "top-1 accuracy",
        "xz -9e",
        "PPMd",
    ]
    assert all(line[15] == " " and line[16] != " " for line in lines)


def test_a_byte_level_model_tells_bits_per_byte_too(charloom, tmp_path, tiny_bytes):
    """Catches bits per byte shown as bits per character: é is one character and two bytes."""
    (tmp_path / "a.txt").write_text("é" * 50, encoding="utf-8")
    report = json.loads(charloom("eval", tiny_bytes, "a.txt", "--json").out)
    assert (report["characters"], report["bytes"]) == (49, 99)
    assert report["bits_per_byte"] * 99 == pytest.approx(report["bits_per_char"] * 49)


def test_unknown_characters(charloom, tmp_path, tiny):
    """Catches skipped characters that are counted, and an unknown policy that is accepted."""
    (tmp_path / "a.txt").write_text("Now is é better", encoding="utf-8")
    assert json.loads(charloom("eval", tiny, "a.txt", "--unknown", "skip", "--json").out)["characters"] == 13
    ended = charloom("eval", tiny, "a.txt", "--unknown", "guess")
    assert ended.status == 2
    assert ended.complaint == "--unknown must be 'error', 'skip' or 'replace'; got 'guess'"
    (tmp_path / "empty.txt").write_text("")
    assert "; empty.txt is empty" in charloom("eval", tiny, "empty.txt").complaint


def test_texts_are_prepared_as_the_models_own(charloom, tmp_path, smallest, corpus_file):
    """Catches a text with capitals that is not cleaned for a model of lower case."""
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


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("abc " * 500 + "xyz " * 20, ["--split", "90/10"]),
        ("naïve caffè \u2028" * 200, ["--vocabulary", "bytes"]),
        ("Ann\nBob\nCleo\n" * 200, ["--records", "line"]),
    ],
    ids=["unknown", "bytes", "records"],
)
def test_what_a_run_kept_is_measured_as_it_is_kept(charloom, tmp_path, smallest, text, options):
    """Catches tokens that are decoded and do not encode again: unknown tokens, parts of characters, separators."""
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    assert charloom("train", "a.txt", *smallest, *options, "--out", "run", "--quiet").status == 0
    ended = charloom("eval", "run", "--json")
    assert ended.status == 0, ended.err
    report = json.loads(ended.out)
    finished = json.loads((tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")[-1])
    assert report["nats_per_char"] * report["characters"] == pytest.approx(
        finished["validation_nats"] * (report.get("bytes") or report["characters"]), rel=1e-3
    )
    (tmp_path / "run" / "data" / "ids.bin").unlink()
    (tmp_path / "b.txt").write_text("Ann abc", encoding="utf-8")
    assert charloom("eval", "run", "b.txt", "--unknown", "skip").status == 0
    assert "must hold a run's data" in charloom("eval", "run").complaint


def test_python_and_the_command_line_give_one_report(charloom, tmp_path, tiny, tiny_bytes):
    """Catches figures that differ between Python and the command line, and a run that Python does not find."""
    (tmp_path / "a.txt").write_text(ZEN * 3)
    options = ("--dynamic", "--protocol", "windows:16", "--json")
    for model in (tiny, tiny_bytes):
        report = Model.load(model).evaluate(paths=tmp_path / "a.txt", dynamic=True, windows=16)
        assert json.loads(charloom("eval", model, "a.txt", *options).out) == report.to_json()
        assert json.loads(charloom("eval", model / "best", "--json").out) == Model.load(model).evaluate().to_json()


def objects(ended):
    assert (ended.status, ended.err) == (0, "")
    return [json.loads(line) for line in ended.out.splitlines()]


def test_each_line_is_an_object(charloom, tmp_path, tiny):
    """Catches a line that is lost or counted twice, and a first key that cannot be sorted by."""
    (tmp_path / "a.txt").write_text(ZEN + "\n" + ZEN.strip())
    lines = objects(charloom("eval", tiny, "a.txt", "--per", "line"))
    score = Model.load(tiny).score(ZEN + "\n" + ZEN.strip())
    expected = [*ZEN.splitlines(), "", *ZEN.splitlines()]
    assert [(line["number"], line["text"]) for line in lines] == [*enumerate(expected, 1)]
    assert sum(line["characters"] for line in lines) == score.characters
    assert sum(line["nats"] for line in lines) == pytest.approx(score.nats, rel=1e-6)
    assert [*lines[0]] == ["bits_per_char", "nats", "characters", "number", "text"]
    assert lines[1]["bits_per_char"] * lines[1]["characters"] * math.log(2) == pytest.approx(lines[1]["nats"], rel=1e-4)


def test_each_character_is_an_object(charloom, tmp_path, tiny_bytes, tiny_records):
    """Catches bytes for characters, an index that counts bytes, and a lone surrogate, which few programs read."""
    (tmp_path / "a.txt").write_text("aé漢\n", encoding="utf-8")
    found = objects(charloom("eval", tiny_bytes, "a.txt", "--per", "char"))
    assert [(each["index"], each["character"]) for each in found] == [(1, "é"), (2, "漢"), (3, "\n")]
    assert sum(each["nats"] for each in found) == pytest.approx(Model.load(tiny_bytes).score("aé漢\n").nats, rel=1e-5)
    (tmp_path / "b.txt").write_text("Now\n\nis\n")
    found = objects(charloom("eval", tiny_records, "b.txt", "--per", "char"))
    assert "".join(each["character"] for each in found) == "Now\nis\n"
    lines = objects(charloom("eval", tiny_records, "b.txt", "--per", "line"))
    assert [(line["number"], line["text"], line["characters"]) for line in lines] == [(1, "Now", 4), (2, "is", 3)]


def test_options_that_change_nothing_are_refused(charloom, tmp_path, tiny):
    """Catches an option that is taken and does nothing."""
    for option in (("--encoding", "utf-8"), ("--errors", "replace"), ("--field", "x"), ("--unknown", "skip")):
        complaint = charloom("eval", tiny, *option).complaint
        assert re.search(f"{option[0].strip('-')}.* changes nothing without", complaint)
    (tmp_path / "a.txt").write_text(ZEN)
    for option in (["--json"], ["--dynamic"], ["--protocol", "windows:4"], ["--per", "char"]):
        complaint = charloom("eval", tiny, "a.txt", "--heat", *option).complaint
        assert re.search(f"must be given alone; leave out .*({option[0]}|--heat)", complaint)
