"""A run folder: it is never overwritten; its settings, its log, and the errors about damage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charloom.checkpoint import load_model
from charloom.config import Settings
from charloom.errors import CharloomError, Interrupted, ModelError, SettingsError, TextError, TrainingError
from charloom.files import LARGEST_TEXT
from charloom.training import run_folder as run_module
from charloom.training import start
from charloom.training.budget import Progress
from charloom.training.events import Finished, Notice, Started
from charloom.training.run_folder import RunFolder

CHEAP = {
    "hidden": 6,
    "embedding": 3,
    "batch_size": 4,
    "seq_length": 8,
    "steps": 3,
    "device": "cpu",
    "precision": "fp32",
}


def train(path, out=None, base=None, report=None, stop=lambda: False, **values):
    return start.start([str(path)], {**CHEAP, **values}, out, base, report or (lambda _: None), stop)


def resume(folder, events=None, **budgets):
    return start.resume(folder, budgets, (lambda _: None) if events is None else events.append, lambda: False)


def stop_after(steps):
    asked = iter([False] * (steps - 1))
    return lambda: next(asked, True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, zen):
    """A run that was stopped after three of six steps. Tests only read it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "corpus.txt").write_text(zen, encoding="utf-8")
    with pytest.raises(Interrupted):
        train(folder / "corpus.txt", folder / "run", steps=6, stop=stop_after(3))
    return folder / "run"


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


# Beginning ------------------------------------------------------------------------------------------------------------


def test_each_run_gets_a_folder_of_its_own(tmp_path, monkeypatch, corpus_file):
    """Catches a second run of a text that overwrites the first."""
    monkeypatch.chdir(tmp_path)
    assert [train(corpus_file, steps=1).run for _ in range(2)] == ["runs/corpus-1", "runs/corpus-2"]
    (tmp_path / "runs" / "x-1").write_text("a file of somebody else's")
    assert RunFolder.create(None, "x", Settings(), {}).folder.name == "x-2"


def test_out_takes_a_new_or_an_empty_folder_and_nothing_else(tmp_path, corpus_file):
    """Catches a user's files, or an earlier run, that are overwritten."""
    mine = tmp_path / "mine"
    mine.mkdir()
    train(corpus_file, mine, steps=1)
    before = (mine / "best" / "model.safetensors").read_bytes()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SettingsError, match=f"`out` must be a new or empty folder; {mine} holds files"):
        train(corpus_file, mine, seed=1)
    with pytest.raises(SettingsError, match=r"`out` must be a folder that can be written; .*file: File exists"):
        train(corpus_file, tmp_path / "file")
    with pytest.raises(SettingsError, match=r"`out` must be a folder that can be written; .*file: File exists"):
        train(corpus_file, tmp_path / "file" / "below")
    assert (mine / "best" / "model.safetensors").read_bytes() == before


