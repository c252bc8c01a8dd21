"""`charloom train`: its output, stopping, and resuming."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from charloom.training.curve import read_curve

pytestmark = pytest.mark.processor

START = [sys.executable, "-m", "charloom", "train"]


def test_the_folder_on_stdout_and_all_else_on_stderr(charloom, corpus_file, smallest):
    """Catches `model=$(charloom train x.txt)` that captures anything but the folder."""
    ended = charloom("train", corpus_file, *smallest)
    assert (ended.status, ended.out) == (0, "runs/corpus-1/best\n")
    assert "training in runs/corpus-1: lstm, 1 x 8 units" in ended.err
    assert "nats/char (bits)" in ended.err
    assert re.search(r"validation, whole split: \d\.\d{4} nats/char \(\d\.\d{3} bits\), accuracy", ended.err)
    assert "\x1b" not in ended.err
    assert charloom("train", corpus_file, *smallest, "--quiet").out == "runs/corpus-2/best\n"


def test_json_lines_and_nothing_else(charloom, tmp_path, corpus_file, smallest):
    """Catches a line that is not JSON, and a notice that is on stderr instead."""
    ended = charloom("train", corpus_file, *smallest, "--batch-size", "9999", "--out", "run", "--json")
    assert (ended.status, ended.err) == (0, "")
    events = [json.loads(line) for line in ended.out.splitlines()]
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1]) == ("notice", "finished")
    assert {"started", "validation", "sample"} <= {*kinds}
    assert events[-1]["run"] == "run"
    logged = [json.loads(line)["event"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert set(logged) <= {*kinds}


def test_stdin_globs_and_compressed_files(charloom, tmp_path, corpus, smallest):
    """Catches a reader that exists but cannot be used from the command line."""
    import gzip

    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(corpus.encode()))
    assert charloom("train", "-", *smallest, "--quiet", stdin=corpus).out == "runs/stdin-1/best\n"
    assert charloom("train", "*.gz", *smallest, "--quiet").status == 0
    runs = [json.loads((path / "best/config.json").read_text()) for path in (tmp_path / "runs").iterdir()]
    assert len({run["metadata"]["sha256"] for run in runs}) == 1


def test_a_run_is_never_overwritten(charloom, tmp_path, corpus_file, smallest):
    """Catches a second run with the same --out that changes the first one."""
    assert charloom("train", corpus_file, *smallest, "--out", "run").status == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    ended = charloom("train", corpus_file, *smallest, "--out", "run")
    assert ended.status == 2
    assert "--out must be a new or empty folder; run holds files" in ended.complaint
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("lines", "flags", "prompt"),
    [
        ("Это простая строка русского текста.\nЕщё одна строка, длиннее.\n", [], "Ещё одна строка,"),
        ("Это простая строка русского текста.\nЕщё одна строка.\n", ["--vocabulary", "bytes"], "Ещё одна строка."),
        ('it\'s a "quoted" $HOME line\n@file\n', [], 'it\'s a "quoted"'),
        ("吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n", [], "吾輩は猫である。名前"),
        ("Bob\n", ["--records", "line"], "Bob"),
        ("- \x1b[2J\n@file\n", [], None),
        ("a line\n", ["--split", "1/0"], None),
    ],
    ids=["cyrillic", "bytes", "quoted", "cjk", "records", "unclean", "no-validation"],
)
def test_the_model_card_suggests_a_prompt_that_works(charloom, tmp_path, smallest, lines, flags, prompt):
    """Catches a prompt on the model card that the model refuses, or that a shell changes."""
    (tmp_path / "text.txt").write_text(lines * 60, encoding="utf-8")
    assert charloom("train", "text.txt", *smallest, *flags, "--sample-length", "0", "--out", "run").status == 0
    (line,) = [x for x in (tmp_path / "run/best/README.md").read_text("utf-8").splitlines() if "charloom generate" in x]
    words = shlex.split(line)
    assert words[:3] == ["charloom", "generate", "PATH_OF_THIS_FOLDER"]
    assert words[3:] == ([] if prompt is None else ["--prompt", prompt])
    ended = charloom("generate", "run", *words[3:], "--length", "5")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith(prompt or "")


def test_fine_tuning_tells_both_counts(charloom, tmp_path, tiny, smallest):
    """Catches --from that trains from initial weights, or does not report the number of new characters."""
    (tmp_path / "new.txt").write_text("Now is better than #never#.\n" * 30)
    ended = charloom("train", "new.txt", "--from", tiny, "--steps", "2", "--quiet")
    assert ended.status == 0
    assert re.search(r"fine-tuning: \d+ known tokens keep their weights, 1 new", ended.err)
    ended = charloom("train", "new.txt", "--from", tiny, "--hidden", "9")
    assert ended.status == 2
    assert "--hidden must be 8, as in the model that --from names; got" in ended.complaint


def test_fine_tuning_is_planned_around_the_model(charloom, corpus_file, tiny):
    """Catches a plan for another network than the base model, and defaults in place of planned values."""
    arguments = ["train", corpus_file, "--from", tiny, "--minutes", "0.05"]
    shown = json.loads(charloom(*arguments, "--plan-only", "--json").out)
    settings = {choice["setting"] for choice in shown["choices"]}
    assert {"dropout", "weight_drop", "dropout_mask", "lr"} < settings
    assert not settings & {"cell", "input_gate", "layers", "hidden"}
    ended = charloom(*arguments, "--json")
    events = [json.loads(line) for line in ended.out.splitlines()]
    assert settings == {
        choice["setting"] for event in events if event["event"] == "planned" for choice in event["choices"]
    }


def test_tensorboard_events(charloom, tmp_path, corpus_file, smallest):
    """Catches a flag without an effect."""
    pytest.importorskip("tensorboard")
    assert charloom("train", corpus_file, *smallest, "--tensorboard", "--out", "run", "--quiet").status == 0
    assert list((tmp_path / "run/tensorboard").glob("events.*"))


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.05)


@pytest.mark.once
def test_ctrl_c_saves_and_prints_the_command_that_goes_on(charloom, tmp_path, corpus_file):
    """Catches a traceback, a lost run, status 1, and a printed command that does not work."""
    flags = ["--hidden", "8", "--steps", "1000000", "--validate-every", "5", "--out", "my run"]
    with subprocess.Popen([*START, corpus_file, *flags], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        _wait_for(tmp_path / "my run" / "samples.txt")
        process.send_signal(signal.SIGINT)
        err = process.communicate()[1]
    assert process.returncode == 130
    last = err.splitlines()[-1]
    step = int(re.fullmatch(r"charloom: stopped at step ([\d,]+); everything is saved in .*", last)[1].replace(",", ""))
    assert last.endswith("charloom train --resume 'my run'")
    assert charloom("generate", "my run", "--length", "3").status == 0
    ended = charloom("train", "--resume", "my run", "--steps", str(step + 2))
    assert ended.status == 0
    assert f"resuming at step {step:,}" in ended.err
    assert f"done: {step + 2:,} steps" in ended.err


class Terminal:
    """A run on its own terminal."""

    def __init__(self, folder: Path, *arguments: str | os.PathLike[str]) -> None:
        self.folder = folder
        self._leader, follower = pty.openpty()
        self.process = subprocess.Popen(
            [*START, *map(os.fspath, arguments)],
            cwd=folder,
            env={**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "xterm"},
            stdin=follower,
            stdout=subprocess.DEVNULL,
            stderr=follower,
            start_new_session=True,
        )
        os.close(follower)
        self.seen = b""

    def read_until(self, text: bytes, seconds: float = 60) -> None:
        """Reads until `text` is found. b"" is never found, so it reads to the end."""
        deadline = time.monotonic() + seconds
        while not text or text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self._leader], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self._leader, 65536)
                except OSError:  # Linux reports in this way that the other side is closed
                    break
        if not text:
            self.close()
            self.process.wait()

    def close(self) -> None:
        """Closes the terminal."""
        os.close(self._leader)


@pytest.mark.once
def test_the_live_display_and_ctrl_c_in_it(tmp_path, corpus_file):
    """Catches a cursor that stays hidden, and a progress bar that stays, after training is stopped."""
    terminal = Terminal(
        tmp_path, corpus_file, "--hidden", "8", "--minutes", "9", "--validate-every", "5", "--out", "run"
    )
    terminal.read_until(b"left")
    assert "latest sample" in terminal.seen.decode()
    terminal.process.send_signal(signal.SIGINT)
    terminal.read_until(b"")
    assert terminal.process.returncode == 130
    assert terminal.seen.rfind(b"\x1b[?25h") > terminal.seen.rfind(b"\x1b[?25l") >= 0
    assert terminal.seen.rstrip().endswith(b"resume the run: charloom train --resume run")


@pytest.mark.once
@pytest.mark.parametrize("full", [False, True], ids=["closed-pipe", "full-disk"])
def test_a_run_outlives_the_reader_of_its_stderr(tmp_path, corpus_file, smallest, full):
    """Catches training that ends silently with status 0 when its stderr is closed: `2> >(head -3)`."""
    if full and not Path("/dev/full").exists():
        pytest.skip("a device of Linux")
    read, write = os.pipe()
    os.close(read)
    with open("/dev/full", "wb") if full else os.fdopen(write, "wb") as stderr:
        ended = subprocess.run(
            [*START, corpus_file, *smallest, "--out", "run"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=stderr
        )
    assert (ended.returncode, ended.stdout) == (0, b"run/best\n")
    logged = [json.loads(line)["event"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert logged[-1] == "finished"


@pytest.mark.once
def test_a_run_outlives_its_terminal(tmp_path, corpus_file):
    """Catches a lost checkpoint and a traceback when the terminal closes during the live display."""
    flags = ["--hidden", "8", "--steps", "3000", "--validate-every", "100", "--sample-length", "9", "--out", "run"]
    terminal = Terminal(tmp_path, corpus_file, *flags)
    terminal.read_until(b"left")
    terminal.close()
    assert terminal.process.wait(60) == 0
    logged = [json.loads(line)["event"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert logged[-1] == "finished"


def test_the_plan_alone(charloom, corpus_file, tmp_path):
    """Catches a plan that trains or leaves a folder, and a user's value that is shown as planned."""
    arguments = ["train", corpus_file, "--minutes", "0.05", "--hidden", "16", "--plan-only"]
    ended = charloom(*arguments)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("plan for 0.05 minutes: 15,444 tokens")
    rows = [line.split()[0] for line in ended.out.splitlines()[1:]]
    assert rows[:5] == ["cell", "input_gate", "layers", "batch_size", "seq_length"]
    assert {"weight_drop", "dropout_mask", "lr", "beta1", "weight_decay"} < set(rows)
    found = json.loads(charloom(*arguments, "--lr", "0.1", "--json").out)
    assert [choice["setting"] for choice in found["choices"]] == [row for row in rows if row != "lr"]
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.txt"]
    assert "needs --minutes as the budget" in charloom("train", corpus_file, "--steps", "5", "--plan-only").complaint
    assert "--loss every" in charloom("train", corpus_file, "--loss", "last", "--plan-only").complaint
    assert "--plan-only must be given without --resume" in charloom("train", "--resume", "x", "--plan-only").complaint


