"""The curve of a run, read from its log."""

from __future__ import annotations

import json

import pytest

from charloom.training.curve import Curve, read_curve


def line(step, nats, training, event="validation"):
    return json.dumps({"event": event, "step": step, "validation_nats": nats, "train_nats": training}).encode()


def test_validations_are_read_in_their_order(tmp_path):
    """Catches other events taken for validations, training losses as validation losses, and a text that ends a line."""
    sample = json.dumps({"event": "sample", "step": 10, "text": "a\u2028b"}, ensure_ascii=False).encode()
    without, finished = line(15, None, 2.5), line(20, 2.5, 2.5, "finished")
    (tmp_path / "log.jsonl").write_bytes(
        b"\n".join([line(10, 3.0, 2.9), sample, without, line(20, 2.0, 2.1), finished]) + b"\n"
    )
    curve, damaged = read_curve(tmp_path / "log.jsonl")
    assert curve == Curve([10, 20], [3.0, 2.0], [2.9, 2.1])
    assert damaged == 0


DAMAGED = [
    b"\0\0\0",
    b'{"eve',
    b"[1]",
    b'{"step": 1}',
    line(True, 1.0, 1.0),
    line(1, 1, 1.0),
    line(1, float("nan"), 1.0),
]


@pytest.mark.parametrize("bad", DAMAGED)
def test_a_damaged_line_is_counted_and_skipped(tmp_path, bad):
    """Catches an error, or a loss that is not a number, if a power cut damaged the log."""
    (tmp_path / "log.jsonl").write_bytes(b"\n".join([line(10, 3.0, 2.9), bad, line(20, 2.0, 2.1)]) + b"\n")
    assert read_curve(tmp_path / "log.jsonl") == (Curve([10, 20], [3.0, 2.0], [2.9, 2.1]), 1)


def test_where_the_curve_was_best_and_how_it_went_on():
    """Catches the last validation taken for the best, and a rise relative to another validation."""
    curve = Curve([10, 20, 30], [3.0, 2.0, 2.2], [3.0, 2.0, 1.9])
    assert curve.best == 1
    assert curve.risen == pytest.approx(0.1)
    assert not curve.training_rose
    assert curve.training_falls
    assert Curve([10, 20, 30], [3.0, 2.0, 2.2], [3.0, 2.0, 2.2]).training_rose
