"""Mistakes of users, and of their machines: each gives one clear line and the right status, and loses nothing.

And what only looks wrong must just work. Every command here is the real one, in a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from charloom.kernels import chosen

HALF_MEGABYTE = 1 << 19


def write(folder: Path, name: str, data: str | bytes) -> str:
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return name


def nothing_begun(folder: Path) -> bool:
    """Checks that there is no run folder, not even a part of one."""
    return not any(path.name in ("best", "last", "data", "run.toml") for path in folder.rglob("*"))


# Texts that cannot be used ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, ["text.txt", "no such file", "tiny-shakespeare"]),
        (b"", ["at least 2 characters", "text.txt has 0"]),
        (b"a", ["at least 2 characters", "has 1"]),
        (b"ab\0cd", ["text.txt", "NUL byte at offset 2", "--binary"]),
        ("grün und schön ".encode() * 9 + b"\xff and on", ["text.txt", "0xFF at offset 153", "--errors replace"]),
        (b"\xff\xfea\0b", ["text.txt", "utf-16", "--encoding"]),
    ],
    ids=["missing", "empty", "one-character", "nul", "invalid-utf-8", "half-utf-16"],
)
def test_a_text_that_cannot_be_used(charloom, tmp_path, smallest, data, says):
    """A traceback, a message that does not name the file, or a run folder left for a text that was never read."""
    if data is not None:
        write(tmp_path, "text.txt", data)
    ended = charloom("train", "text.txt", *smallest)
    assert ended.status == 1
    assert ended.out == ""
    assert all(part in ended.complaint for part in says), ended.err
    assert nothing_begun(tmp_path)


@pytest.mark.parametrize("file", [None, "picture.png"])
def test_a_folder_with_no_text(charloom, tmp_path, smallest, file):
    """Catches training on nothing, for an empty folder or a folder with only pictures."""
    (tmp_path / "folder").mkdir()
    if file:
        write(tmp_path / "folder", file, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    ended = charloom("train", "folder", *smallest)
    assert ended.status == 1
    assert "folder holds no text" in ended.complaint
    assert nothing_begun(tmp_path)


# Texts that only look bad -----------------------------------------------------------------------------------------

GOOD = {
    "crlf": ("one\r\ntwo\r\nthree\r\n" * 40).encode(),
    "emoji": ("👩\u200d👩\u200d👧 loves 🦜 and ☕️\n" * 30).encode(),
    "combining": ("e\u0301te\u0301 a\u0300 la c\u0327a\n" * 30).encode(),
    "right-to-left": ("שלום עולם، مرحبا بالعالم\n" * 30).encode(),
    "cjk": ("吾輩は猫である。名前はまだ無い。\n" * 30).encode(),
    "utf-16": ("Ünïcödé tëxt\n" * 30).encode("utf-16"),
}


@pytest.mark.parametrize("name", GOOD)
def test_texts_of_every_kind_just_work(charloom, tmp_path, smallest, name):
    """Catches a byte-order mark or a CR that becomes a character, and a character that a chunk cuts in two."""
    write(tmp_path, "text.txt", GOOD[name])
    ended = charloom("train", "text.txt", *smallest, "--quiet")
    assert (ended.status, ended.out, ended.err) == (0, "runs/text-1/best\n", "")
    text = GOOD[name].decode("utf-16" if name == "utf-16" else "utf-8").replace("\r\n", "\n")
    vocabulary = json.loads((tmp_path / "runs/text-1/best/vocabulary.json").read_text())
    assert vocabulary["characters"] == sorted(set(text))
    ended = charloom("generate", "runs/text-1", "--prompt", text[:5], "--length", "30")
    assert ended.status == 0
    assert ended.out.startswith(text[:5])
    assert len(ended.out) == 5 + 30 + 1


@pytest.mark.parametrize("data", [b"ab\0cd" * 50, b"caf\xe9 \xff\xfe" * 50], ids=["nul", "not-utf-8"])
def test_a_binary_model_takes_any_file(charloom, tmp_path, smallest, data):
    """Catches advice in an error that does not work: `--binary` must train on any file."""
    write(tmp_path, "any.bin", data)
    ended = charloom("train", "any.bin", *smallest, "--binary", "--quiet")
    assert (ended.status, ended.err) == (0, "")
    assert (tmp_path / "runs/any-1/data/ids.bin").read_bytes() == data
    ended = charloom("eval", "runs/any-1", "any.bin", "--json")
    assert json.loads(ended.out)["bytes"] == len(data) - 1


def test_errors_are_replaced_in_eval_too(charloom, tmp_path, tiny_bytes):
    """Catches advice in an error of `eval` for a flag that `eval` does not have."""
    write(tmp_path, "bad.txt", "grün ".encode() * 9 + b"\xff")
    assert "--errors replace" in charloom("eval", tiny_bytes, "bad.txt").complaint
    ended = charloom("eval", tiny_bytes, "bad.txt", "--errors", "replace", "--json")
    assert json.loads(ended.out)["characters"] == 45
    assert charloom("eval", tiny_bytes, "bad.txt", "--errors", "none").status == 2


def test_one_line_of_50_megabytes(charloom, tmp_path, smallest):
    """Catches work that is quadratic in the length of a line, and a regular expression over a whole line."""
    write(tmp_path, "line.txt", b"all work and no play makes jack a dull boy. " * (50_000_000 // 44))
    ended = charloom("train", "line.txt", *smallest, "--split", "999/1", "--quiet")
    assert (ended.status, ended.err) == (0, "")
    assert charloom("generate", "runs/line-1", "--length", "9").status == 0


def test_a_validation_split_with_characters_that_training_never_saw(charloom, tmp_path, smallest):
    """Catches an index out of range, and characters of only the validation split in the vocabulary."""
    write(tmp_path, "text.txt", "abcd " * 90 + "xyz! " * 10)
    ended = charloom("train", "text.txt", *smallest, "--quiet")
    assert ended.status == 0
    assert len(ended.err.splitlines()) == 1
    assert "the training split lacks 4 characters of the other splits ('!' 'x' 'y' 'z')" in ended.err
    vocabulary = json.loads((tmp_path / "runs/text-1/best/vocabulary.json").read_text())
    assert (vocabulary["characters"], vocabulary["unknown"]) == ([*" abcd"], True)
    assert not {*charloom("generate", "runs/text-1", "--length", "200").out} - {*" abcd\n"}


def test_a_batch_larger_than_the_corpus(charloom, tmp_path):
    """Catches an empty batch, and a batch size that changes without a notice."""
    write(tmp_path, "text.txt", "to be or not to be")
    ended = charloom("train", "text.txt", "--steps", "2", "--hidden", "8", "--batch-size", "5000", "--quiet")
    assert ended.status == 0
    assert len(ended.err.splitlines()) <= 2  # the other is about the split
    assert "too short for a batch of 5000 x 64 tokens; using 1 x" in ended.err


# Options ----------------------------------------------------------------------------------------------------------


def flags() -> list[tuple[str, str]]:
    """Each flag with a value outside its range, unless the flag takes every text."""
    from charloom.cli.train import command

    free = {"--field", "--allow", "--out", "--resume", "--from", "--encoding"}
    values = [p for p in command.params if p.param_type_name == "option" and not p.is_flag and p.opts[0] not in free]
    return [(p.opts[0], "-1" if p.metavar in ("N", "X") else "nonsense") for p in values]


@pytest.mark.parametrize(("flag", "value"), flags())
def test_a_value_outside_its_range(charloom, tmp_path, corpus_file, flag, value):
    """Catches a setting that is not checked, and a message that does not name the flag."""
    ended = charloom("train", corpus_file, flag, value)
    assert ended.status == 2
    assert ended.complaint.startswith(f"{flag} must be ")
    assert ended.complaint.endswith(f"got {value!r}")
    assert nothing_begun(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--hidden", "many"], "--hidden must be"),
        (["--encoding", "latin-99"], "--encoding must be one that Python knows"),
        (["--records", "field"], "--records field needs the name of a field; pass --field"),
        (["--field", "text"], "--field is for .jsonl, .json, .csv and .tsv files"),
        (["--hiden", "9"], "--hidden"),
        (["--resume", "runs/x-1"], "--resume can change only the budget"),
        (["--minutes"], "--minutes"),
        (["--out", "full"], "--out must be a new or empty folder"),
    ],
)
def test_options_that_cannot_be(charloom, tmp_path, corpus_file, arguments, says):
    """Catches a mistake of usage without status 2, or with files written before it."""
    (tmp_path / "full").mkdir()
    write(tmp_path / "full", "dear.txt", "letters")
    ended = charloom("train", corpus_file, *arguments)
    assert ended.status == 2
    assert says in ended.complaint
    assert nothing_begun(tmp_path)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["dear.txt"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--temperature", "-1"], "--temperature must be"),
        (["--top-k", "0"], "--top-k must be"),
        (["--top-p", "2"], "--top-p must be"),
        (["--min-p", "x"], "--min-p must be"),
        (["--length", "-5"], "--length must be"),
        (["--count", "0"], "--count must be at least 1"),
        (["--count", "x"], "--count must be a whole number"),
        (["--seed", "x"], "--seed must be a whole number"),
        (["--seed", "-1"], "--seed must be"),
        (["--unknown", "guess"], "--unknown must be"),
        (["--stop", ""], "--stop must not contain"),
        (["--records", "2"], "--records needs a model that was trained on records"),
        (["--prompt", "@nowhere.txt"], "nowhere.txt: No such file"),
        (["--prompt", "@"], "--prompt @FILE must name a file; got @ alone; the prompt @ itself can be given on stdin"),
        (["--colour"], "--colour"),
    ],
)
def test_generate_with_options_that_cannot_be(charloom, tiny, arguments, says):
    """Catches an error that comes after text was written, or no error."""
    ended = charloom("generate", tiny, *arguments)
    assert (ended.status, ended.out) == (2, "")
    assert says in ended.complaint


@pytest.mark.parametrize("arguments", [["train"], ["generate"], ["eval"]])
def test_missing_arguments(charloom, arguments):
    """Catches a usage error that does not name the missing argument, or does not mention the help."""
    ended = charloom(*arguments)
    assert ended.status == 2
    assert "MODEL" in ended.complaint or "FILE" in ended.complaint or "train PATH" in ended.complaint


@pytest.mark.parametrize("command", ["generate", "eval"])
@pytest.mark.parametrize(
    ("text", "says"),
    [("Now é", "'é' (U+00E9) at position 4"), ("🦜!", "(U+1F99C) at position 0"), ("a\tb", "'\\t' (U+0009)")],
)
def test_characters_that_a_model_does_not_know(charloom, tmp_path, tiny, command, text, says):
    """Catches an error that names neither the character nor its position."""
    write(tmp_path, "text.txt", text)
    asked = ["--prompt", text] if command == "generate" else ["text.txt"]
    ended = charloom(command, tiny, *asked)
    assert (ended.status, ended.out) == (1, "")
    assert says in ended.complaint
    assert "--unknown skip" in ended.complaint
    assert charloom(command, tiny, *asked, "--unknown", "replace").status == 0


def test_a_prompt_that_is_not_utf_8(charloom, tmp_path, tiny, tiny_bytes):
    """Catches an incomplete character in a file, on stdin, or in an argument, where Python uses surrogates."""
    write(tmp_path, "latin.txt", b"caf\xe9")
    for stdin, prompt in ((b"", "@latin.txt"), (b"caf\xe9", "-")):
        ended = charloom("generate", tiny, "--prompt", prompt, stdin=stdin)
        assert ended.status == 1
        assert "must be UTF-8; byte 0xE9 at offset 3" in ended.complaint
    ended = charloom("generate", tiny_bytes, "--prompt", "caf\udce9", "--length", "0")
    assert (ended.status, ended.out) == (0, "caf\udce9\n")


def test_a_terminal_of_another_encoding(charloom, tiny):
    """Catches a traceback from print: a character that stdout cannot encode becomes a question mark."""
    arguments = [sys.executable, "-m", "charloom", "generate", tiny, "--prompt", "é", "--unknown", "skip"]
    ended = subprocess.run(
        [*arguments, "--length", "0"], env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"?\n", b"")


# Models that are none ---------------------------------------------------------------------------------------------


def _change(path: Path, **values: Any) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, **values}), encoding="utf-8")


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _poison(path: Path) -> None:
    """The last weight becomes NaN."""
    path.write_bytes(path.read_bytes()[:-4] + struct.pack("<f", float("nan")))


DAMAGES = {
    "without-weights": (lambda m: (m / "model.safetensors").unlink(), ["model.safetensors", "copied whole"]),
    "half-the-weights": (lambda m: _halve(m / "model.safetensors"), ["model.safetensors", "damaged"]),
    "not-a-number": (lambda m: _poison(m / "model.safetensors"), ["model.safetensors", "finite"]),
    "half-a-config": (lambda m: _halve(m / "config.json"), ["config.json", "damaged"]),
    "half-a-vocabulary": (lambda m: _halve(m / "vocabulary.json"), ["vocabulary.json", "damaged"]),
    "without-vocabulary": (lambda m: (m / "vocabulary.json").unlink(), ["vocabulary.json", "copied whole"]),
    "from-the-future": (lambda m: _change(m / "config.json", format=99), ["format", "found 99", "update charloom"]),
    "not-a-model": (lambda m: (m / "config.json").write_text('{"model_type": "gpt2"}'), ["not a charloom model"]),
    "of-two-models": (
        lambda m: _change(m / "vocabulary.json", characters=["a", "b"]),
        ["vocabulary.json", "from one model"],
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_model_folder_that_is_damaged(charloom, tmp_path, tiny, damage):
    """Catches a traceback of a library, weights that generate nonsense, and a message that names another file."""
    shutil.copytree(tiny / "best", tmp_path / "model")
    spoil, says = DAMAGES[damage]
    spoil(tmp_path / "model")
    ended = charloom("generate", "model", "--length", "5")
    assert (ended.status, ended.out) == (1, "")
    assert ended.complaint.startswith("model: ")
    assert all(part in ended.complaint for part in says), ended.err


@pytest.mark.parametrize("command", [["generate"], ["info"], ["eval"], ["train", "--from"], ["train", "--resume"]])
@pytest.mark.parametrize("what", ["missing", "empty", "corpus.txt"])
def test_what_is_no_model_at_all(charloom, tmp_path, corpus_file, command, what):
    """Catches a command that accepts a wrong name, an empty folder or a file as its model."""
    (tmp_path / "empty").mkdir()
    path = [] if command[-1] in ("generate", "info", "--resume") else [corpus_file]
    ended = charloom(*command, what, *path)
    assert (ended.status, ended.out) == (1, "")
    assert what in ended.complaint
    assert nothing_begun(tmp_path)


# Disks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("largest_file", [100, 5000, 30_000], ids=["settings", "ids", "first-checkpoint"])
def test_a_disk_that_is_full_before_training_begins(charloom, tmp_path, corpus_file, largest_file):
    """Catches an incomplete run folder that cannot be resumed and blocks its name."""
    ended = charloom("train", corpus_file, "--steps", "2", "--quiet", largest_file=largest_file)
    assert ended.status in (1, 2)
    assert "File too large" in ended.complaint
    assert nothing_begun(tmp_path)


def test_a_disk_that_fills_up_while_training(charloom, tmp_path, corpus_file, smallest):
    """Catches a lost last checkpoint, and a printed command that does not resume the run."""
    flags = [*smallest, "--steps", "60", "--checkpoint-every", "1", "--validate-every", "1", "--quiet"]
    largest = 20_000  # bytes: more than any file of a checkpoint, less than the log at its end
    ended = charloom("train", corpus_file, *flags, "--out", "run", largest_file=largest)
    assert ended.status == 1
    assert (
        "the last checkpoint is whole; free disk space, then resume the run: charloom train --resume run"
        in ended.complaint
    )
    assert charloom("generate", "run", "--length", "5").status == 0
    ended = charloom("train", "--resume", "run", "--quiet")
    assert (ended.status, ended.out) == (0, "run/best\n")


@pytest.mark.parametrize("place", ["corpus.txt/run", "/proc/charloom/run"], ids=["below-a-file", "read-only"])
def test_an_output_folder_that_cannot_be_written(charloom, corpus_file, smallest, place):
    """Catches an error after training instead of before, and a message that does not name the folder."""
    ended = charloom("train", corpus_file, *smallest, "--out", place)
    assert ended.status == 2
    assert f"--out must be a folder that can be written; {place.removesuffix('/run')}" in ended.complaint


def test_text_written_to_a_full_disk(charloom, tmp_path, tiny):
    """Catches text that is lost without an error, and Python's own error when it closes stdout."""
    file = tmp_path / "text.txt"
    ended = charloom("generate", tiny, "--length", "5000", largest_file=1000, out=file)
    assert ended.status == 1
    assert "stdout cannot be written: File too large" in ended.complaint
    assert file.stat().st_size == 1000