def test_a_preset_leaves_nothing_to_plan(charloom, corpus_file):
    """Catches planned weight drop in a run with the preset of a lesson."""
    assert "such as --hidden" in charloom("train", corpus_file, "--preset", "numpy", "--plan-only").complaint
    events = charloom("train", corpus_file, "--preset", "numpy", "--steps", "2", "--minutes", "9", "--json").out
    assert "planned" not in {json.loads(line)["event"] for line in events.splitlines()}


def test_what_is_planned_is_what_is_trained(charloom, corpus_file, tmp_path):
    """Catches a plan that is shown but not used, and a new plan for a resumed run."""
    arguments = ["--minutes", "9", "--steps", "3", "--hidden", "16", "--sample-length", "0"]
    events = charloom("train", corpus_file, *arguments, "--out", "run", "--json").out.splitlines()
    planned = next(event for line in events if (event := json.loads(line))["event"] == "planned")
    settings = tomllib.loads((tmp_path / "run" / "run.toml").read_text())
    flat = {name: value for section in settings.values() for name, value in section.items()}
    assert {choice["setting"]: choice["value"] for choice in planned["choices"]}.items() <= flat.items()
    resumed = charloom("train", "--resume", "run", "--steps", "5", "--json").out
    assert "planned" not in resumed
    assert tomllib.loads((tmp_path / "run" / "run.toml").read_text())["model"] == settings["model"]