def test_a_folder_that_nobody_named(tmp_path, corpus_file, monkeypatch):
    """Catches an error about `out`, which was not given, and a missing run that is called a missing file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(
        SettingsError, match=r"^a new run goes to the folder runs, which .*; pass another folder as `out`$"
    ):
        train(corpus_file, None)
    with pytest.raises(ModelError, match=r"; nope does not exist$"):
        resume(Path("nope"))


def test_a_text_that_cannot_be_used_leaves_no_folder(tmp_path):
    (tmp_path / "one.txt").write_text("x")
    with pytest.raises(TextError, match="at least 2 characters"):
        train(tmp_path / "one.txt", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("checkpoint", "left"), [(1, False), (2, True)])
def test_control_c_while_a_checkpoint_is_replaced_keeps_the_run(tmp_path, corpus_file, monkeypatch, checkpoint, left):
    """Catches a run of hours that is removed because only `last.old` is there, and a folder that nothing can resume."""
    rename, seen = Path.rename, []

    def interrupt(self, target):
        if Path(target).name == "last":
            seen.append(target)
            if len(seen) == checkpoint:
                raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(corpus_file, tmp_path / "run", steps=3, checkpoint_every=1)
    monkeypatch.undo()
    assert (tmp_path / "run").exists() == left
    if left:
        assert resume(tmp_path / "run").step == 3


def test_a_full_disk_before_the_first_checkpoint_is_not_called_resumable(tmp_path, corpus_file, monkeypatch):
    """Catches advice to resume a run that no longer exists."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("charloom.training.start.prepare", full)
    with pytest.raises(TrainingError, match="run cannot be written: No space left on device; free disk space, then st"):
        train(corpus_file, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_text_whose_name_is_no_utf_8_can_be_trained_on(tmp_path, zen):
    """Catches a UnicodeEncodeError for a name in Latin-1: run.toml and the model card are UTF-8."""
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.txt")
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(zen)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    finished = train(os.fsdecode(path), tmp_path / "run", steps=2)
    assert finished.step == 2
    assert load_model(tmp_path / "run").vocabulary.size > 10
    assert resume(tmp_path / "run").step == 2


def test_run_toml_holds_every_setting_resolved(finished):
    """Catches a default of the next version that changes an old run."""
    data = tomllib.loads((finished / "run.toml").read_text())
    source = data.pop("source")
    assert Settings.model_validate(data).training.steps == 6
    assert data["training"]["lr"] == Settings().training.lr
    assert source["paths"] == [str(finished.parent / "corpus.txt")]


def test_everything_reported_is_in_the_log(tmp_path, zen):
    """Catches notices and a first line that are shown but not logged, and losses without bits."""
    (tmp_path / "a.txt").write_text(zen, encoding="utf-8")
    events = []
    train(tmp_path / "a.txt", tmp_path / "run", report=events.append, batch_size=500, split="80/10/10")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    shown = sorted(json.dumps(event.to_json(), sort_keys=True) for event in events)
    assert sorted(json.dumps(line, sort_keys=True) for line in log) == shown
    assert any(isinstance(event, Notice) and "too short for a batch of 500 x 8" in event.text for event in events)
    end = log[-1]
    assert end["event"] == "finished"
    for name in ("validation", "test"):
        assert end[f"{name}_bits"] == pytest.approx(end[f"{name}_nats"] / np.log(2))
    metadata = load_model(tmp_path / "run").metadata
    assert (metadata["test_nats"], metadata["split"]) == (end["test_nats"], "80/10/10")


# Going on -------------------------------------------------------------------------------------------------------------


def test_a_new_budget_holds_for_the_next_resume_too(copy):
    """Catches a run that is resumed with new steps, interrupted, and then ends at the old number of steps."""
    events = []
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        start.resume(copy, {"steps": "9"}, events.append, lambda: next(asked))
    assert [event.step for event in events if isinstance(event, Started)] == [3]
    assert resume(copy).step == 9


def test_a_spent_budget_only_measures_again(copy):
    """Catches a finished run that trains on, writes its last line again, or loses its best weights when it
    is resumed.
    """
    resume(copy)
    before = {name: (copy / name).read_bytes() for name in ("best/model.safetensors", "last/resume.safetensors")}
    events = []
    assert resume(copy, events).step == 6
    assert {name: (copy / name).read_bytes() for name in before} == before
    log = [json.loads(line)["event"] for line in (copy / "log.jsonl").read_text().splitlines()]
    assert log.count("finished") == 1
    assert sum(isinstance(event, Finished) for event in events) == 1


def test_lines_written_after_the_checkpoint_are_taken_back(copy):
    """Catches lines after the last checkpoint that stay in the log: a kill leaves them, perhaps incomplete."""
    size = (copy / "log.jsonl").stat().st_size
    with (copy / "log.jsonl").open("ab") as file:
        file.write(b'{"event": "validation", "step": 4}\n{"eve')
    RunFolder.open(copy).load_last()
    assert (copy / "log.jsonl").stat().st_size == size
    os.truncate(copy / "samples.txt", 4)  # a power cut may also lose samples
    RunFolder.open(copy).load_last()
    assert (copy / "samples.txt").read_bytes() == b"--- \n"


@pytest.mark.parametrize(
    ("damage", "lines"),
    [
        (lambda data: data[:-40], "1 line"),
        (lambda data: data[:300] + bytes(len(data) - 300), "1 line"),
        (lambda data: b"[1]\n" + data, "1 line"),
        (lambda data: b"\xff\n" + data[:90], "2 lines"),
        (
            lambda data: b'{"event": "validation", "step": "x", "validation_nats": 1.0, "train_nats": 1.0}\n' + data,
            "1 line",
        ),
        (lambda data: b"", None),
    ],
    ids=["cut", "zeros", "no event", "no text", "no step", "lost"],
)
def test_a_torn_log_is_skipped_with_a_notice_and_the_run_ends(copy, damage, lines):
    """Catches a JSONDecodeError after all training, and an event that is joined to an incomplete line."""
    path = copy / "log.jsonl"
    path.write_bytes(damage(path.read_bytes()))
    progress = json.loads((copy / "last" / "resume.json").read_text())
    (copy / "last" / "resume.json").write_text(json.dumps(progress | {"log_bytes": 10**6}))
    events = []
    assert resume(copy, events).step == 6
    said = [event.text for event in events if isinstance(event, Notice)]
    assert said == ([f"log.jsonl has {lines} that cannot be read, perhaps after a power cut; skipped"] * bool(lines))
    shown = [json.dumps(event.to_json(), ensure_ascii=False) for event in events]
    assert path.read_text(encoding="utf-8", errors="replace").split("\n")[-len(shown) - 1 : -1] == shown
    assert resume(copy, []).step == 6


def test_what_a_run_begins_with_is_on_the_disk_before_the_first_checkpoint(tmp_path, corpus_file, monkeypatch):
    """Catches a checkpoint that survives a power cut without its ids or its log."""
    synced, sync = set(), os.fsync

    def record(handle):
        status = os.fstat(handle)
        synced.add((status.st_dev, status.st_ino))
        sync(handle)

    monkeypatch.setattr(os, "fsync", record)
    run = tmp_path / "new" / "run"
    with pytest.raises(Interrupted):
        train(corpus_file, run, stop=stop_after(1))
    for path in ("data/ids.bin", "data/dataset.json", "data", "run.toml", "log.jsonl", ".", "..", "../.."):
        status = (run / path).stat()
        assert (status.st_dev, status.st_ino) in synced, path


def everything_in(folder):
    """Every file with its content and its time, except the lock."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def test_a_second_process_in_a_run_gets_one_line_and_changes_nothing(copy):
    """Catches two processes that train one run, write into `last.new`, and mix their logs."""
    copied = copy.with_name("copied")
    with RunFolder.open(copy):
        before = everything_in(copy)
        with pytest.raises(
            TrainingError, match="run must be trained by one process at a time; another one trains it; wait"
        ):
            resume(copy, steps=9)
        assert everything_in(copy) == before
        shutil.copytree(copy, copied)
        assert resume(copied).step == 6, "a copy is a run of its own"
    assert resume(copy).step == 6


def test_the_lock_of_a_killed_process_blocks_nobody(copy):
    """Catches a run that cannot be resumed before a user removes a file."""
    program = "import os, signal, sys; from pathlib import Path; from charloom.training.run_folder import RunFolder\n"
    program += "RunFolder.open(Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", program, str(copy)]).returncode == -signal.SIGKILL
    assert (copy / "lock").exists()
    for name in ("last.new-0123abcd", "last.new"):
        shutil.copytree(copy / "last", copy / name)
    assert resume(copy).step == 6
    assert sorted(path.name for path in copy.iterdir()) == [
        *("best", "data", "last", "lock", "log.jsonl", "run.toml", "samples.txt")
    ]


def test_a_run_is_unlocked_however_it_ends(copy, tmp_path, corpus_file):
    """Catches a lock that an error keeps, for example an error that a notebook stores."""
    path = copy / "last" / "resume.json"
    whole = path.read_text()
    path.write_text("{}")
    with pytest.raises(ModelError) as damaged:
        resume(copy)
    path.write_text(whole)
    assert resume(copy).step == 6
    with pytest.raises(Interrupted) as stopped:
        train(corpus_file, tmp_path / "new", stop=stop_after(1))
    assert resume(tmp_path / "new").step == 3
    assert [damaged.type, stopped.type] == [ModelError, Interrupted]


def test_of_two_runs_that_are_given_one_empty_folder_one_gets_it(tmp_path, corpus_file, monkeypatch):
    """Catches a second run that writes into the folder of the first, and removes it when it fails."""
    out, ended = tmp_path / "out", []
    make = run_module.new_folder

    def with_another_between(*arguments):
        folder = make(*arguments)
        monkeypatch.setattr(run_module, "new_folder", make)
        ended.append(train(corpus_file, out))
        return folder

    monkeypatch.setattr(run_module, "new_folder", with_another_between)
    with pytest.raises(SettingsError, match=f"`out` must be a new or empty folder; another run began in {out}"):
        train(corpus_file, out)
    assert ended[0].step == resume(out).step == 3


@pytest.mark.parametrize("name", ["log.jsonl", "samples.txt", "last", "best", "kept"])
def test_nothing_is_written_through_a_link(copy, tmp_path, name):
    """Catches a file that is truncated or changed through a link with the name of the log."""
    mine = tmp_path / "mine"
    if (copy / name).is_file():
        mine.write_text("mine " * 10000)
    else:
        shutil.copytree(copy / "last", mine)
        settings = (copy / "run.toml").read_text()
        (copy / "run.toml").write_text(settings.replace("[training]", "[training]\nkeep = 1"))
    if (copy / name).exists():
        (copy / name).rename(tmp_path / "before")
    (copy / name).symlink_to(mine)
    before = mine.read_text() if mine.is_file() else everything_in(mine)
    with pytest.raises(
        TrainingError, match=f"{name} cannot be written: a link, and none is followed; .*; correct this"
    ):
        resume(copy)
    assert before == (mine.read_text() if mine.is_file() else everything_in(mine))


@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_folder_that_is_removed_while_it_is_trained_stays_so(copy, replaced):
    """Catches a removed folder that is made again, with status 0, and checkpoints of one run in the folder
    of another.
    """

    def remove(event):
        if isinstance(event, Started):
            shutil.rmtree(copy)
            if replaced:
                copy.mkdir()
                (copy / "lock").write_text("")

    with pytest.raises(TrainingError, match=r"run must stay in its place while it is trained; it was removed, moved"):
        start.resume(copy, {}, remove, lambda: False)
    assert not replaced or [path.name for path in copy.iterdir()] == ["lock"]
    assert replaced or not copy.exists()


def test_a_run_whose_budget_is_spent_says_so_and_is_still_measured(tmp_path, corpus_file):
    """Catches `done` without the notice that no step was done, and a run stopped just before its end that
    cannot end.
    """
    with pytest.raises(Interrupted):
        train(corpus_file, tmp_path / "run", steps=3, stop=stop_after(3), split="80/10/10")
    assert "test_nats" not in load_model(tmp_path / "run").metadata
    ends = []
    for _ in range(2):
        events = []
        ends.append(resume(tmp_path / "run", events))
        assert [event.text for event in events if isinstance(event, Notice)] == [
            "this run has already ended: 3 of 3 steps; its best model is measured again; "
            "to train longer, resume it with a larger budget, such as `steps=6`"
        ]
        assert "test_nats" in load_model(tmp_path / "run").metadata
    assert ends[0] == ends[1]
    assert resume(tmp_path / "run", steps=6).step == 6


# Damage ---------------------------------------------------------------------------------------------------------------


def progress(**fields):
    def damage(folder):
        path = folder / "last" / "resume.json"
        data = json.loads(path.read_text()) | fields
        path.write_text(json.dumps({name: value for name, value in data.items() if value != "gone"}))

    return damage


def other_vocabulary(folder):
    """A vocabulary of the same size with one other character."""
    path = folder / "data" / "dataset.json"
    data = json.loads(path.read_text())
    data["vocabulary"]["characters"][-1] = "~"
    path.write_text(json.dumps(data))


def spoilt_id(folder):
    path = folder / "data" / "ids.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


def flipped(name):
    def damage(folder):
        data = bytearray((folder / name).read_bytes())
        data[-7] ^= 1
        (folder / name).write_bytes(data)

    return damage


def three_gigabytes(folder):
    """A complete safetensors file of zeros that take no space on the disk."""
    size = 3 << 30
    header = json.dumps({"x": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    with (folder / "last" / "resume.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)


def device(name):
    def damage(folder):
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/null")

    return damage


def larger(name):
    return lambda folder: os.truncate(folder / name, LARGEST_TEXT + 1)


DAMAGE = {
    "no run.toml": (lambda folder: (folder / "run.toml").unlink(), "a folder with a run.toml"),
    "run.toml not TOML": (lambda folder: (folder / "run.toml").write_text("= 3"), "run.toml must hold the settings"),
    "run.toml not UTF-8": (lambda folder: (folder / "run.toml").write_bytes(b"\xff"), "run.toml must hold"),
    "run.toml odd": (lambda folder: (folder / "run.toml").write_text("[training]\nlr = -1"), "run.toml .*lr must be"),
    "run.toml very deep": (lambda f: (f / "run.toml").write_text("a = " + "[" * 50_000), "run.toml must hold"),
    "run.toml very deep tables": (lambda f: (f / "run.toml").write_text("a = " + "{a=" * 50_000), "run.toml must hold"),
    **{f"{name} beyond reason": (progress(**{name: 10**400}), f"last: resume.json: {name} must be")
       for name in ("step", "epoch", "index", "tokens", "seconds", "train_tokens", "log_bytes", "best_nats")},
    "seconds Infinity": (progress(seconds=float("inf")), "last: resume.json must be JSON"),
    "never began": (lambda folder: (folder / "last").rename(folder / "gone"), "was stopped before training began"),
    "resume.json gone": (lambda folder: (folder / "last" / "resume.json").unlink(), "last: resume.json must be"),
    "arrays gone": (lambda folder: (folder / "last" / "resume.safetensors").unlink(), "last: resume.safetensors must"),
    "arrays cut": (lambda f: os.truncate(f / "last" / "resume.safetensors", 600), "last: resume.safetensors must"),
    "an array flipped": (flipped("last/resume.safetensors"), "last: resume.safetensors must have the SHA-256 that res"),
    "the best flipped": (flipped("best/model.safetensors"), "best: model.safetensors must have the SHA-256"),
    "arrays of 3 GiB": (three_gigabytes, "last: resume.safetensors must have at most .* bytes; it has 32212"),
    **{f"{name} a device": (device(name), f"{os.path.basename(name)}.* not a regular file")
       for name in ("run.toml", "data/dataset.json", "data/ids.bin", "last/resume.json", "last/resume.safetensors",
                    "last/model.safetensors", "last/vocabulary.json")},
    **{f"{name} larger": (larger(name), f"{os.path.basename(name)} must have at most {LARGEST_TEXT} bytes")
       for name in ("run.toml", "data/dataset.json", "last/resume.json")},
    "step missing": (progress(step="gone"), "last: resume.json: step is missing"),
    "step negative": (progress(step=-1), "last: resume.json: step must be"),
    "step a word": (progress(step="many"), "last: resume.json: step must be"),
    "seconds NaN": (progress(seconds=float("nan")), "last: resume.json must be JSON"),
    "rate doubled": (progress(lr_factor=2), "last: resume.json: lr_factor must be"),
    "odd field": (progress(mood=1), "last: resume.json: mood is an unknown name"),
    "index beyond": (progress(index=10**6), "resume.json: index must be below"),
    "ids cut": (lambda folder: os.truncate(folder / "data" / "ids.bin", 10), "ids.bin has 10 bytes"),
    "an id beyond the vocabulary": (spoilt_id, "ids.bin: every id must be below"),
    "records where there were none": (
        lambda folder: (folder / "run.toml").write_text(
            (folder / "run.toml").read_text().replace('records = "none"', 'records = "line"')
        ),
        "records and keep_order in run.toml must be as they were when the run began; found records line, keep_order f",
    ),
    "data of another run": (other_vocabulary, "dataset.json must have the vocabulary of last/vocabulary.json"),
    "dataset gone": (lambda folder: (folder / "data" / "dataset.json").unlink(), "must hold a run's data"),
    "another optimizer": (
        lambda folder: (folder / "run.toml").write_text((folder / "run.toml").read_text().replace("adamw", "sgd")),
        "resume.safetensors: .* is (missing|not expected)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_one_error_that_names_the_file(copy, damage):
    change, message = DAMAGE[damage]
    change(copy)
    with pytest.raises(ModelError, match=message):
        resume(copy)


def test_a_run_of_an_older_version_has_no_checksums(copy):
    """Catches a run without checksums, from an older version, that is refused."""
    names = ("last/resume.json", "last/config.json", "best/config.json", "data/dataset.json")
    for path, key in zip([copy / name for name in names], [*3 * ["sha256"], "ids_sha256"], strict=True):
        data = json.loads(path.read_text())
        del data[key]
        path.write_text(json.dumps(data))
    (copy / "lock").unlink(missing_ok=True)
    assert resume(copy).step == 6


def test_a_folder_that_is_no_run_is_one_error(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ModelError, match=r"a folder with a run\.toml"):
            resume(folder)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["resume.json", "resume.safetensors", "config.json"]),
    edits=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), min_size=1, max_size=3),
    length=st.integers(0, 3000),
)
def test_damage_anywhere_in_last_is_found_or_harmless(finished, name, edits, length):
    """Catches a KeyError in the optimizer, and a count that is a word: the engine must continue or report
    the damage.
    """
    from charloom.engines.engine import choose_engine, open_engine

    path = finished / "last" / name
    whole = path.read_bytes()
    data = bytearray(whole[: length if length > 1000 else None])
    for place, value in edits:
        data[place % len(data)] = value
    path.write_bytes(data)
    log = (finished / "log.jsonl").read_bytes()
    try:
        run = RunFolder.open(finished)
        state = run.load_last()
        model, found, arrays = state.model, state.progress, state.arrays
        assert isinstance(found, Progress)
        choice = choose_engine(run.settings.training, model.architecture.cell)
        engine = open_engine(choice, model.architecture, run.settings.training)
        engine.load(model.parameters)
        rows = min(4, run.settings.training.batch_size)
        state = engine.restore(arrays, rows if found.index else 0)
        engine.step(np.zeros((rows, 2), np.int64), np.zeros((rows, 2), np.int64), state, 0.0)
    except CharloomError:
        pass
    finally:
        path.write_bytes(whole)
        (finished / "log.jsonl").write_bytes(log)


@pytest.mark.parametrize("sha256", [True, False])
def test_records_without_their_separators_are_one_error(tmp_path, corpus_file, sha256):
    """Catches a division by zero for a run of an older version, which has no checksum of its ids."""
    run = tmp_path / "run"
    train(corpus_file, run, steps=2, records="line")
    ids = run / "data" / "ids.bin"
    ids.write_bytes(bytes(ids.stat().st_size))
    stored = json.loads((run / "data" / "dataset.json").read_text())
    if not sha256:
        del stored["ids_sha256"]
    (run / "data" / "dataset.json").write_text(json.dumps(stored))
    found = "ids.bin must have the SHA-256" if sha256 else "records of the train split must begin and end with a sep"
    with pytest.raises(ModelError, match=found):
        resume(run, steps=4)
    settings = (run / "run.toml").read_text().replace("keep_order = false", "keep_order = true")
    (run / "run.toml").write_text(settings)
    with pytest.raises(ModelError):
        resume(run, steps=4)


def resume_or_start(path, out, **values):
    return start.resume_or_start([str(path)], {**CHEAP, **values}, out, None, lambda _: None, lambda: False)


def test_a_run_starts_and_then_is_resumed(tmp_path, corpus_file):
    """Catches a second start that refuses the folder or begins again."""
    assert resume_or_start(corpus_file, tmp_path / "run").step == 3
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert resume_or_start(corpus_file, tmp_path / "run", steps=5).step == 5
    assert (tmp_path / "run" / "log.jsonl").read_text().startswith(log.splitlines()[0])
    (tmp_path / "run" / "last").rename(tmp_path / "run" / "last.old")
    assert resume_or_start(corpus_file, tmp_path / "run", steps=6).step == 6


@pytest.mark.parametrize("settings", [True, False])
def test_a_start_that_was_killed_does_not_block_the_next(tmp_path, corpus_file, settings):
    """Catches a folder without a checkpoint that nobody can use."""
    run = tmp_path / "run"
    with RunFolder.create(run, "run", Settings(), {}) as created:
        if settings:
            created.save_settings()
            (run / "data" / "ids.bin").write_bytes(b"half")
            (run / "best.new-0123abcd").mkdir()
    assert resume_or_start(corpus_file, run).step == 3


@pytest.mark.parametrize("name", ["mine.txt", "data/mine.txt", "kept/model", "run.toml"])
def test_a_folder_that_is_no_run_stays(tmp_path, corpus_file, name):
    """Catches files of the user that are removed."""
    run = tmp_path / "run"
    (run / "data").mkdir(parents=True)
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text("mine")
    with pytest.raises(SettingsError, match="must be a new or empty folder"):
        resume_or_start(corpus_file, run)
    assert (run / name).read_text() == "mine"


def test_a_run_that_begins_elsewhere_stays(tmp_path, corpus_file):
    """Catches a run that is removed while another process prepares its text."""
    run = tmp_path / "run"
    with RunFolder.create(run, "run", Settings(), {}) as created:
        created.save_settings()
        with pytest.raises(TrainingError, match="one process at a time"):
            resume_or_start(corpus_file, run)
        assert (run / "run.toml").exists()
