"""The inputs and targets of each step: every target once, in order, and no loss on padding."""

from __future__ import annotations

import itertools
import math
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.config import LARGEST, TrainingSettings
from charloom.data.batches import (
    MEASURED_LENGTH,
    NOTHING,
    Batch,
    Batches,
    RecordBatches,
    StreamBatches,
    WindowBatches,
    training_batches,
    validation_batches,
)
from charloom.data.ids import Ids
from charloom.errors import TextError

RECORD_SEPARATOR = 0
FEW = hypothesis.settings(max_examples=40)
lengths = st.integers(2, 50)
sizes = st.integers(1, 12)
# The lengths of records. Their ids are above the separator's and all different.
record_lengths = st.lists(st.integers(1, 15), min_size=1, max_size=12)


def counting(length: int) -> Ids:
    """Ids that equal their positions, so a batch shows where it comes from."""
    return Ids.of(np.arange(length, dtype=np.uint16))


def records_of(lengths: list[int]) -> tuple[Ids, list[list[int]]]:
    """Ids with separators, and the records without them."""
    numbers = iter(range(1, 1000))
    records = [[next(numbers) for _ in range(length)] for length in lengths]
    flat = [RECORD_SEPARATOR] + [token for record in records for token in (*record, RECORD_SEPARATOR)]
    return Ids.of(np.array(flat, np.uint16)), records


def epoch_of(layout: Batches, epoch: int = 0) -> list[Batch]:
    return [layout.batch(epoch, index) for index in range(len(layout))]


def targets_of(batches: list[Batch]) -> list[int]:
    return [int(target) for _, targets in batches for target in targets[targets != NOTHING]]


def rows_of(batches: list[Batch]) -> list[tuple[list[int], list[int]]]:
    """(inputs, targets) of every batch row without padding; fails if padding is not at the end and all 0."""
    rows = []
    for inputs, targets in batches:
        assert inputs.dtype == targets.dtype == np.int64
        assert inputs.shape == targets.shape
        for row, wanted in zip(inputs.tolist(), targets.tolist(), strict=True):
            width = max((i + 1 for i, target in enumerate(wanted) if target != NOTHING), default=0)
            assert row[width:] == [0] * (len(row) - width)
            rows.append((row[:width], wanted[:width]))
    return rows


