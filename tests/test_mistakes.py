"""Wrong types of arguments in Python: one clear line that names the argument, without an internal traceback."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

import charloom
from charloom.architecture import Architecture
from charloom.checkpoint import ModelFolder
from charloom.config import ModelSettings
from charloom.data.vocabulary import Vocabulary
from charloom.errors import SettingsError
from charloom.model import Model


@pytest.fixture(scope="module")
def model() -> Model:
    shape = Architecture(**ModelSettings(cell="rnn", hidden=4).model_dump(), vocabulary_size=3)
    parameters = {name: np.zeros(size, np.float32) for name, size in shape.shapes.items()}
    return Model(ModelFolder(shape, Vocabulary("characters", "abc"), parameters))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.generate("a", stop=3), "`stop` must be a string or a list of strings; got 3"),
        (lambda m: m.generate("a", stop=b"x"), "`stop` must be a string or a list of strings; got b'x'"),
        (lambda m: m.generate("a", stop=["x", 3]), "`stop` must be a string; got 3"),
        (lambda m: m.generate("a", "many"), "`length` must be a whole number; got 'many'"),
        (lambda m: m.generate("a", 1.5), "`length` must be a whole number; got 1.5"),
        (lambda m: m.generate("a", temperature="hot"), "`temperature` must be a number; got 'hot'"),
        (lambda m: m.generate("a", greedy="maybe"), "`greedy` must be True or False; got 'maybe'"),
        (lambda m: m.generate("a", temprature=1), "`temprature` is an unknown name; did you mean `temperature`?"),
        (lambda m: m.evaluate("abc", unknwon="skip"), "`unknwon` is an unknown name; did you mean `unknown`?"),
        (lambda m: m.evaluate(path="a.txt"), "`path` is an unknown name; did you mean `paths`?"),
        (lambda m: m.evaluate(protocol="windows"), "`protocol` is an unknown name; did you mean `windows`?"),
        (lambda m: m.evaluate(paths="a", lowercase=True), "`lowercase` is an unknown name; leave it out"),
        (lambda m: charloom.train("a", from_="b"), "`from_` is an unknown name; did you mean `base_model`?"),
        (lambda m: charloom.train("a", base="b"), "`base` is an unknown name; did you mean `base_model`?"),
        (lambda m: charloom.train("a", resume="b"), "`resume` is an unknown name; did you mean `charloom.resume`?"),
        (lambda m: charloom.train("a", callback=print), "`callback` is an unknown name; did you mean `report`?"),
        (lambda m: charloom.plan("a", bsae_model="b"), "`bsae_model` is an unknown name; did you mean `base_model`?"),
        (lambda m: m.generate_many("four", "a"), "`count` must be a whole number; got 'four'"),
        (lambda m: m.generate_many(1.5, "a"), "`count` must be a whole number; got 1.5"),
        (lambda m: m.generate_many(None), "`count` must be a whole number; got None"),
        (
            lambda m: m.generate([]),
            "`prompt` must be a string or a list with at least one string; got an empty list",
        ),
        (lambda m: m.scheduler(slots="all"), "`slots` must be a whole number; got 'all'"),
        (lambda m: list(m.run(["a"])), "`requests` must come from `Model.request`; got 'a'"),
        (lambda m: m.score("abc", unknown="guess"), "`unknown` must be one of 'error', 'skip', 'replace'; got 'guess'"),
        (lambda m: charloom.load(None), "`path` must be a string or a pathlib.Path; got None"),
        (lambda m: charloom.load(b"run"), "`path` must be a string or a pathlib.Path; got b'run'"),
        (lambda m: charloom.train(5), "`paths` must be a string or a pathlib.Path; got 5"),
        (lambda m: charloom.train(["a.txt", 5]), "`paths` must be a string or a pathlib.Path; got 5"),
        (lambda m: charloom.train("a.txt", out=5), "`out` must be a string or a pathlib.Path; got 5"),
        (lambda m: charloom.train("a.txt", split=0.9), "`split` must be a string; got 0.9"),
        (lambda m: charloom.train("a.txt", wrap="x"), "`wrap` must be True or False; got 'x'"),
        (lambda m: charloom.train("a.txt", base_model=5), "`base_model` must be a string or a pathlib.Path; got 5"),
        (lambda m: charloom.train("a.txt", report=5), "`report` must be a function that takes an event; got 5"),
        (lambda m: charloom.resume(None), "`run` must be a string or a pathlib.Path; got None"),
        (lambda m: charloom.plan(5), "`paths` must be a string or a pathlib.Path; got 5"),
        (lambda m: charloom.import_model(5), "`file` must be a string or a pathlib.Path; got 5"),
        (lambda m: m.save(5), "`path` must be a string or a pathlib.Path; got 5"),
        (lambda m: m.generate(123), "the prompt must be a string; got 123"),
        (lambda m: m.score(b"abc"), "the text must be a string; got b'abc'"),
        (lambda m: charloom.train("a.txt", stop=True), "`stop` must be a function without arguments; got True"),
    ],
)
def test_a_value_of_another_kind(model, call, message):
    """Catches a TypeError from the library, a wrong value or name that is accepted, and a message without a name."""
    with pytest.raises(SettingsError) as caught:
        call(model)
    assert str(caught.value) == message


def test_a_file_is_not_a_path(tmp_path: Path):
    """Catches a file object that is accepted as a path, and a message that prints all of its content."""
    with pytest.raises(SettingsError, match=r"`paths` must be a string or a pathlib\.Path; got <_io\.StringIO"):
        charloom.train(io.StringIO("to be or not to be"))


@pytest.mark.parametrize("text", ["to be or not to be " * 1000, "To be?\nNot to be?\n" * 9])
def test_a_text_in_place_of_its_path(text):
    """Catches an error that prints a whole book, and one that does not say where a text belongs."""
    with pytest.raises(SettingsError, match=r"pass texts in memory as `texts=\[\.\.\.\]`") as caught:
        charloom.train(text)
    assert len(str(caught.value)) < 150


def test_a_path_in_place_of_a_text(model, tmp_path, monkeypatch):
    """Catches the name of a file that is scored in silence, and a warning about any other text."""
    monkeypatch.chdir(tmp_path)
    Path("abc").write_text("cab")
    with pytest.warns(UserWarning, match="'abc' is scored as a text, but a file has this name; `paths`") as warned:
        model.evaluate("abc", baselines=False)
    assert warned[0].filename == __file__
    model.evaluate("abcabc", baselines=False)
