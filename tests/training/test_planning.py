"""The plan: the text and machine facts that it uses, and the settings that it does not change."""

from __future__ import annotations

import re

import pytest

from charloom.config import PLANNED, Settings
from charloom.data.corpus import open_corpus
from charloom.data.dataset import prepare
from charloom.data.texts import Texts
from charloom.training import planning
from charloom.training.layouts import training_layout
from charloom.training.planning import CorpusStatistics, ThroughputEstimate, corpus_statistics, plan

pytestmark = pytest.mark.processor


@pytest.fixture
def dataset(tmp_path):
    """The ids of a text."""

    def make(text, **values):
        settings = Settings.from_flat(values).text
        (tmp_path / "data").mkdir(exist_ok=True)
        return prepare(open_corpus(Texts.of([text]), settings), settings, tmp_path / "data", lambda _: None)

    return make


@pytest.fixture
def machine(monkeypatch):
    """A machine of a given speed at 256 units. The time grows with the square of larger sizes, and with the root of
    smaller ones.

    It says which sizes were timed. From `full` units on the memory is not enough.
    """
    timed = []

    def at(rate, full=2000):
        def seconds(settings, distinct, hidden, batch, seconds, processes):
            if hidden >= full:
                raise MemoryError
            timed.append(hidden)
            step = batch[0].size / rate * (hidden / 256) ** (2 if hidden > 256 else 0.5)
            return [9 * step, step]

        monkeypatch.setattr(planning, "_timed", seconds)
        return timed

    return at


def plan_of(dataset, given):
    settings = Settings.from_flat(given)
    return plan(given, settings, dataset, training_layout(dataset, settings, lambda _: None))


def statistics(dataset, **values):
    return corpus_statistics(dataset, training_layout(dataset, Settings.from_flat(values), lambda _: None))


def planned(dataset, **given):
    event, settings = plan_of(dataset, given)
    return {choice.setting: choice.value for choice in event.choices}, settings


def test_a_plan_leaves_the_text_alone(dataset, machine):
    """Catches allowed characters that are read as a range again: +, - and 9 became all from + to 9, also in
    the model.
    """
    machine(1e6)
    given = {"minutes": 1, "allow": r"+\-9 a-z"}
    assert planned(dataset("abc " * 5000), **given)[1].text == Settings.from_flat(given).text


def test_statistics_of_a_text(dataset):
    """Catches lines counted as repeated at their first occurrence, a counted validation split, and bits taken for
    bytes.
    """
    lines = "".join(f"line number {n * n} of a text\n" for n in range(2000))
    seen = statistics(dataset(lines * 2, split="1/0"))
    assert seen.tokens == 2 * len(lines)
    assert seen.repeated == pytest.approx(0.5, abs=0.001)
    once = statistics(dataset(lines, split="50/50"))
    assert once.tokens == len(lines) // 2
    assert once.repeated == 0
    assert 0.3 < once.bits < 3
    assert statistics(dataset("one line without an end", split="1/0")).repeated == 0


def test_repeated_records_and_bytes(dataset):
    """Catches a separator that is not taken for the end of a line."""
    names = "\n".join(["Ann", "Bob", "Ann", "Cleopatra"] * 50)
    for keep_order in (False, True):
        records = {"records": "line", "keep_order": keep_order}
        seen = statistics(dataset(names, split="1/0", **records), **records)
        assert seen.repeated > 0.9
        assert seen.records == 200
    assert statistics(dataset(names, split="1/0", vocabulary="bytes")).repeated > 0.9


def test_more_time_or_a_faster_machine_takes_a_larger_network(dataset, machine):
    """Catches a budget that has no effect, and an inverted rate."""
    data = dataset("the cat sat on the mat. " * 2000)
    machine(100_000)
    short, long = (planned(data, minutes=minutes)[0] for minutes in (0.2, 5))
    machine(1_000_000)
    fast, _ = planned(data, minutes=0.2)
    assert short["hidden"] < long["hidden"]
    assert short["hidden"] < fast["hidden"]
    assert short["lr"] > long["lr"]
    assert short.keys() == {*PLANNED, *planning.USUAL}