def naive_streams(length: int, streams: int, steps: int) -> list[list[tuple[list[int], list[int]]]]:
    """The simplest definition: cut the targets into B parts of nearly equal length, and each part into steps of T."""
    cuts = [i * (length - 1) // streams for i in range(streams + 1)]
    parts = [[*range(cuts[i], cuts[i + 1])] for i in range(streams)]
    return [
        [(part[at : at + steps], [i + 1 for i in part[at : at + steps]]) for part in parts]
        for at in range(0, max(map(len, parts)), steps)
    ]


@given(lengths, sizes, sizes)
def test_streams_equal_the_naive_ones(length: int, streams: int, steps: int):
    """Catches a character that is dropped, doubled or predicted from the wrong one, and padding inside a row."""
    layout = StreamBatches(counting(length), streams, steps)
    expected = naive_streams(length, min(streams, length - 1), steps)
    batches = epoch_of(layout)
    assert [rows_of([batch]) for batch in batches] == expected
    assert sorted(targets_of(batches)) == [*range(1, length)]
    assert all(
        inputs.shape[1] == max(len(row) for row, _ in rows_of([(inputs, targets)])) for inputs, targets in batches
    )


@given(lengths, sizes, sizes)
def test_a_row_goes_on_where_it_stopped(length: int, streams: int, steps: int):
    """Catches a state that is carried to another position of the text, or across padding."""
    batches = epoch_of(StreamBatches(counting(length), streams, steps))
    for before, after in itertools.pairwise(batches):
        assert before[0].shape[0] == after[0].shape[0] == min(streams, length - 1)
        for row, (inputs, _) in enumerate(rows_of([after])):
            if inputs:
                assert before[1][row, -1] == inputs[0]


@given(lengths, sizes, sizes)
def test_streams_are_as_equal_as_can_be(length: int, streams: int, steps: int):
    """Catches a last stream with only a few tokens, during whose padding only the other streams train."""
    batches = epoch_of(StreamBatches(counting(length), streams, steps))
    totals = sum((targets != NOTHING).sum(axis=1) for _, targets in batches)
    assert totals.max() - totals.min() <= 1
    assert len(batches) == math.ceil(math.ceil((length - 1) / min(streams, length - 1)) / steps)


@given(lengths, sizes, sizes)
def test_streams_predict_only_the_last(length: int, streams: int, steps: int):
    """Catches a mask at the end of the padding instead of the text, and inputs that lose what is not predicted."""
    every = epoch_of(StreamBatches(counting(length), streams, steps))
    last = epoch_of(StreamBatches(counting(length), streams, steps, last=True))
    for (inputs, targets), (same, masked) in zip(every, last, strict=True):
        np.testing.assert_array_equal(inputs, same)
        for row, wanted in zip(targets.tolist(), masked.tolist(), strict=True):
            known = [t for t in row if t != NOTHING]
            assert wanted == [t if known and t == known[-1] else NOTHING for t in row]


@given(lengths, sizes, sizes, st.integers(0, 3))
@FEW
def test_windows(length: int, batch_size: int, steps: int, seed: int):
    """Catches a window that is lost or doubled, a wrong target, and the same order in every epoch."""
    steps = min(steps, length - 1)
    layout = WindowBatches(counting(length), batch_size, steps, seed)
    for epoch in (0, 1):
        inputs = np.concatenate([inputs for inputs, _ in epoch_of(layout, epoch)])
        targets = np.concatenate([targets for _, targets in epoch_of(layout, epoch)])
        assert sorted(inputs.tolist()) == [[*range(at, at + steps)] for at in range(length - steps)]
        assert (targets[:, :-1] == NOTHING).all()
        np.testing.assert_array_equal(targets[:, -1], inputs[:, -1] + 1)
    assert all(len(inputs) == layout.batch_size for inputs, _ in epoch_of(layout)[:-1])


@given(record_lengths, sizes, sizes, st.integers(0, 3))
@FEW
def test_records(lengths: list[int], batch_size: int, steps: int, seed: int):
    """Catches a record without its start or its end, one row with two records, and a chunk that is lost or too long."""
    ids, records = records_of(lengths)
    layout = RecordBatches(ids, RECORD_SEPARATOR, batch_size, steps, seed)
    whole = [(pair[:-1], pair[1:]) for pair in ([RECORD_SEPARATOR, *record, RECORD_SEPARATOR] for record in records)]
    expected = [(x[at : at + steps], y[at : at + steps]) for x, y in whole for at in range(0, len(x), steps)]
    for epoch in (0, 1):
        batches = epoch_of(layout, epoch)
        assert sorted(rows_of(batches)) == sorted(expected)
        assert all(inputs.shape[1] == max(len(x) for x, _ in rows_of([(inputs, y)])) for inputs, y in batches)
        assert all(len(inputs) == layout.batch_size for inputs, _ in batches[:-1])


@given(record_lengths, sizes, sizes)
@FEW
def test_records_predict_only_the_last(lengths: list[int], batch_size: int, steps: int):
    """Catches a mask that takes the end of the padding for the end of the record."""
    ids, _ = records_of(lengths)
    every = epoch_of(RecordBatches(ids, RECORD_SEPARATOR, batch_size, steps, 0))
    last = epoch_of(RecordBatches(ids, RECORD_SEPARATOR, batch_size, steps, 0, last=True))
    assert [x[-1:] + y[-1:] for x, y in rows_of(every)] == [x[-1:] + y[-1:] for x, y in rows_of(last)]
    assert all(t == NOTHING for _, y in rows_of(last) for t in y[:-1])


@given(lengths, sizes, sizes)
def test_records_of_a_text_without_any(length: int, batch_size: int, steps: int):
    """Catches a character lost where a text is cut into chunks, and id 0 taken for a separator."""
    rows = sorted(rows_of(epoch_of(RecordBatches(counting(length), None, batch_size, steps, 0))))
    inputs = [[*range(at, min(at + steps, length - 1))] for at in range(0, length - 1, steps)]
    assert rows == [(row, [i + 1 for i in row]) for row in inputs]


@pytest.mark.parametrize("kind", ["windows", "records"])
def test_the_order_is_the_seeds_and_the_epochs(kind: str):
    """Catches an order that is the same in each epoch, or that a resumed run does not repeat."""

    def order(seed: int | None, epoch: int) -> list[int]:
        ids, _ = records_of([1] * 200)
        layout = (
            WindowBatches(ids, 8, 3, seed) if kind == "windows" else RecordBatches(ids, RECORD_SEPARATOR, 8, 3, seed)
        )
        return np.concatenate([inputs.ravel() for inputs, _ in epoch_of(layout, epoch)]).tolist()

    orders = [order(seed, epoch) for seed in (None, 0, 1, 2**63 - 1) for epoch in (0, 1)]
    assert orders[0] == orders[1] == order(None, 5)
    assert len({*map(tuple, orders)}) == 7
    assert orders == [order(seed, epoch) for seed in (None, 0, 1, 2**63 - 1) for epoch in (0, 1)]


@pytest.mark.parametrize("make", [WindowBatches, StreamBatches, RecordBatches])
def test_any_batch_is_at_hand(make: type):
    """Catches a layout that depends on earlier calls: a resumed run would train on other text."""
    ids, _ = records_of([3, 9, 1, 20, 5, 2, 8, 8])

    def layout() -> Batches:
        if make is StreamBatches:
            return StreamBatches(ids, 3, 4)
        return WindowBatches(ids, 3, 4, 1) if make is WindowBatches else RecordBatches(ids, RECORD_SEPARATOR, 3, 4, 1)

    sequential = {(epoch, i): batch for epoch in (0, 1, 2) for i, batch in enumerate(epoch_of(layout(), epoch))}
    jumping = layout()
    for epoch, index in [*reversed(sequential), *sequential]:
        np.testing.assert_equal(jumping.batch(epoch, index), sequential[epoch, index])


def test_who_carries_the_state():
    """Catches a window or a record that begins from the state of another text."""
    ids, _ = records_of([3, 4])
    assert [StreamBatches(ids, 2, 2).carried(epoch, index) for epoch in (0, 3) for index in (0, 1)] == [0, 2, 0, 2]
    for layout in (
        StreamBatches(ids, 2, 2, False),
        WindowBatches(ids, 2, 2, 0),
        RecordBatches(ids, RECORD_SEPARATOR, 2, 2, 0),
    ):
        assert [layout.carried(0, index) for index in (0, 1)] == [0, 0]


@FEW
@given(lengths, sizes, sizes, st.sampled_from(["streams", "records", "windows"]))
def test_a_ring_predicts_every_character_from_the_one_before(length: int, batch_size: int, steps: int, batches: str):
    """Catches a ring that is not closed, or closed twice. Each character is a target once; the first follows the
    last.
    """
    settings = TrainingSettings(
        batches=batches, batch_size=batch_size, seq_length=steps, wrap=True, steps=1, loss="every"
    )
    made = epoch_of(training_batches(counting(length), None, settings, False, lambda _: None))
    assert sorted(targets_of(made)) == list(range(length))
    for inputs, targets in made:
        asked = targets != NOTHING
        np.testing.assert_array_equal(targets[asked], (inputs[asked] + 1) % length)


def plan(ids: Ids, separator: int | None = None, independent: bool = False, **settings: Any) -> tuple[Any, list[str]]:
    notices: list[str] = []
    return training_batches(ids, separator, TrainingSettings(**settings), independent, notices.append), notices


@pytest.mark.parametrize(
    ("length", "settings", "used"),
    [
        (2, {}, (1, 1)),
        (30, {}, (1, 29)),
        (65, {}, (1, 64)),
        (129, {}, (2, 64)),
        (2048, {}, (31, 64)),
        (30, {"batches": "windows"}, (1, 29)),
        (70, {"batches": "windows"}, (6, 64)),
        (30, {"batches": "records"}, (1, 29)),
        (650, {"batches": "records"}, (11, 64)),
        (10, {"batch_size": LARGEST, "seq_length": LARGEST}, (1, 9)),
    ],
)
def test_a_text_too_short_shrinks_the_batch(length: int, settings: dict[str, Any], used: tuple[int, int]):
    """Catches an error or an empty batch if the batch is larger than the corpus, and more than one notice."""
    layout, notices = plan(counting(length), **settings)
    asked = TrainingSettings(**settings)
    assert notices == [
        f"the training text ({length:,} tokens) is too short for a batch of {asked.batch_size} x {asked.seq_length} "
        f"tokens; using {used[0]} x {used[1]}"
    ]
    assert layout.batch(0, 0)[0].shape == used
    first = used[1] if asked.batches == "windows" else 1
    assert sorted(targets_of(epoch_of(layout))) == [*range(first, length)]


@pytest.mark.parametrize(
    ("length", "settings"),
    [
        (2049, {}),
        (34, {"seq_length": 1}),
        (67, {"seq_length": 2}),
        (96, {"batches": "windows"}),
        (2049, {"batches": "records"}),
    ],
)
def test_a_text_just_long_enough(length: int, settings: dict[str, Any]):
    """Catches a smaller batch, or a notice, for 34 characters, which are just enough for 17 streams of 2."""
    layout, notices = plan(counting(length), **settings)
    assert notices == []
    assert len(layout.batch(0, 0)[0]) == 32


def test_short_records_make_no_notice():
    """Catches a notice about records that are shorter than T, which is normal."""
    ids, _ = records_of([5] * 40)
    assert plan(ids, RECORD_SEPARATOR, batches="records")[1] == []
    few, _ = records_of([90] * 3)
    assert plan(few, RECORD_SEPARATOR, batches="records")[1] == [
        "the training text (274 tokens) is too short for a batch of 32 x 64 tokens; using 6 x 64"
    ]


@pytest.mark.parametrize("length", [0, 1])
@pytest.mark.parametrize("batches", ["streams", "windows", "records"])
def test_nothing_to_predict(length: int, batches: str):
    """Catches a division by zero."""
    with pytest.raises(TextError, match=rf"^training needs at least 2 characters; the training split has {length}$"):
        plan(counting(length), batches=batches)
    settings = TrainingSettings(batches=batches)
    assert validation_batches(counting(length), None, settings, False, 4) is None


def test_settings_reach_the_layout():
    """Catches a flag without an effect."""
    ids, _ = records_of([9] * 50)
    small = {"batch_size": 4, "seq_length": 5}
    assert plan(ids, RECORD_SEPARATOR, **small)[0].carried(0, 1)
    assert not plan(ids, RECORD_SEPARATOR, state="reset", **small)[0].carried(0, 1)
    for batches in ("streams", "windows", "records"):
        layout, _ = plan(ids, RECORD_SEPARATOR, batches=batches, loss="last", **small)
        for inputs, targets in epoch_of(layout):
            assert inputs.shape[0] <= 4
            assert inputs.shape[1] <= 5
            assert ((targets != NOTHING).sum(axis=1) <= 1).all()
    other = [
        plan(ids, RECORD_SEPARATOR, batches="windows", seed=seed, **small)[0].batch(0, 0)[0].tolist() for seed in (0, 1)
    ]
    assert other[0] != other[1]


@given(st.integers(2, 900), st.sampled_from(["carry", "reset"]), st.integers(1, 70), st.integers(1, 64))
def test_validation_covers_the_split_once(length: int, state: str, steps: int, streams: int):
    """Catches a validation loss over a part of the split, or over some of it twice."""
    settings = TrainingSettings(state=state, seq_length=steps)
    layout = validation_batches(counting(length), None, settings, False, streams)
    assert layout is not None
    assert sorted(targets_of(epoch_of(layout))) == [*range(1, length)]
    assert layout.carried(0, 1) == (len(layout.batch(0, 0)[0]) if state == "carry" else 0)
    longest = MEASURED_LENGTH if state == "carry" else steps
    assert max(inputs.shape[1] for inputs, _ in epoch_of(layout)) <= longest
    assert max(inputs.shape[0] for inputs, _ in epoch_of(layout)) <= streams


def test_validation_of_the_last_predicts_as_far_as_training_did():
    """Catches long steps with only the last target: one target in 256 characters instead of one in T."""
    layout = validation_batches(counting(101), None, TrainingSettings(loss="last", seq_length=10), False, 1)
    assert layout is not None
    assert targets_of(epoch_of(layout)) == [*range(10, 101, 10)]


@given(record_lengths, st.integers(1, 20))
@FEW
def test_validation_of_records_and_windows(lengths: list[int], steps: int):
    """Catches a target that is left out or doubled, in validation with the training layout."""
    ids, _ = records_of(lengths)
    settings = TrainingSettings(batches="records", seq_length=steps, batch_size=3)
    layout = validation_batches(ids, RECORD_SEPARATOR, settings, False, 4)
    assert layout is not None
    assert sorted(targets_of(epoch_of(layout))) == sorted(ids.view()[1:].tolist())
    layout = validation_batches(ids, RECORD_SEPARATOR, settings.model_copy(update={"batches": "windows"}), False, 4)
    assert layout is not None
    first = steps if len(ids) > steps else 1  # if no window fits, the split is one stream
    assert sorted(targets_of(epoch_of(layout))) == sorted(ids.view()[first:].tolist())


@pytest.mark.parametrize("batches", ["streams", "windows", "records"])
@pytest.mark.parametrize("loss", ["every", "last"])
def test_validation_of_less_than_a_step(batches: str, loss: str):
    """Catches an overflow or an error if the split is shorter than a training step."""
    for seq_length in (64, LARGEST):
        settings = TrainingSettings(batches=batches, loss=loss, seq_length=seq_length)
        layout = validation_batches(counting(20), None, settings, False, 8)
        assert layout is not None
        assert targets_of(epoch_of(layout)) == ([*range(1, 20)] if loss == "every" else [19])
