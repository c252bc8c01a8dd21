"""Every trial in docs/results.md can be repeated; `make check` tests that the page shows the results."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_result_has_a_command(monkeypatch: pytest.MonkeyPatch):
    """Catches a row without a command, and a trial that ran twice."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks/plan"))
    run = importlib.import_module("run")
    trials, found = list(run.trials()), [run.key(result) for result in run.results()]
    throughputs = [run.key(json.loads(line)) for line in run.THROUGHPUTS.read_text(encoding="utf-8").splitlines()]
    assert set(found) <= set(trials)
    assert set(throughputs) <= set(trials)
    assert len(set(throughputs)) == len(throughputs)
    assert len(set(found)) == len(found)
    assert len(set(trials)) == len(trials)
