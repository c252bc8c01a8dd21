"""`charloom lesson`: every lesson in its quick form, from the first line to the verdict."""

from __future__ import annotations

import pytest

from charloom.checkpoint import load_model
from charloom.lessons import TEXTS


def lesson(charloom, name, *arguments, verdicts=("PASS",), **options):
    ended = charloom("lesson", name, "--out", "lesson", *arguments, **options)
    said = ended.out.splitlines()[-1].removeprefix("verdict: ").partition(" · ")[0]
    assert said in verdicts, ended.out + ended.err
    assert ended.status == (said != "PASS")
    return ended.out


def test_the_help_names_every_lesson(charloom):
    """Catches a lesson that the list in the help lacks."""
    *most, last = TEXTS
    assert f"NAME is {', '.join(most)} or {last}." in " ".join(charloom("lesson", "--help").out.split())


def test_alphabet(charloom, tmp_path):
    """Catches a missing proof or comparison: a network without carried state cannot know the next letter."""
    out = lesson(charloom, "alphabet", "--quick")
    assert "25 of 25" in out
    assert "From A, each prediction fed back:  ABCDEFGHIJKLMNOPQRSTUVWXYZ\n" in out
    assert "after it has read A…J:   K → L M N O P" in out
    cold = next(line for line in out.splitlines() if "from the zero state:" in line)
    assert not cold.endswith("L M N O P")
    assert "state reset after every letter" in out
    assert "windows of 3 letters" in out
    assert {path.name for path in (tmp_path / "lesson").iterdir()} == {"text.txt", "carried", "reset", "window"}


def test_numpy_without_torch(cold, tmp_path):
    """Catches an engine that needs PyTorch, and values for CARS that differ from those at the end of training."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    out = lesson(cold, "numpy", "--quick", env={"PYTHONPATH": str(tmp_path)})
    steps = out.split("step 1, 'C'")[1].split("next: ")[1:]
    for row, follows in zip(steps, "ARSC", strict=True):
        share = float(row.split(f"{follows} ")[1].split("%")[0])
        assert share > 90, row
    assert all(f"   {name} " in out for name in ("i  input gate", "f  forget gate", "g  candidate", "c  cell"))


def test_alice(charloom, tmp_path):
    """Catches losses without over-fitting, samples of another length, and weights that are not kept."""
    out = lesson(charloom, "alice", "--quick")
    rows = [line for line in out.splitlines() if line[:5].strip().isdigit()]
    assert len(rows) == 40
    assert "Over-fitting began after epoch" in out
    kept = sorted(path.name[:10] for path in (tmp_path / "lesson" / "chunks" / "kept").iterdir())
    assert kept == ["epoch-0010", "epoch-0020", "epoch-0030", "epoch-0040"]


def test_windows(charloom, tmp_path):
    """Catches a window that is not from the text, and an empty comparison. The verdict compares times: not tested
    here.
    """
    out = lesson(charloom, "windows", "--quick", verdicts=("PASS", "FAIL"))
    for name in ("windows", "sentences, padded", "streams"):
        assert any(line.startswith(f"   {name}") and "predictions/s" in line for line in out.splitlines())
    assert "greedy:" in out
    assert any((tmp_path / "lesson" / "windows" / "kept").iterdir())
    assert load_model(tmp_path / "lesson" / "sentences").records == "sentence"


def test_anna(charloom):
    """Catches a missing run, and generation without top-k."""
    out = lesson(charloom, "anna", "--quick")
    assert "from the 5 most probable characters" in out
    assert "from the 10 most probable characters" in out
    assert any(line.startswith("novel ") for line in out.splitlines())


def test_numpy_with_another_cell(charloom):
    """Catches CARS in another cell than an LSTM of four units; the user's settings do not change it."""
    flags = ["--cell", "gru", "--hidden", "5", "--steps", "30", "--minutes", "9"]
    ended = charloom("lesson", "numpy", "--quick", "--out", "lesson", *flags)
    assert "verdict: FAIL" in ended.out
    assert "forget gate" in ended.out


def test_flags_change_the_preset(charloom, tmp_path):
    """Catches a flag that has no effect beside the preset, and a FAIL with exit status 0."""
    ended = charloom("lesson", "alphabet", "--out", "lesson", "--epochs", "2", "--cell", "gru", "--hidden", "3")
    assert ended.status == 1
    assert ended.out.splitlines()[-1].startswith("verdict: FAIL · ")
    assert "gru, 1 x 3 units" in ended.err
    assert load_model(tmp_path / "lesson" / "carried").architecture.hidden == 3


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["latin"], 2, "NAME must be 'alphabet', 'alice', 'windows', 'numpy' or 'anna'; got 'latin'"),
        ([], 2, "Missing argument 'NAME'. Choose from: alphabet, alice, windows, numpy, anna;"),
        (["alphabet", "--hidden", "0"], 2, "--hidden must be at least 1; got '0'"),
        (["anna", "missing.txt"], 1, "missing.txt"),
        (["alphabet", "mine.txt"], 2, "PATH must be left out, because this lesson has its own text; got mine.txt"),
        (
            ["windows", "--quick", "--split", "1/0"],
            2,
            "--split must leave a validation split for this lesson; got '1/0'",
        ),
    ],
)
def test_mistakes(charloom, arguments, status, said):
    """Catches a traceback, and a lesson that begins before its arguments are checked."""
    ended = charloom("lesson", *arguments)
    assert ended.status == status
    assert said in ended.complaint


@pytest.mark.parametrize("name", ["windows", "alice", "numpy", "anna"])
def test_a_text_too_short(charloom, tmp_path, name):
    """Catches a traceback for a text without enough characters for a validation split or for a window."""
    (tmp_path / "short.txt").write_text("To be.\n")
    ended = charloom("lesson", name, "short.txt", "--quick", "--epochs", "1", "--hidden", "4")
    assert ended.status == 1
    assert "this lesson needs a text long enough for a validation part" in ended.err.splitlines()[-1]


def test_a_folder_that_holds_files(charloom, tmp_path):
    """Catches a lesson that overwrites a user's files."""
    (tmp_path / "mine.txt").write_text("x")
    ended = charloom("lesson", "alphabet", "--out", ".")
    assert ended.status == 2
    assert "--out must be a new or empty folder" in ended.complaint
