"""`import charloom`: everything that it offers, and the types that a checker sees."""

from __future__ import annotations

import ast
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_type_hints

import pytest

import charloom
from charloom import CharloomError, ModelError, SettingsError, TextError
from charloom.checkpoint import load_model
from charloom.config import SECTIONS, Settings
from charloom.data.dataset import open_dataset
from charloom.training.keywords import ModelKeywords, SettingsKeywords, TextKeywords, TrainingKeywords

SMALLEST = {"steps": 2, "hidden": 8, "embedding": 4, "batch_size": 4, "seq_length": 16, "threads": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: str) -> Path:
    """A run folder that `charloom.train` made."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "my.txt").write_text(corpus, encoding="utf-8")
    seen = []
    charloom.train(folder / "my.txt", out=folder / "run", report=seen.append, **SMALLEST)
    assert isinstance(seen[-1], charloom.Finished)
    return folder / "run"


def stop_after(steps):
    asked = iter([False] * (steps - 1))
    return lambda: next(asked, True)


# Training -------------------------------------------------------------------------------------------------------------


def test_train_gives_the_best_model_of_the_run(trained, capsys):
    """Catches the last weights instead of the best ones, and output on the caller's stdout."""
    model = charloom.train(trained.parent / "my.txt", out=trained.parent / "again", **SMALLEST)
    assert model.metadata["run"] == str(trained.parent / "again")
    assert model.generate("Now", 50, seed=1) == charloom.load(trained).generate("Now", 50, seed=1)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_model_generates_streams_and_scores(trained):
    """The README's example, line by line."""
    model = charloom.load(str(trained))
    text = model.generate("Now", length=200, seed=1)
    assert len(text) == 200
    assert "".join(model.stream("Now", length=200, seed=1)) == text
    score = model.score("Now is better than never.")
    assert score.bits_per_char == pytest.approx(score.nats_per_char / math.log(2))
    assert 0 < score.bits_per_char < 10


def test_fine_tuning(trained, tmp_path):
    """Catches a base model that is ignored, or that is missing in the metadata."""
    (tmp_path / "new.txt").write_text("never ## better\n" * 30)
    model = charloom.train(tmp_path / "new.txt", base_model=trained, out=tmp_path / "run", steps=1)
    old = charloom.load(trained)
    assert {*old.vocabulary.characters} < {*model.vocabulary.characters}
    assert model.architecture.hidden == 8
    assert model.metadata["base_model"] == str(trained)
    assert f"Fine-tuned from `{trained}`" in (tmp_path / "run" / "best" / "README.md").read_text()
    assert "base_model" not in old.metadata


def test_former_names_work_with_a_warning(trained, tmp_path, monkeypatch):
    """Catches a keyword of the last version that is refused, ignored, or accepted in silence."""
    monkeypatch.setattr("charloom.earlier.SETTINGS", {"moves": "steps"})
    (tmp_path / "new.txt").write_text("never ## better\n" * 30)
    with pytest.warns(DeprecationWarning, match="is now called") as warned:
        model = charloom.train(tmp_path / "new.txt", origin=trained, out=tmp_path / "run", moves=1)
    assert model.architecture.hidden == 8
    assert model.metadata["step"] == 1
    assert [(str(each.message).split(";")[0], each.filename) for each in warned] == [
        ("`origin` is now called `base_model`", __file__),
        ("`moves` is now called `steps`", __file__),
    ]
    with pytest.raises(SettingsError, match="`base_model` must not be given with `origin`"):
        charloom.train("x.txt", base_model="a", origin="b")


def test_texts_in_memory(tmp_path, zen, trained):
    """Catches texts that are read as paths, records that run together, and a run that needs its texts to resume."""
    texts = zen.split("\n")
    model = charloom.train(texts=texts, records="file", out=tmp_path / "run", stop=stop_after(1), **SMALLEST)
    dataset = open_dataset(tmp_path / "run" / "data")
    records = dataset.vocabulary.decode(dataset.ids("train").view()).strip("\n").split("\n")
    assert {*records} < {*filter(None, texts)}
    name = f"{len(texts)}-texts-in-memory"
    assert (model.metadata["corpus"], model.metadata["characters"]) == (name, len("".join(texts)))
    assert f"Text: {name}, " in (tmp_path / "run" / "best" / "README.md").read_text()
    assert f"texts = {len(texts)}\n" in (tmp_path / "run" / "run.toml").read_text()
    assert charloom.resume(tmp_path / "run").metadata["step"] == 2
    with pytest.raises(SettingsError, match=r"`texts` must not be given with paths; got 'a\.txt' too"):
        charloom.train("a.txt", texts=texts)
    with pytest.raises(SettingsError, match="`texts` must be a list of strings"):
        charloom.train(texts=zen)


