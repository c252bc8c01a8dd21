"""`charloom generate`: its output, the time of the output, and its form."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from charloom.kernels import chosen
from charloom.model import Model

pytestmark = pytest.mark.processor


def test_the_prompt_comes_first_then_the_models_text(charloom, tiny):
    """Catches a prompt that is printed twice or not at all, and options that do not reach the model."""
    ended = charloom("generate", tiny, "--prompt", "Now ", "--length", "40", "--seed", "3", "--temperature", "0.5")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == "Now " + Model.load(tiny).generate("Now ", 40, seed=3, temperature=0.5) + "\n"


def test_a_prompt_from_a_file_or_stdin(charloom, tmp_path, tiny):
    """Catches a final newline, CRs or a byte-order mark of a file that become a part of the prompt."""
    asked = ("--length", "10", "--seed", "1")
    expected = charloom("generate", tiny, *asked, "--prompt", "Now\nis").out
    (tmp_path / "prompt.txt").write_bytes(b"\xef\xbb\xbfNow\r\nis\r\n")
    assert charloom("generate", tiny, *asked, "--prompt", "@prompt.txt").out == expected
    assert charloom("generate", tiny, *asked, "--prompt", "-", stdin="Now\nis\n").out == expected


def test_the_same_seed_gives_the_same_text(charloom, tiny):
    """Catches a seed that has no effect, and equal texts without a seed."""
    first, again, other, drawn, redrawn = (
        charloom("generate", tiny, "--length", "60", *seed).out
        for seed in (["--seed", "0"], ["--seed", "0"], ["--seed", "2"], [], [])
    )
    assert first == again
    assert len({first, other, drawn, redrawn}) == 4


def test_json_holds_all_that_is_needed_to_generate_it_again(charloom, tiny):
    """Catches a random seed that is not in the output, and anything but JSON on stdout."""
    ended = charloom("generate", tiny, "--prompt", "Now", "--count", "3", "--length", "30", "--json")
    texts = [json.loads(line) for line in ended.out.splitlines()]
    assert [text["index"] for text in texts] == [0, 1, 2]
    assert len({text["text"] for text in texts}) == 3
    model = Model.load(tiny)
    for text in texts:
        again = model.generate(text["prompt"], 30, seed=text["seed"], index=text["index"])
        assert text["text"] == again
    assert charloom("generate", tiny, "--json", "--length", "30", "--seed", "9").out.count("\n") == 1


def test_several_texts_are_told_apart(charloom, tiny):
    """Catches texts without a separation between them."""
    lines = charloom("generate", tiny, "--prompt", "Now", "--count", "2", "--length", "0").out
    assert lines == "--- 1\nNow\n--- 2\nNow\n"


def test_it_ends_before_the_first_of_several_stops(charloom, tiny):
    """Catches a second --stop that is ignored, and a stop string in the output."""
    asked = ("--seed", "5", "--length", "400")
    whole = charloom("generate", tiny, *asked).out
    a, b = whole[20], whole[10]
    ended = charloom("generate", tiny, *asked, "--stop", a, "--stop", b)
    assert ended.out == whole[: min(whole.index(a), whole.index(b))] + "\n"


def test_greedy_is_temperature_0(charloom, tiny):
    """Catches --greedy without an effect."""
    asked = ("--length", "50", "--seed", "1")
    greedy = charloom("generate", tiny, *asked, "--greedy").out
    assert greedy == charloom("generate", tiny, *asked, "--temperature", "0").out
    assert greedy != charloom("generate", tiny, *asked).out


def test_so_many_whole_records(charloom, tiny_records):
    """Catches one record too many, and a text that does not end with a record."""
    ended = charloom("generate", tiny_records, "--records", "2", "--seed", "1", "--length", "2000")
    assert ended.out == Model.load(tiny_records).generate(records=2, seed=1, length=2000) + "\n"


def test_precision_and_threads(charloom, tiny):
    """Catches an option that does not reach the model, and a traceback for an unknown precision."""
    asked = ("--length", "300", "--seed", "1")
    exact = charloom("generate", tiny, *asked).out
    assert charloom("generate", tiny, *asked, "--threads", "1", "--precision", "fp32").out == exact
    ended = charloom("generate", tiny, *asked, "--precision", "int8")
    if chosen().module is None:
        assert (ended.status, ended.out) == (2, "")
        assert "--precision must be 'fp32'" in ended.err
    else:
        assert ended.out == Model.load(tiny).generate("", 300, seed=1, precision="int8") + "\n"
    assert "precision" in charloom("generate", tiny, "--precision", "int9").err


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_unknown_characters_of_a_prompt(charloom, tiny, policy):
    """Catches a policy that has no effect; the prompt is printed as it was given."""
    asked = ("--length", "20", "--seed", "1")
    ended = charloom("generate", tiny, *asked, "--prompt", "Nowé", "--unknown", policy)
    expected = Model.load(tiny).generate("Nowé", 20, seed=1, unknown=policy)
    assert ended.out == f"Nowé{expected}\n"


def test_text_appears_as_it_is_made(tiny):
    """Catches text that is printed only at the end: a million characters would show nothing for a minute."""
    command = [sys.executable, "-m", "charloom", "generate", tiny, "--length", "100000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert len(process.stdout.read(20)) == 20
        finally:
            process.kill()


def test_a_terminal_sees_no_control_characters():
    """Catches a byte-level model that controls the terminal, and dots for emoji, ideographic and no-break spaces."""
    from charloom.cli.screen import shown

    assert shown("a\x1b[31mb\x07\r\n\t") == "a·[31mb·\r\n\t"
    assert shown("binary \udcff\udc80") == "binary ··"
    whole = "👩\u200d👧 名\u3000前 a\u00a0b שָׁ e\u0301"
    assert shown(whole) == whole


def test_binary_data_there_and_back(charloom, tmp_path, smallest):
    """Catches U+FFFD for bytes that were learned, lost bytes of a prompt, a newline at the end, and wrong JSON."""
    data = bytes(range(128, 256)) * 40
    (tmp_path / "any.bin").write_bytes(data)
    assert charloom("train", "any.bin", "--binary", *smallest, "--out", "run", "--quiet").status == 0
    (tmp_path / "prompt.bin").write_bytes(b"\xff\xfe\r\n")
    asked = ("generate", "run", "--prompt", "@prompt.bin", "--length", "50", "--seed", "1")
    for env in ({}, {"PYTHONIOENCODING": "ascii"}):
        charloom(*asked, out=tmp_path / "out", env=env)
        written = (tmp_path / "out").read_bytes()
        assert written[:4] == b"\xff\xfe\r\n"
        assert "\ufffd".encode() not in written
    text = json.loads(charloom(*asked, "--json").out)
    assert (text["prompt"] + text["text"]).encode("utf-8", "surrogateescape") == written
    assert (
        charloom(*asked[:2], "--prompt", "-", *asked[4:], stdin=b"\xff\xfe\r\n").out.encode("utf-8", "surrogateescape")
        == written
    )
    report = json.loads(charloom("eval", "run", "any.bin", "--json").out)
    assert report["bytes"] == len(data) - 1


def test_adapting_to_a_text_first(charloom, tmp_path, tiny):
    """Catches a text that the model does not learn from, and a change of the model on disk."""
    (tmp_path / "a.txt").write_text("not " * 2000)
    before = {path.name: path.read_bytes() for path in (tiny / "best").iterdir()}
    arguments = ["generate", tiny, "--length", "500", "--seed", "1"]
    plain, adapted = charloom(*arguments).out, charloom(*arguments, "--adapt", "a.txt").out
    assert sum(map(adapted.count, "not ")) > 400 > sum(map(plain.count, "not "))
    assert charloom(*arguments, "--adapt", "a.txt").out == adapted
    assert {path.name: path.read_bytes() for path in (tiny / "best").iterdir()} == before
    assert "no such file" in charloom(*arguments, "--adapt", "b.txt").complaint
    (tmp_path / "wide.txt").write_bytes("not now\n".encode("utf-16-le"))
    assert charloom(*arguments, "--adapt", "wide.txt", "--encoding", "utf-16-le").status == 0
    assert "--encoding changes nothing without --adapt" in charloom(*arguments, "--encoding", "utf-8").complaint
    assert "stdin can be read only once" in charloom(*arguments, "--adapt", "-", "--prompt", "-", stdin="x").complaint


def test_several_prompts_give_several_texts(charloom, tiny):
    """Catches a prompt that is dropped, and texts in another order than their prompts."""
    asked = ("--length", "20", "--seed", "4")
    ended = charloom("generate", tiny, *asked, "--prompt", "Now", "--prompt", "The ", "--count", "2", "--json")
    texts = [json.loads(line) for line in ended.out.splitlines()]
    assert [(text["index"], text["prompt"]) for text in texts] == [(0, "Now"), (1, "Now"), (2, "The "), (3, "The ")]
    assert [text["text"] for text in texts] == Model.load(tiny).generate_many(2, ["Now", "The "], 20, seed=4)
    plain = charloom("generate", tiny, *asked, "--prompt", "Now", "--prompt", "The ").out
    assert plain.startswith("--- 1\nNow")
    assert "\n--- 2\nThe " in plain


def test_records_as_json_are_an_object_each(charloom, tiny_records):
    """Catches records that are cut differently with --json, and a last record that is lost."""
    asked = ("generate", tiny_records, "--records", "4", "--seed", "1")
    ended = charloom(*asked, "--json", "--count", "2")
    records = [json.loads(line) for line in ended.out.splitlines()]
    assert sorted((each["index"], each["record"]) for each in records) == [(k, n) for k in range(2) for n in range(4)]
    first = [each["text"] for each in records if each["index"] == 0]
    assert "\n".join(first) + "\n" == charloom(*asked).out
    cut = charloom(
        "generate", tiny_records, "--records", "4", "--seed", "1", "--json", "--length", str(len(first[0]) + 1)
    )
    assert [json.loads(line)["text"] for line in cut.out.splitlines()] == first[:1]
    assert charloom(*asked, "--json", "--count", "0").status == 2
    begun = charloom("generate", tiny_records, "--records", "2", "--seed", "1", "--prompt", "a", "--json")
    assert [json.loads(line)["prompt"] for line in begun.out.splitlines()] == ["a", "a"]


def test_repetition_options_reach_the_model(charloom, tiny):
    """Catches an option that is taken and does nothing, and a value that fails in the middle of a text."""
    asked = ("generate", tiny, "--length", "80", "--seed", "4")
    options = {"--repetition-penalty": "2", "--repetition-window": "9", "--no-repeat-ngram-size": "3"}
    ended = charloom(*asked, *(word for pair in options.items() for word in pair))
    expected = Model.load(tiny).generate(
        length=80, seed=4, repetition_penalty=2, repetition_window=9, no_repeat_ngram_size=3
    )
    assert ended.out == expected + "\n"
    ended = charloom(*asked, "--no-repeat-ngram-size", "1")
    assert ended.out.endswith("\n")
    assert "no character is left to choose: a small --no-repeat-ngram-size" in ended.complaint
    for name in options:
        ended = charloom(*asked, name, "-1")
        assert ended.status == 2
        assert ended.complaint.startswith(f"{name} must be")


def test_interactive_continues_each_line(charloom, tiny):
    """Catches a mistake that ends the session, a line that continues the last one, and texts that repeat."""
    typed = "Now \nNow \n\nNow \u1234\nThe\n"
    ended = charloom("generate", tiny, "--interactive", "--length", "30", "--seed", "1", stdin=typed)
    model = Model.load(tiny)
    texts = ["Now " + model.generate("Now ", 30, seed=1, index=index) for index in (0, 1)]
    texts.append(texts[-1] + model.generate(texts[-1], 30, seed=1, index=2))
    texts.append("The" + model.generate("The", 30, seed=1, index=4))
    assert ended.status == 0
    assert ended.out == "".join(f"{text}\n\n" for text in texts)
    assert "(U+1234) at position 4 of the prompt" in ended.err
    refused = charloom("generate", tiny, "--interactive", "--prompt", "Now")
    assert refused.status == 2
    assert refused.complaint.endswith("leave out --prompt")


def test_interactive_ends_a_record(charloom, tiny_records):
    """Catches a model of records that continues with the next record."""
    ended = charloom("generate", tiny_records, "--interactive", "--seed", "1", stdin="a\n")
    assert ended.out == "a" + Model.load(tiny_records).generate("a", records=1, seed=1) + "\n\n"


@pytest.mark.parametrize("command", [["eval", "MODEL", "any.bin"], ["generate", "MODEL", "--adapt", "any.bin"]])
def test_advice_for_binary_data(charloom, tmp_path, tiny, command):
    """Catches advice to pass --binary, which these commands do not have."""
    (tmp_path / "any.bin").write_bytes(b"ab\0cd")
    found = charloom(*[tiny if each == "MODEL" else each for each in command]).complaint
    assert "only a model trained with --binary reads bytes" in found
    assert "pass --encoding utf-16-le" in found
    assert "--encoding" in charloom(command[0], "--help").out


@pytest.mark.parametrize("further", [[], ["--seed", "4"]])
def test_a_seed_is_a_number(charloom, tiny_records, further):
    """Catches a seed from the command line that JSON holds as a string, also with --records."""
    for wanted in (["--length", "3"], ["--records", "1"]):
        seed = json.loads(charloom("generate", tiny_records, "--json", *wanted, *further).out)["seed"]
        assert type(seed) is int
        assert seed == 4 or not further