def test_a_run_ends_with_a_verdict(charloom, corpus_file, tmp_path):
    """Catches a verdict without the validations before a resume, and a verdict without a validation split."""
    arguments = ["train", corpus_file, "--hidden", "8", "--validate-every", "2", "--sample-length", "0"]
    assert charloom(*arguments, "--steps", "4", "--out", "run", "--quiet").status == 0
    ended = charloom("train", "--resume", "run", "--steps", "8", "--json")
    finished = json.loads(ended.out.splitlines()[-1])
    assert finished["seen_nats"] > 0
    assert f"{finished['seen_nats']:.3f} nats/char on the training text" in finished["verdict"]
    curve, _ = read_curve(tmp_path / "run" / "log.jsonl")
    assert curve.steps == [2, 4, 6, 8]
    assert len(curve.nats) == len(curve.training) == 4
    assert "fitted" in charloom(*arguments, "--steps", "2", "--out", "shown").err.splitlines()[-1]
    alone = charloom(*arguments, "--steps", "2", "--split", "1/0", "--out", "alone", "--json")
    assert json.loads(alone.out.splitlines()[-1])["verdict"] is None


def test_a_run_that_diverged_fails(charloom, corpus_file, tmp_path):
    """Catches status 0 for a model that is worse than the frequencies of the characters."""
    flags = ["--steps", "40", "--hidden", "16", "--lr", "100", "--precision", "fp32", "--sample-length", "0"]
    ended = charloom("train", corpus_file, *flags, "--out", "run")
    assert (ended.status, ended.out) == (1, "")
    *_, verdict, complaint = ended.err.splitlines()
    assert verdict.startswith("diverged: training loss rose to ")
    assert complaint.startswith("charloom: the weights diverged: ")
    assert complaint.endswith("start a new run with a smaller --lr")
    assert charloom("generate", "run", "--length", "3").status == 0