def test_a_file_and_a_text_give_the_same_run(tmp_path, corpus, trained):
    """Catches a second way of reading that differs from that of files."""
    charloom.train(texts=[corpus], out=tmp_path / "run", **SMALLEST)
    ids = "data/ids.bin"
    assert (tmp_path / "run" / ids).read_bytes() == (trained / ids).read_bytes()
    assert charloom.load(tmp_path / "run").generate(length=50, seed=1) == charloom.load(trained).generate(
        length=50, seed=1
    )


def test_a_list_of_paths_is_several_paths(tmp_path):
    """Catches a list that is refused, and a path of it that is left out."""
    for name in "abc":
        (tmp_path / name).write_text(f"{name}\n" * 20)
    model = charloom.train([tmp_path / "a", tmp_path / "b"], tmp_path / "c", out=tmp_path / "run", **SMALLEST)
    assert {*model.vocabulary.characters} == {*"abc\n"}


def test_a_plan_is_what_training_would_choose(trained, tmp_path, monkeypatch):
    """Catches a plan that is not planned for the given settings, that trains, or that leaves a folder."""
    monkeypatch.chdir(tmp_path)
    planned = charloom.plan(trained.parent / "my.txt", minutes=0.01, hidden=8)
    assert "hidden" not in [choice.setting for choice in planned.choices]
    assert planned.minutes == 0.01
    assert {"dropout", "lr"} <= {choice.setting for choice in planned.choices}
    assert planned.to_json()["event"] == "planned"
    assert [*tmp_path.iterdir()] == []
    seen = []
    assert charloom.plan(texts=["abc\n" * 9], minutes=0.01, hidden=8, report=seen.append).tokens == 32
    assert all(isinstance(event, charloom.Notice) for event in seen)
    with pytest.raises(SettingsError, match=r"^a plan needs `minutes` as the budget; got `steps=2`$"):
        charloom.plan(trained.parent / "my.txt", steps=2)
    for name, value in (("batches", "windows"), ("loss", "last")):
        with pytest.raises(SettingsError, match=f"^a plan needs `{name}=.*; got `{name}='{value}'`$"):
            charloom.plan(trained.parent / "my.txt", **{name: value})


# Stopping and going on ------------------------------------------------------------------------------------------------


def test_stop_gives_the_model_so_far_and_resume_goes_on(trained, tmp_path):
    """Catches a stop that is called too late, that raises or gives untrained weights, and a different end after
    resuming.
    """
    text = trained.parent / "my.txt"
    settings = {**SMALLEST, "steps": 6, "validate_every": 4}
    whole = charloom.train(text, out=tmp_path / "whole", **settings)
    stopped = charloom.train(text, out=tmp_path / "run", stop=stop_after(3), **settings)
    assert stopped.metadata["step"] == 3
    last = load_model(tmp_path / "run" / "last").parameters
    assert all((last[name] == value).all() for name, value in stopped.folder.parameters.items())
    run = stopped.metadata["run"]
    assert charloom.resume(run, stop=stop_after(2)).metadata["step"] == 4, "validated, so it is the best one"
    events = []
    resumed = charloom.resume(run, report=events.append)
    assert [event.step for event in events if isinstance(event, charloom.Started)] == [5]
    assert resumed.generate("Now", 50, seed=1) == whole.generate("Now", 50, seed=1)
    assert charloom.resume(run, steps=7).metadata["run"] == run
    assert events[-1].step == 6


