"""The notebook runs from its first cell to its last and draws its pictures; its text agrees with its figures.

It is executed as `make notebook` does it, by a kernel of its own, with less training: CHARLOOM_NOTEBOOK_STEPS is the
one difference. Facts that need the whole training are read from the stored outputs.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
STORED = DOCS / "notebooks" / "first-steps.ipynb"
STEPS = 24  # enough to beat a guesser without memory; the three small networks take half as many
FIGURES = ["curve", "scale", "compare", "gates", "surprise"]

Cell = dict[str, Any]


def code_cells(path: Path) -> dict[str, Cell]:
    """A notebook's code cells by their names."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {cell["id"]: cell for cell in cells if cell["cell_type"] == "code"}


def printed(cell: Cell) -> str:
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


def numbers(pattern: str, cell: Cell) -> list[float]:
    """The groups of the only match; fails if the notebook no longer prints it."""
    (found,) = re.findall(pattern, printed(cell))
    return [float(number) for number in found]


def gradients(cells: dict[str, Cell]) -> dict[tuple[str, str], dict[int, float]]:
    """The table of gradient norms: {("trained", "rnn"): {1: …, 64: …}, …}."""
    lines = printed(cells["compare-table"]).splitlines()
    (head,) = [line for line in lines if line.startswith("distance")]
    distances = [int(number) for number in head.split()[1:]]
    rows = filter(None, (re.fullmatch(r"(\w[\w ]*?) +(rnn|lstm|gru) +(.*)", line) for line in lines))
    return {(row[1], row[2]): dict(zip(distances, map(float, row[3].split()), strict=True)) for row in rows}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, home: Path) -> dict[str, Cell]:
    """The current notebook, executed in a new kernel of this Python, isolated from all else."""
    target = tmp_path_factory.mktemp("notebook") / "executed.ipynb"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("IPYTHON", "JUPYTER", "MPL"))}
    done = subprocess.run(
        [sys.executable, DOCS / "execute_notebook.py", target],
        env=kept | {"CHARLOOM_NOTEBOOK_STEPS": str(STEPS), "HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return code_cells(target)


@pytest.fixture(scope="module")
def stored() -> dict[str, Cell]:
    return code_cells(STORED)


def test_every_cell_runs(fresh: dict[str, Cell]) -> None:
    assert [cell["execution_count"] for cell in fresh.values()] == list(range(1, len(fresh) + 1))
    assert f"step  {STEPS}:" in printed(fresh["train"]), "the training was not shortened, or not to its end"


def test_every_figure_is_drawn(fresh: dict[str, Cell], stored: dict[str, Cell]) -> None:
    for cells in (fresh, stored):
        drawn = {
            name: base64.b64decode("".join(output["data"]["image/png"]))
            for name, cell in cells.items()
            for output in cell["outputs"]
            if "image/png" in output.get("data", {})
        }
        tagged = [name for name, cell in cells.items() if "figure" in cell["metadata"].get("tags", ())]
        assert list(drawn) == tagged == FIGURES
        assert all(len(png) > 10_000 for png in drawn.values()), "a picture with next to nothing in it"


def test_the_stored_outputs_are_those_of_these_cells(fresh: dict[str, Cell], stored: dict[str, Cell]) -> None:
    """Catches a cell that was added, changed in kind or never run, outputs with noise or times, and a file that is too
    large.
    """
    assert list(stored) == list(fresh)
    for name, cell in stored.items():
        kinds, expected = ([output["output_type"] for output in c["outputs"]] for c in (cell, fresh[name]))
        assert kinds == expected, name
        assert set(cell["metadata"]) <= {"tags"}, name
    assert [cell["execution_count"] for cell in stored.values()] == list(range(1, len(stored) + 1))
    text = STORED.read_text(encoding="utf-8")
    without_pictures = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not re.search(r"stderr|Traceback|/tmp/|/home/|/root/", without_pictures)
    assert len(text) < 600_000
    assert "step 600:" in printed(stored["train"])


def test_the_gradient_of_the_simple_rnn_vanishes_first(fresh: dict[str, Cell], stored: dict[str, Cell]) -> None:
    for cells in (fresh, stored):
        norms = gradients(cells)
        assert len(norms) == 9
        for stage in ("drawn evenly", "as charloom begins", "trained"):
            rnn, lstm, gru = (norms[stage, cell] for cell in ("rnn", "lstm", "gru"))
            assert rnn[32] < min(lstm[32], gru[32]) / 2, stage
            assert rnn[64] < 1e-9, stage
        assert norms["drawn evenly", "rnn"][32] < norms["as charloom begins", "rnn"][32]
        assert norms["drawn evenly", "lstm"][32] < norms["as charloom begins", "lstm"][32]


def test_what_is_done_by_hand_agrees_with_the_engine(fresh: dict[str, Cell]) -> None:
    (difference,) = re.findall(r"difference from our own h: (\S+)", printed(fresh["network"]))
    assert float(difference) < 1e-5
    propagated, tried = re.findall(r"[+-]\d\.\d{6}", printed(fresh["check"]))
    assert float(propagated) == pytest.approx(float(tried), rel=1e-3, abs=2e-6)
    assert float(tried) != 0
    mean, score = numbers(r"mean surprise (\S+) bits; model.score says (\S+)", fresh["surprise"])
    assert mean == pytest.approx(score, abs=0.011)


def test_the_model_learns(fresh: dict[str, Cell], stored: dict[str, Cell]) -> None:
    pattern = r"without memory (\S+) nats per character; the trained model (\S+) \("
    no_memory, trained = numbers(pattern, fresh["curve"])
    assert trained < no_memory - 0.3
    _, trained = numbers(pattern, stored["curve"])
    assert trained < 1.8


def test_the_text_says_what_the_stored_figures_say(stored: dict[str, Cell]) -> None:
    """Catches text cells that contradict the stored outputs which they explain."""
    trained = {cell: norms for (stage, cell), norms in gradients(stored).items() if stage == "trained"}
    assert trained["rnn"][64] < 1e-15
    assert trained["lstm"][4] < trained["rnn"][4], "up to about ten characters back the RNN is not behind"
    (share,) = re.findall(r"6 of 64 units hold (\S+)% of", printed(stored["keepers"]))
    gates = re.findall(r"z, in the mean: (.*)", printed(stored["keepers"]))[0].split()
    assert float(share) > 90
    assert min(map(float, gates)) > 0.7, "a few units have learnt to keep their update gates near 1"
    at_spaces, elsewhere = numbers(r"keeps least: (\S+) at spaces, (\S+) elsewhere", stored["sentence"])
    assert at_spaces < elsewhere / 2, "the lower third lives from space to space"
    early, later = numbers(r"±3: (\d+)% after 3 characters, (\d+)% after 10", stored["sentence"])
    assert early < 10 < 40 < later < 60, "within ten characters about half of all cells are beyond ±3"
    assert re.search(r"the class of the obje':  'c' [6-9]\d%", printed(stored["by-hand"]))