# Pipes, devices, packages -----------------------------------------------------------------------------------------


def test_a_pipe_that_is_closed(tiny):
    """`generate | head -c 10`: no traceback, no complaint, status 0."""
    command = [sys.executable, "-m", "charloom", "generate", tiny, "--length", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert len(process.stdout.read(10)) == 10
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def closed(streams: str, *arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    """Runs `charloom` from a shell that has closed some streams, such as `>&-`."""
    command = [sys.executable, "-m", "charloom", *map(os.fspath, arguments)]
    return subprocess.run(["sh", "-c", f'"$@" {streams}', "sh", *command], capture_output=True, text=True)


@pytest.mark.skipif(os.name != "posix", reason="a shell closes them")
@pytest.mark.parametrize(
    ("streams", "arguments", "says"),
    [
        (">&-", ["generate", "MODEL", "--length", "5"], "stdout cannot be written: it is closed"),
        (">&-", ["generate", "MODEL", "--length", "5", "--json"], "stdout cannot be written: it is closed"),
        (">&-", ["info", "MODEL"], "stdout cannot be written: it is closed"),
        (">&-", ["corpora"], "stdout cannot be written: it is closed"),
        (">&-", ["eval", "MODEL"], "stdout cannot be written: it is closed"),
        (">&-", ["--version"], "Bad file descriptor"),
        ("<&-", ["eval", "MODEL", "-"], "Bad file descriptor"),
        ("<&-", ["train", "-"], "Bad file descriptor"),
        (
            "<&-",
            ["generate", "MODEL", "--prompt", "-"],
            "--prompt - needs a stdin that can be read; Bad file descriptor",
        ),
    ],
)
def test_streams_that_are_closed(tiny, streams, arguments, says):
    """Catches a traceback for a closed stream, which Python represents as None, and an error that does not name it."""
    ended = closed(streams, *[tiny if argument == "MODEL" else argument for argument in arguments])
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("charloom: "), ended.stderr
    assert says in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="a shell closes them")
def test_no_file_takes_the_place_of_a_closed_stream(tmp_path, corpus_file, smallest):
    """Catches `2>&-` where the next opened file gets descriptor 2, so that errors are written into it."""
    ended = closed("2>&-", "train", corpus_file, *smallest, "--out", tmp_path / "run")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{tmp_path / 'run' / 'best'}\n", "")
    events = [json.loads(line)["event"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert events[-1] == "finished"


def test_half_a_character_in_a_vocabulary(charloom, tmp_path, tiny):
    """Catches a traceback in the middle of piped text: a vocabulary may have a lone surrogate, but UTF-8 does not."""
    shutil.copytree(tiny / "best", tmp_path / "model")
    characters = json.loads((tmp_path / "model" / "vocabulary.json").read_text())["characters"]
    _change(tmp_path / "model" / "vocabulary.json", characters=[*characters[:-1], "\ud812"])
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    del config["sha256"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    ended = charloom("generate", "model", "--length", "3000", "--temperature", "9", "--seed", "1")
    assert (ended.status, ended.err) == (0, "")
    assert len(ended.out) == 3001
    assert "\ufffd" in ended.out
    assert (
        "\ud812" in json.loads(charloom("generate", "model", "--length", "3000", "--seed", "1", "--json").out)["text"]
    )


@pytest.mark.parametrize("threads", [2**31, 10**30])
def test_threads_beyond_reason(charloom, corpus_file, smallest, tiny, threads):
    """Catches a thread count that does not fit a C int, in training and in generation."""
    for arguments in (["train", corpus_file, *smallest], ["generate", tiny]):
        ended = charloom(*arguments, "--threads", str(threads))
        assert (ended.status, ended.out) == (2, "")
        assert "--threads must be at most 65,536" in ended.complaint


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_here(charloom, tmp_path, corpus_file, device):
    """Catches training on another device than the given one, and a run folder after the error."""
    torch = pytest.importorskip("torch")
    if {"cuda": torch.cuda, "mps": torch.backends.mps}[device].is_available():
        pytest.skip("this machine has one")
    ended = charloom("train", corpus_file, "--device", device)
    assert ended.status == 1
    assert f"--device {device}" in ended.complaint
    assert "cpu" in ended.complaint
    assert nothing_begun(tmp_path)


def test_bf16_where_onednn_has_none(cold, tmp_path, corpus_file, smallest):
    """Catches a traceback of PyTorch, a text that is read first, and an `auto` that chooses what does not work."""
    pytest.importorskip("torch")
    env = {"ONEDNN_MAX_CPU_ISA": "AVX2"}  # makes a newer processor refuse a bf16 LSTM too
    ended = cold("train", "missing.txt", "--engine", "torch", "--precision", "bf16", env=env)
    assert ended.status == 1
    assert ended.complaint.startswith("--precision bf16 needs a CPU on which PyTorch trains the cell 'lstm' in bf16")
    assert nothing_begun(tmp_path)
    ended = cold("train", corpus_file, *smallest, "--engine", "torch", "--precision", "auto", env=env)
    assert ended.status == 0, ended.err
    assert "float32" in ended.err


def test_without_torch(cold, tmp_path, tiny, corpus_file, smallest):
    """Catches a base install that cannot train: only a GPU needs PyTorch. Without kernels, one notice says that NumPy
    trains.
    """
    write(tmp_path, "sitecustomize.py", "import sys\nsys.modules['torch'] = None\n" + HIDE)
    env = {"PYTHONPATH": str(tmp_path)}
    for wanted in (["--engine", "torch"], ["--device", "cuda"]):
        ended = cold("train", corpus_file, *wanted, env=env)
        assert ended.status == 1, wanted
        assert "PyTorch, which is not installed; run: pip install torch" in ended.complaint
        assert nothing_begun(tmp_path)
    if chosen().module is not None:
        ended = cold("train", corpus_file, *smallest, env=env)
        assert ended.status == 0, ended.err
        assert "with: kernels " in ended.err
        assert "pip install" not in ended.err
    env |= {"CHARLOOM_KERNELS": "off"}
    assert len(cold("generate", tiny, "--length", "5", env=env).out) == 6
    assert cold("eval", tiny, corpus_file, env=env).status == 0
    info = cold("info", env=env).out
    assert "NumPy; PyTorch is faster" in info
    assert "pip install torch" in info
    ended = cold("train", corpus_file, *smallest, env=env)
    assert ended.status == 0, ended.err
    assert "CHARLOOM_KERNELS=off; PyTorch would be faster: pip install torch" in ended.err
    assert ended.err.count("pip install") == 1
    assert "with: numpy " in ended.err
    quiet = cold("train", corpus_file, *smallest, "--engine", "numpy", env=env)
    assert "pip install" not in quiet.err, "asked for, it is no news"


HIDE = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
"""