def interrupted(code, folder, ready):
    """Runs Python code in a new process, sends SIGINT after `ready()`, and returns its stderr."""
    with subprocess.Popen([sys.executable, "-c", code], cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not ready():
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            return process.communicate(timeout=60)[1]
        finally:
            process.kill()


def test_control_c_is_a_keyboard_interrupt_and_the_run_goes_on(tmp_path, corpus_file):
    """Catches a library that takes over signals, and a run that cannot be resumed after a traceback."""
    code = f"""
import charloom
charloom.train({str(corpus_file)!r}, out="run", steps=10**6, validate_every=5, hidden=8, threads=1)
"""
    log = tmp_path / "run" / "log.jsonl"
    err = interrupted(code, tmp_path, lambda: log.exists() and log.read_text().count('"validation"') > 1)
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    events = []
    charloom.resume(tmp_path / "run", report=events.append, stop=stop_after(1))
    assert [event.step >= 5 for event in events if isinstance(event, charloom.Started)] == [True]


def test_control_c_before_the_first_step_leaves_nothing(tmp_path):
    """Catches a run folder without a model, which nothing can resume."""
    code = """
import charloom
def report(event):
    if isinstance(event, charloom.Started):
        open("ready", "w").close()
        while True:
            pass
charloom.train(texts=["abc " * 99], out="run", report=report, steps=9, hidden=8, threads=1)
"""
    err = interrupted(code, tmp_path, (tmp_path / "ready").exists)
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]


# What is offered ------------------------------------------------------------------------------------------------------


def test_mistakes_are_exceptions_of_ours(tmp_path, trained):
    """Catches a SystemExit or an exception of another library, and a run folder that stays."""
    with pytest.raises(TextError, match="no such file"):
        charloom.train(tmp_path / "missing.txt", out=tmp_path / "run")
    with pytest.raises(SettingsError, match="`hiden` is an unknown name"):
        charloom.train(trained.parent / "my.txt", out=tmp_path / "run", hiden=3)
    with pytest.raises(ModelError, match="does not exist"):
        charloom.load(tmp_path / "missing")
    with pytest.raises(ModelError, match=r"run\.toml"):
        charloom.resume(tmp_path / "missing")
    with pytest.raises(ModelError, match="a checkpoint must be a file"):
        charloom.import_model(tmp_path / "missing")
    with pytest.raises(AttributeError, match="no attribute 'tain'"):
        charloom.tain  # noqa: B018
    assert not (tmp_path / "run").exists()
    errors = [getattr(charloom, name) for name in charloom.__all__ if name.endswith("Error")]
    assert all(issubclass(error, CharloomError) for error in errors)
    assert len(errors) == 8


def test_full_memory_in_one_line(tmp_path):
    """Catches a MemoryError of NumPy, which does not say what to do."""

    def full(event):
        raise MemoryError

    arguments = {"texts": ["abc " * 9], "report": full, "threads": 1}
    for call in (lambda: charloom.train(out=tmp_path / "run", **arguments), lambda: charloom.plan(**arguments)):
        with pytest.raises(CharloomError, match="the memory is full; use a smaller `batch_size`"):
            call()


def test_importing_costs_nothing():
    """Catches `import charloom` that loads NumPy or PyTorch, or looks up its version."""
    code = "import sys; before = {*sys.modules}; import charloom; dir(charloom); print(*{*sys.modules} - before)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stderr == ""
    assert "charloom" in ended.stdout.split()
    assert not {"numpy", "torch", "pydantic", "typing", "importlib.metadata"} & {*ended.stdout.split()}


def test_what_it_offers_can_be_seen_and_is_there():
    """Catches an empty `dir()`, which completion shows, a name without a value, and a name that only type
    checkers see.
    """
    assert dir(charloom) == charloom.__all__
    assert all(getattr(charloom, name) is not None for name in charloom.__all__)
    tree = ast.parse(Path(charloom.__file__).read_text())
    checked = [alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(filter(None, checked)) == [name for name in charloom.__all__ if name != "__version__"]


@pytest.mark.parametrize(
    ("keywords", "section"), [(TextKeywords, "text"), (ModelKeywords, "model"), (TrainingKeywords, "training")]
)
def test_typed_settings_are_those_of_the_configuration(keywords, section):
    """Catches a setting that a type checker refuses or does not know, and one with another type."""
    assert get_type_hints(keywords) == {
        name: get_type_hints(SECTIONS[section])[name] for name in SECTIONS[section].model_fields
    }
    assert {*get_type_hints(SettingsKeywords)} == {*Settings().flat}
