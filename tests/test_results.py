"""docs/results.md shows what the trials gave, and every trial in it can be run again."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torch")  # `prototypes`, whose ideas the page names, trains with it
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks/plan"))
    yield importlib.import_module("page")
    for name in ("page", "run", "prototypes"):
        sys.modules.pop(name)


def test_the_page_is_what_the_trials_gave(page):
    """A table edited by hand, or results that nobody sees."""
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    assert text == page.filled(text, page.results()), "run `make results`, or benchmarks/plan/page.py alone"


def test_every_result_has_a_command(page):
    """A row that nobody can make again; a trial that ran twice."""
    run = importlib.import_module("run")
    trials, found = list(run.trials()), [run.key(result) for result in run.results()]
    throughputs = [run.key(json.loads(line)) for line in run.THROUGHPUTS.read_text(encoding="utf-8").splitlines()]
    assert set(found) <= set(trials)
    assert set(throughputs) <= set(trials)
    assert len(set(throughputs)) == len(throughputs)
    assert len(set(found)) == len(found)
    assert len(set(trials)) == len(trials)