def test_a_text_that_is_read_often_is_dropped_more(dataset, machine):
    """Catches dropout that depends only on time: a short text is memorised in minutes."""
    machine(100_000)
    little, _ = planned(dataset("".join(f"{n * n} " for n in range(3000))), minutes=2)
    much, _ = planned(dataset("".join(f"{n * n} " for n in range(300_000))), minutes=2)
    assert little["hidden"] == much["hidden"]
    assert little["dropout"] > much["dropout"]
    assert little["weight_drop"] > much["weight_drop"]
    assert little["weight_decay"] > much["weight_decay"]


def test_what_was_chosen_is_kept_and_the_rest_planned_around_it(dataset, machine):
    """Catches a user's value that is changed, or shown as planned, and sizes that are timed without need."""
    timed = machine(100_000)
    choices, settings = planned(dataset("abc " * 5000), minutes=1, hidden=100, dropout=0.05, lr=0.001, cell="gru")
    assert timed == [100]
    assert choices.keys() == {"weight_drop", "dropout_mask", "beta1", "weight_decay", *planning.USUAL} - {"cell"}
    model = settings.model
    assert (model.hidden, model.cell) == (100, "gru")
    assert (settings.training.dropout, settings.training.lr) == (0.05, 0.001)
    assert settings.training.weight_drop == choices["weight_drop"]
    assert settings.training.minutes == 1


@pytest.mark.parametrize(("rate", "minutes"), [(1000, 60), (100_000, 0.005)], ids=["slow", "short"])
def test_a_slow_machine_is_not_timed_for_minutes(dataset, machine, rate, minutes):
    """Catches a second timing after a first step that took seconds, or after the first took its part of the budget."""
    timed = machine(rate)
    planned(dataset("abc " * 5000), minutes=minutes)
    assert timed == [planning.TIMED[0]]


def test_a_first_step_that_is_slow_tells_nothing(dataset, machine, monkeypatch):
    """Catches only one timed size because its first step was slow, for example by set-up."""
    timed, at_once = machine(100_000), planning._timed
    monkeypatch.setattr(planning, "_timed", lambda *given: [60.0, *at_once(*given)[1:]])
    planned(dataset("abc " * 5000), minutes=5)
    assert timed == list(planning.TIMED)


def test_a_real_machine_is_timed(dataset):
    """Catches errors that the imitated machine hides, such as a network that cannot take the text's batch."""
    event, settings = plan_of(dataset("abc " * 5000), {"minutes": 0.01})
    reasons = {choice.setting: choice.reason for choice in event.choices}
    assert settings.model.hidden in planning.SIZES
    assert int(re.search(r"([\d,]+) tokens/s", reasons["hidden"])[1].replace(",", "")) > 1000


def test_sizes_between_those_timed_follow_from_both(dataset, machine):
    """Catches a quadratic law from the first size on: below 256 units, other costs dominate a step."""
    machine(100_000)
    settings = Settings.from_flat({"minutes": 1})
    data = dataset("abc " * 50_000)
    throughput = ThroughputEstimate(
        settings, statistics(data), planning.TIMED, training_layout(data, settings, lambda _: None).batch(0, 0), None
    )
    assert throughput.rate(256) == pytest.approx(100_000)
    assert throughput.rate(128) == pytest.approx(100_000 * 2**0.5)
    assert throughput.rate(96) == pytest.approx(100_000 * (256 / 96) ** 0.5)
    assert throughput.rate(384) == pytest.approx(100_000 * (256 / 384) ** 2)
    assert throughput.tokens(256) == pytest.approx(60 * planning.SHARE * 100_000)


