"""A machine that becomes slower while it trains, for example because it gets hot. Its clock is handed in."""

from __future__ import annotations

import math
import random

import pytest

from charloom.config import Settings
from charloom.data.corpus import open_corpus
from charloom.data.dataset import prepare
from charloom.data.texts import Texts
from charloom.engines.engine import choose_engine, open_engine
from charloom.training import planning
from charloom.training.first_model import first_model
from charloom.training.layouts import Layouts
from charloom.training.planning import plan
from charloom.training.run_folder import RunFolder, RunState
from charloom.training.trainer import Trainer

SPEED = 3400  # tokens/s of the machine at 64 units: the plan takes 64 units, and 48 at half this speed
GIVEN = {"minutes": 1.0, "lr": 0.03, "embedding": 16, "batch_size": 4, "seq_length": 16, "sample_length": 0}
"""Small batches and a high rate: the loss depends on how low the rate is at the end."""


class Machine:
    """Its time passes only in training steps. From `hot_at` seconds on, a step takes twice as long."""

    def __init__(self, speed, hot_at=math.inf):
        self.speed, self.hot_at, self.now = speed, hot_at, 0.0

    def seconds(self, hidden, tokens):
        return tokens / self.speed * (hidden / 64) ** 2 * (2 if self.now >= self.hot_at else 1)

    def clock(self):
        return self.now

    def run(self, engine, hidden):
        """Makes the engine's steps take the time of this machine."""
        step = engine.step

        def timed(inputs_BT, *others):
            self.now += self.seconds(hidden, inputs_BT.size)
            return step(inputs_BT, *others)

        engine.step = timed


@pytest.fixture(scope="module")
def words():
    """Random words from a list of 300: what is left to learn late is which words there are."""
    draw = random.Random(0)
    known = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(300)]
    return " ".join(draw.choices(known, k=20_000))


@pytest.fixture
def trained(tmp_path, words, monkeypatch):
    """Trains by the plan for a machine as it is at first; returns the end of the run."""

    def train(machine):
        def timed(settings, distinct, hidden, batch, seconds, processes):
            return [machine.seconds(hidden, batch[0].size)] * 2

        monkeypatch.setattr(planning, "_timed", timed)
        settings = Settings.from_flat(GIVEN)
        run = RunFolder.create(tmp_path / f"{machine.speed}", "words", settings, {})
        dataset = prepare(open_corpus(Texts.of([words]), settings.text), settings.text, run.data, lambda _: None)
        layouts = Layouts.of(dataset, settings, lambda _: None)
        _, run.settings = plan(GIVEN, settings, dataset, layouts.training)
        model = first_model(run, "words", dataset)
        choice = choose_engine(run.settings.training, model.architecture.cell)
        engine = open_engine(choice, model.architecture, run.settings.training)
        machine.run(engine, model.architecture.hidden)
        return Trainer(engine, layouts, run, RunState(model), lambda _: None, lambda: False, machine.clock).train()

    return train


def test_a_machine_that_becomes_slower_ends_like_one_that_was_slow(trained):
    """Catches a learning rate that follows the steps that were planned: at the end of the minutes it is then still a
    quarter of the highest, and the loss 0.04 nats above that of the slow machine.
    """
    hot = trained(Machine(SPEED, hot_at=20))  # a third of the budget
    slow = trained(Machine(SPEED / 2))
    assert hot.seconds == pytest.approx(60, abs=0.1)
    assert hot.validation_nats < slow.validation_nats + 0.02
