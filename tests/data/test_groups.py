"""Independent records as batches: each of them once an epoch, whole, from the zero state, with little padding."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.config import TrainingSettings
from charloom.data import groups
from charloom.data import ids as module
from charloom.data.batches import training_batches, validation_batches
from charloom.data.groups import LONGEST, NOTHING, GroupBatches
from charloom.data.ids import Ids

RECORD_SEPARATOR = 3  # ids above it are those of records; all are different
lengths = st.lists(st.integers(1, 90), min_size=1, max_size=40)
sizes = st.integers(1, 12)


def ids_of(record_lengths: list[int]) -> Ids:
    numbers = iter(range(RECORD_SEPARATOR + 1, 10**6))
    flat = [RECORD_SEPARATOR]
    for length in record_lengths:
        flat += [*(next(numbers) for _ in range(length)), RECORD_SEPARATOR]
    return Ids.of(np.array(flat, np.uint32))


def read(layout: Any, epoch: int = 0) -> list[tuple[list[int], list[int]]]:
    """(inputs, targets) of every batch row from its first step to its last, without padding."""
    rows: list[tuple[list[int], list[int]]] = []
    going: list[tuple[list[int], list[int]]] = []
    for index in range(len(layout)):
        inputs, targets = layout.batch(epoch, index)
        carried = layout.carried(epoch, index)
        assert carried in (0, len(inputs))
        if not carried:
            rows, going = rows + going, [([], []) for _ in inputs]
        for row, (ids, asked) in enumerate(zip(inputs, targets, strict=True)):
            there = asked != NOTHING
            assert not there[1:][~there[:-1]].any(), "padding stands at the end"
            going[row][0].extend(ids[there].tolist())
            going[row][1].extend(asked[there].tolist())
    return rows + going


def chunks(record_lengths: list[int], longest: int) -> list[tuple[list[int], list[int]]]:
    flat = ids_of(record_lengths).view().tolist()
    starts = [0, *np.cumsum([length + 1 for length in record_lengths]).tolist()]
    found = []
    for start, stop in pairwise(starts):
        for cut in range(start, stop, longest):
            end = min(cut + longest, stop)
            found.append((flat[cut:end], flat[cut + 1 : end + 1]))
    return found


@given(lengths, sizes, sizes, st.integers(0, 2**63 - 1), st.booleans(), st.integers(1, 60))
def test_every_record_is_read_once_and_whole(
    record_lengths: list[int], batch_size: int, steps: int, seed: int, carries_state: bool, block: int
):
    """Catches a record that is lost, doubled, or starts from the state of another, and an index with an error at
    blocks.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        layout = GroupBatches(ids_of(record_lengths), RECORD_SEPARATOR, batch_size, steps, seed, carries_state)
    expected = chunks(record_lengths, steps * (LONGEST if carries_state else 1))
    for epoch in (0, 1, 10**6):
        assert sorted(read(layout, epoch)) == sorted(expected)


@given(lengths, sizes, sizes)
def test_the_last_target_of_each_step_alone(record_lengths: list[int], batch_size: int, steps: int):
    """Catches --loss last that predicts more than the last token, or nothing."""
    every = GroupBatches(ids_of(record_lengths), RECORD_SEPARATOR, batch_size, steps, 5)
    last = GroupBatches(ids_of(record_lengths), RECORD_SEPARATOR, batch_size, steps, 5, last=True)
    for index in range(len(every)):
        for one, all_ in zip(last.batch(2, index)[1], every.batch(2, index)[1], strict=True):
            assert one[one != NOTHING].tolist() == all_[all_ != NOTHING][-1:].tolist()


@pytest.mark.parametrize("mapped", [False, True])
def test_a_batch_is_a_matter_of_its_place(mapped: bool, monkeypatch: pytest.MonkeyPatch):
    """Catches a cached group that is returned for another index: a run resumes in the middle of an epoch and of a
    group.
    """
    if mapped:
        monkeypatch.setattr(groups, "MAPPED_ABOVE", 8)
    ids = ids_of([3, 90, 9, 1, 20, 5, 2, 8, 8, 33, 70, 4] * 5)
    make = lambda: GroupBatches(ids, RECORD_SEPARATOR, 3, 4, 1)  # noqa: E731
    straight = make()
    places = [(epoch, index) for epoch in (0, 1, 2) for index in range(len(straight))]
    found = {place: (straight.batch(*place), straight.carried(*place)) for place in places}
    jumping = make()
    for place in [*reversed(places), *places[::7]]:
        np.testing.assert_equal((jumping.batch(*place), jumping.carried(*place)), found[place])
        fresh = make()
        assert fresh.carried(*place) == found[place][1]


