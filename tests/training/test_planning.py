"""The plan: what it sees of a text and of the machine, and what it leaves alone."""

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
    """A machine that is so fast at 256 units, at more by their square, at fewer by their root.

    It says which sizes were timed. From `full` units on the memory is not enough.
    """
    timed = []

    def at(rate, full=2000):
        def seconds(settings, distinct, hidden, batch, seconds):
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
    """Allowed characters that are read as a range once more: +, - and 9 became all from + to 9, in the model too."""
    machine(1e6)
    given = {"minutes": 1, "allow": r"+\-9 a-z"}
    assert planned(dataset("abc " * 5000), **given)[1].text == Settings.from_flat(given).text


def test_statistics_of_a_text(dataset):
    """Catches lines counted as repeated at their first time, the validation split counted, and bits taken for bytes."""
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
    """A separator that is not seen as the end of a line."""
    names = "\n".join(["Ann", "Bob", "Ann", "Cleopatra"] * 50)
    for keep_order in (False, True):
        records = {"records": "line", "keep_order": keep_order}
        seen = statistics(dataset(names, split="1/0", **records), **records)
        assert seen.repeated > 0.9
        assert seen.records == 200
    assert statistics(dataset(names, split="1/0", vocabulary="bytes")).repeated > 0.9


def test_more_time_or_a_faster_machine_takes_a_larger_network(dataset, machine):
    """A budget that is not asked for, or a rate that is turned round."""
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
    """Dropout that follows the time alone: a short text is learnt by heart in minutes."""
    machine(100_000)
    little, _ = planned(dataset("".join(f"{n * n} " for n in range(3000))), minutes=2)
    much, _ = planned(dataset("".join(f"{n * n} " for n in range(300_000))), minutes=2)
    assert little["hidden"] == much["hidden"]
    assert little["dropout"] > much["dropout"]
    assert little["weight_drop"] > much["weight_drop"]
    assert little["weight_decay"] > much["weight_decay"]


def test_what_was_chosen_is_kept_and_the_rest_planned_around_it(dataset, machine):
    """A person's own choice overruled, or shown as the plan's; sizes timed that nobody wants."""
    timed = machine(100_000)
    choices, settings = planned(dataset("abc " * 5000), minutes=1, hidden=100, dropout=0.05, lr=0.001, cell="gru")
    assert timed == [100]
    assert choices.keys() == {"weight_drop", "dropout_mask", "weight_decay", *planning.USUAL} - {"cell"}
    model = settings.model
    assert (model.hidden, model.cell) == (100, "gru")
    assert (settings.training.dropout, settings.training.lr) == (0.05, 0.001)
    assert settings.training.weight_drop == choices["weight_drop"]
    assert settings.training.minutes == 1


@pytest.mark.parametrize(("rate", "minutes"), [(1000, 60), (100_000, 0.005)], ids=["slow", "short"])
def test_a_slow_machine_is_not_timed_for_minutes(dataset, machine, rate, minutes):
    """A second network timed where one step of the first took seconds, or where the first took up the budget."""
    timed = machine(rate)
    planned(dataset("abc " * 5000), minutes=minutes)
    assert timed == [planning.TIMED[0]]


def test_a_first_step_that_is_slow_tells_nothing(dataset, machine, monkeypatch):
    """One size timed alone, because something had to be set up, or the machine was elsewhere for a moment."""
    timed, at_once = machine(100_000), planning._timed
    monkeypatch.setattr(planning, "_timed", lambda *given: [60.0, *at_once(*given)[1:]])
    planned(dataset("abc " * 5000), minutes=5)
    assert timed == list(planning.TIMED)


def test_a_real_machine_is_timed(dataset):
    """Anything that the other tests only pretend: a network that cannot take the text's own batch."""
    event, settings = plan_of(dataset("abc " * 5000), {"minutes": 0.01})
    reasons = {choice.setting: choice.reason for choice in event.choices}
    assert settings.model.hidden in planning.SIZES
    assert int(re.search(r"([\d,]+) tokens/s", reasons["hidden"])[1].replace(",", "")) > 1000


def test_sizes_between_those_timed_follow_from_both(dataset, machine):
    """A square law from the first size on: below 256 units a step costs what it does for other reasons."""
    machine(100_000)
    settings = Settings.from_flat({"minutes": 1})
    data = dataset("abc " * 50_000)
    throughput = ThroughputEstimate(
        settings, statistics(data), planning.TIMED, training_layout(data, settings, lambda _: None).batch(0, 0)
    )
    assert throughput.rate(256) == pytest.approx(100_000)
    assert throughput.rate(128) == pytest.approx(100_000 * 2**0.5)
    assert throughput.rate(96) == pytest.approx(100_000 * (256 / 96) ** 0.5)
    assert throughput.rate(384) == pytest.approx(100_000 * (256 / 384) ** 2)
    assert throughput.tokens(256) == pytest.approx(60 * planning.SHARE * 100_000)


def test_beyond_what_the_memory_holds_the_rest_is_guessed(dataset, machine):
    """A plan that ends in an error because its largest network does not fit."""
    timed = machine(100_000, full=512)
    choices, _ = planned(dataset("abc " * 5000), minutes=60)
    assert max(timed) == 256
    assert 256 < choices["hidden"] < 512
    machine(100_000, full=1)
    with pytest.raises(MemoryError):
        planned(dataset("abc " * 5000), minutes=1)


def test_a_short_text_is_planned_for_the_batch_it_gets(dataset, machine):
    """A step counted as long as was asked for: the text would be read thousands of times on paper."""
    machine(100_000)
    text = "".join(chr(ord("a") + n * n % 26) for n in range(100))
    choices, _ = planned(dataset(text, split="1/0"), minutes=1, steps=1, hidden=384, batch_size=10**9)
    assert choices["dropout"] == pytest.approx(planning.DROPOUT[0])  # a step of at most 99 tokens: read once


def test_what_is_dropped_is_for_new_text_and_the_size(dataset, machine):
    """Repeated lines counted as text; steps that end before the minutes forgotten; all sizes alike."""
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
    """Adam's rate given to plain descent; a plan with nothing in it."""
    machine(100_000)
    by_adam, _ = planned(dataset("abc " * 5000), minutes=1, optimizer="adam")
    assert "lr" in by_adam
    assert "weight_decay" not in by_adam, "there it is a part of the gradient, and a tenth is far too much"
    choices, settings = planned(dataset("abc " * 5000), minutes=1, optimizer="sgd")
    assert not choices.keys() & {"lr", "weight_decay"}
    assert planning.plans({}, settings)
    assert not planning.plans(choices, settings)


def test_every_number_is_there_at_the_edges():
    """A logarithm of nothing: a text of two characters, or all of it repeated."""
    for text in (CorpusStatistics(1, 1, 0, 0.0, 8.0), CorpusStatistics(100, 2, 0, 1.0, 0.1)):
        for tokens in (1.0, 1e12):
            epochs = text.readings(tokens)
            for choice in (*planning._dropout(text, epochs, 48), planning._decay(epochs)):
                assert choice.value == "locked" or 0 <= choice.value < 1