def test_a_verdict_on_a_text_with_line_separators(charloom, tmp_path):
    """Catches a log that cannot be read after training: U+2028 ends a line for Python, but not for JSON."""
    (tmp_path / "a.txt").write_text("one\u2028two\x85three\n" * 300, encoding="utf-8")
    ended = charloom("train", "a.txt", "--steps", "4", "--hidden", "8", "--sample-length", "300", "--out", "run")
    assert ended.status == 0, ended.err
    assert "fitted" in ended.err.splitlines()[-1]


def test_a_verdict_on_one_long_record(charloom, tmp_path):
    """Catches a division by zero for a part of the text without a complete record."""
    (tmp_path / "a.txt").write_text("a long one " * 30_000 + "\n" + "and\n" * 30, encoding="utf-8")
    arguments = ["--records", "line", "--batches", "records", "--steps", "1", "--hidden", "4", "--sample-length", "0"]
    ended = charloom("train", "a.txt", *arguments, "--out", "run")
    assert ended.status == 0, ended.err


def test_resume_auto_goes_on_in_out(charloom, corpus_file, smallest):
    """Catches a repeated command that is refused or begins again."""
    ended = charloom("train", corpus_file, *smallest, "--resume", "auto")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == "charloom: --resume auto needs the folder of the run: add --out DIR\n"
    for begins in ("training in run:", "resuming at step"):
        ended = charloom("train", corpus_file, *smallest, "--resume", "auto", "--out", "run")
        assert (ended.status, ended.out) == (0, "run/best\n")
        assert begins in ended.err


def test_without_torchrun_torch_is_not_imported(tmp_path, corpus_file, smallest):
    """Catches a second of import for each run, and charloom that needs PyTorch."""
    program = (
        "import sys; from charloom.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", program, "train", str(corpus_file), *smallest, "--engine", "numpy"]
    alone = {**os.environ, "WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    ended = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
