"""`charloom demo`, for a second instead of a minute."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.processor


def test_it_trains_generates_measures_and_tells_what_next(charloom, tmp_path):
    """Catches a demo that ends without text, without a loss to compare, or with commands that do not work."""
    ended = charloom("demo", "--minutes", "0.01", "--out", "run")
    assert ended.status == 0, ended.err
    assert len(ended.out) > 100
    assert ended.out.startswith("The ")
    assert "bits/char (xz -9e " in ended.err
    commands = [line.strip() for line in ended.err.splitlines() if line.startswith("  charloom ")]
    assert len(commands) == 3
    assert commands[0] == 'charloom generate run --prompt "A function "'
    assert charloom("generate", "run", "--prompt", "A function ", "--length", "10").status == 0


def test_a_wrong_budget(charloom, tmp_path):
    """Catches flags of the demo that are not checked like those of train."""
    ended = charloom("demo", "--minutes", "soon")
    assert ended.status == 2
    assert "--minutes must be" in ended.complaint
    assert not (tmp_path / "runs").exists()