def test_each_epoch_has_another_order_and_other_neighbours():
    """Catches batches with the same records in each epoch, and the order of the file."""
    ids = ids_of([5] * 400)
    layout = GroupBatches(ids, RECORD_SEPARATOR, 4, 6, 0)
    batches = [{frozenset(layout.batch(epoch, i)[0][:, 1].tolist()) for i in range(len(layout))} for epoch in (0, 1)]
    assert len(batches[0] & batches[1]) <= 1
    first = [int(layout.batch(0, i)[0][0, 1]) for i in range(20)]
    assert first != sorted(first)
    assert GroupBatches(ids, RECORD_SEPARATOR, 4, 6, 1).batch(0, 0)[0].tolist() != layout.batch(0, 0)[0].tolist()


def test_short_records_fill_a_batch():
    """Catches a batch of 32 names, which has 200 characters instead of 2,048, and rows with half padding."""
    random = np.random.default_rng(0)
    layout = GroupBatches(ids_of(random.integers(2, 16, 5000).tolist()), RECORD_SEPARATOR, 32, 64, 0)
    shapes = [layout.batch(0, index)[1] for index in range(len(layout))]
    assert 1700 < np.mean([targets.size for targets in shapes]) <= 2048
    assert max(targets.size for targets in shapes) <= 2048
    assert np.mean([(targets == NOTHING).mean() for targets in shapes]) < 0.5


@given(lengths, sizes, sizes, st.integers(0, 99))
def test_every_step_has_a_target(record_lengths: list[int], batch_size: int, steps: int, seed: int):
    """Catches a step with only padding: PyTorch's mean loss of no targets is NaN, and Adam still moves weights."""
    layout = GroupBatches(ids_of(record_lengths), RECORD_SEPARATOR, batch_size, steps, seed)
    for epoch in (0, 1):
        assert all((layout.batch(epoch, index)[1] != NOTHING).any() for index in range(len(layout)))


def test_a_step_mixes_widths():
    """Catches steps with only words of three letters, then of six: each teaches that all words end there."""
    random = np.random.default_rng(0)
    layout = GroupBatches(ids_of(random.integers(2, 16, 5000).tolist()), RECORD_SEPARATOR, 32, 64, 0)
    for index in range(len(layout)):
        widths = (layout.batch(0, index)[1] != NOTHING).sum(axis=1)
        assert len({*widths.tolist()}) == 14


def test_a_few_long_records_do_not_pad_all_others():
    """Catches rows that are as wide as the one longest record of a list."""
    random = np.random.default_rng(0)
    layout = GroupBatches(ids_of([*random.integers(2, 16, 5000).tolist(), 60, 700]), RECORD_SEPARATOR, 32, 64, 0)
    wide = [index for index in range(len(layout)) if layout.batch(0, index)[0].shape[1] > 16]
    assert len(wide) <= 2 + 700 // 64
    assert min(len(layout.batch(0, index)[0]) for index in range(len(layout))) >= 30, "a row alone teaches too little"
    assert sum(layout.batch(0, index)[0].size for index in range(len(layout)) if index not in wide) < 2.2 * 5000 * 9.5


def test_long_records_go_on_from_their_beginning():
    """Catches a long record that is cut into chunks of T from the zero state, and one so long that few rows are
    left.
    """
    layout = GroupBatches(ids_of([300] * 40), RECORD_SEPARATOR, 8, 10, 0)
    assert {len(layout.batch(0, index)[0]) for index in range(len(layout))} <= {7, 8}
    assert max(len(inputs) for inputs, _ in read(layout)) == 10 * LONGEST
    layout = GroupBatches(ids_of([300] * 40), RECORD_SEPARATOR, 8, 20, 0)
    assert {len(inputs) for inputs, _ in read(layout)} == {301}


@given(lengths, sizes, sizes, st.sampled_from(["carry", "reset"]))
def test_validation_covers_the_split_once(record_lengths: list[int], batch_size: int, steps: int, state: Any):
    """Catches a target left out or doubled where the loss is measured."""
    ids = ids_of(record_lengths)
    settings = TrainingSettings(batch_size=batch_size, seq_length=steps, state=state)
    layout = validation_batches(ids, RECORD_SEPARATOR, settings, True, 4)
    assert sorted(target for _, targets in read(layout) for target in targets) == sorted(ids.view()[1:].tolist())


def test_settings_choose_the_layout():
    """Catches streams of records that are said to be independent, or the reverse."""
    ids, notices = ids_of([9] * 50), list[str]()
    made = {
        (batches, independent): type(
            training_batches(ids, RECORD_SEPARATOR, TrainingSettings(batches=batches), independent, notices.append)
        ).__name__
        for batches in ("streams", "windows", "records")
        for independent in (True, False)
        if not (independent and batches == "windows")  # the settings refuse this
    }
    assert made == {
        ("streams", True): "GroupBatches",
        ("records", True): "GroupBatches",
        ("streams", False): "StreamBatches",
        ("records", False): "RecordBatches",
        ("windows", False): "WindowBatches",
    }
    assert len(notices) == 1, "of the streams, which are too short for 32 x 64"