def test_beyond_what_the_memory_holds_the_rest_is_guessed(dataset, machine):
    """Catches a plan that ends in an error because its largest network does not fit into memory."""
    timed = machine(100_000, full=512)
    choices, _ = planned(dataset("abc " * 5000), minutes=60)
    assert max(timed) == 256
    assert 256 < choices["hidden"] < 512
    machine(100_000, full=1)
    with pytest.raises(MemoryError):
        planned(dataset("abc " * 5000), minutes=1)


def test_a_short_text_is_planned_for_the_batch_it_gets(dataset, machine):
    """Catches a step of the given length for a shorter text, with which the text would be read thousands of times."""
    machine(100_000)
    text = "".join(chr(ord("a") + n * n % 26) for n in range(100))
    choices, _ = planned(dataset(text, split="1/0"), minutes=1, steps=1, hidden=384, batch_size=10**9)
    assert choices["dropout"] == pytest.approx(planning.DROPOUT[0])  # a step has at most 99 tokens: read once


def test_what_is_dropped_is_for_new_text_and_the_size(dataset, machine):
    """Catches repeated lines counted as new text, ignored budgets in steps, and equal dropout for all sizes."""
    machine(100_000)
    once = "".join(f"{n * n}\n" for n in range(3000))
    given = {"minutes": 1, "hidden": 384}
    alone, repeated = (planned(dataset(text, split="1/0"), **given)[0] for text in (once, once * 4))
    assert repeated["dropout"] == pytest.approx(alone["dropout"], abs=0.02)
    few, _ = planned(dataset(once, split="1/0"), **given, steps=20)
    assert few["dropout"] < alone["dropout"]
    sizes = [planning._dropout(statistics(dataset(once)), 5, hidden)[0].value for hidden in (128, 256, 384, 768)]
    assert sizes == sorted(set(sizes))


def test_the_rate_is_planned_for_adam_alone(dataset, machine):
    """Catches Adam's rate for plain descent, one cell's value for another, and a plan without any setting."""
    machine(100_000)
    by_adam, _ = planned(dataset("abc " * 5000), minutes=1, optimizer="adam")
    assert {"lr", "beta1"} <= by_adam.keys()
    of_gru, _ = planned(dataset("abc " * 5000), minutes=1, cell="gru")
    assert (by_adam["beta1"], of_gru["beta1"]) == (0, 0.9), (
        "a mean of gradients hurts the LSTM; the others were not tried"
    )
    assert "weight_decay" not in by_adam, "there it is a part of the gradient, and a tenth is far too much"
    choices, settings = planned(dataset("abc " * 5000), minutes=1, optimizer="sgd")
    assert not choices.keys() & {"lr", "beta1", "weight_decay"}
    assert planning.why_no_plan({}, settings) is None
    assert "all that can be planned are given" in planning.why_no_plan(choices, settings)


def test_an_input_gate_is_capped_where_that_is_fast(dataset, machine):
    """Catches a loop over steps in PyTorch, the rate of one input gate for the other, and a gate for other cells."""
    machine(100_000)
    text = dataset("abc " * 5000)
    by_engine = {name: planned(text, minutes=1, hidden=256, engine=name)[0] for name in ("native", "numpy", "torch")}
    found = {name: (choices["input_gate"], choices["lr"]) for name, choices in by_engine.items()}
    assert found == {"native": ("capped", 0.022), "numpy": ("capped", 0.022), "torch": ("free", 0.016)}
    asked, _ = planned(text, minutes=1, hidden=256, input_gate="free")
    assert "input_gate" not in asked
    assert asked["lr"] == 0.016
    assert "input_gate" not in planned(text, minutes=1, cell="gru")[0]


def test_every_number_is_there_at_the_edges():
    """Catches a logarithm of 0, for a text of two characters or of only repeated lines."""
    for text in (CorpusStatistics(1, 1, 0, 0.0, 8.0), CorpusStatistics(100, 2, 0, 1.0, 0.1)):
        for tokens in (1.0, 1e12):
            epochs = text.readings(tokens)
            for choice in (*planning._dropout(text, epochs, 48), planning._decay(epochs)):
                assert choice.value == "locked" or 0 <= choice.value < 1
