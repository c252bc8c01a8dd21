"""`import charloom`: train, load, and what a model does."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

import charloom
from charloom.errors import ModelError, SettingsError, TextError
from charloom.training.events import Finished

pytestmark = pytest.mark.processor

SMALLEST = {"steps": 2, "hidden": 8, "embedding": 4, "batch_size": 4, "seq_length": 16, "threads": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: str) -> Path:
    """A run folder that `charloom.train` made."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "my.txt").write_text(corpus, encoding="utf-8")
    seen = []
    charloom.train(folder / "my.txt", out=folder / "run", report=seen.append, **SMALLEST)
    assert isinstance(seen[-1], Finished)
    return folder / "run"


def test_train_gives_the_best_model_of_the_run(trained, capsys):
    """The last weights instead of the best; or words on somebody's stdout."""
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
    """Catches a base model that is ignored: its tokens must be in the vocabulary of the new one."""
    (tmp_path / "new.txt").write_text("never ## better\n" * 30)
    model = charloom.train(tmp_path / "new.txt", base=trained, out=tmp_path / "run", steps=1)
    old = charloom.load(trained)
    assert {*old.vocabulary.characters} < {*model.vocabulary.characters}
    assert model.architecture.hidden == 8


def test_former_names_work_with_a_warning(trained, tmp_path, monkeypatch):
    """Catches a keyword of the last version that is refused, ignored, or accepted in silence."""
    monkeypatch.setattr("charloom.earlier.SETTINGS", {"moves": "steps"})
    (tmp_path / "new.txt").write_text("never ## better\n" * 30)
    with pytest.warns(DeprecationWarning, match="is now called") as warned:
        model = charloom.train(tmp_path / "new.txt", origin=trained, out=tmp_path / "run", moves=1)
    assert model.architecture.hidden == 8
    assert model.metadata["step"] == 1
    assert [(str(each.message).split(";")[0], each.filename) for each in warned] == [
        ("origin is now called base", __file__),
        ("`moves` is now called `steps`", __file__),
    ]


def test_mistakes_are_exceptions_of_ours(tmp_path, trained):
    """A SystemExit or a library's own error in somebody's program; a run folder left behind."""
    with pytest.raises(TextError, match="no such file"):
        charloom.train(tmp_path / "missing.txt", out=tmp_path / "run")
    with pytest.raises(SettingsError, match="`hiden` is an unknown name"):
        charloom.train(trained.parent / "my.txt", out=tmp_path / "run", hiden=3)
    with pytest.raises(ModelError, match="does not exist"):
        charloom.load(tmp_path / "missing")
    with pytest.raises(AttributeError, match="no attribute 'tain'"):
        charloom.tain  # noqa: B018
    assert not (tmp_path / "run").exists()


def test_importing_costs_nothing():
    """`import charloom` that loads NumPy or PyTorch before anything is asked."""
    code = "import sys, charloom; dir(charloom); print({'numpy', 'torch', 'pydantic'} & {*sys.modules})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("set()\n", "")


def test_what_it_offers_can_be_seen():
    """An empty `dir()`: a newcomer in a notebook presses Tab."""
    assert {"Model", "load", "train"} <= {*dir(charloom)}
