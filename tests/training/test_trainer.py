"""The training loop with a scripted engine: validations, kept models, rewinds, and the end."""

from __future__ import annotations

import itertools
import json
import math
import re

import numpy as np
import pytest

from charloom.architecture import Architecture
from charloom.checkpoint import ModelFolder, load_model
from charloom.config import Settings
from charloom.data.batches import StreamBatches
from charloom.data.ids import Ids
from charloom.data.vocabulary import Vocabulary
from charloom.engines.initial import initial_parameters
from charloom.errors import Interrupted, TrainingError
from charloom.evaluation.static import measure
from charloom.training.budget import FLOOR, Progress
from charloom.training.events import Finished, Notice, Sample, Step, Validation
from charloom.training.layouts import Layouts
from charloom.training.run_folder import RunFolder, RunState
from charloom.training.trainer import Trainer

pytestmark = pytest.mark.processor

VOCABULARY = Vocabulary("characters", ("a", "b"))
SHAPE = Architecture(
    cell="rnn", nonlinearity="tanh", layers=1, hidden=2, input="onehot", embedding=1, vocabulary_size=2
)
BATCHES = 5


class Scripted:
    """An engine with given losses: `losses[k]` in training step k+1, `scores[k]` after k steps.

    Its parameters carry the count of steps, so a saved model tells when it was saved.
    """

    description = "scripted"

    def __init__(self, losses=(), scores=(), spoilt=()):
        self.losses, self.scores, self.spoilt = dict(losses), dict(scores), set(spoilt)
        self.count, self.calls, self.rates, self.states = 0, 0, [], []

    def step(self, inputs_BT, targets_BT, state, learning_rate):
        self.count += 1
        self.calls += 1
        self.rates.append(learning_rate)
        self.states.append(state)
        return self.losses.get(self.calls, 1.0) * targets_BT.size, targets_BT.size, (state or 0) + 1

    def score(self, inputs_BT, targets_BT, state):
        nats_N = np.full(targets_BT.size, self.scores.get(self.count, 1.0))
        return nats_N, np.zeros(targets_BT.size, bool), "measuring"

    def parameters(self):
        made = initial_parameters(SHAPE, 0)
        made["head.bias"] = np.full(2, np.nan if self.calls in self.spoilt else self.count, np.float32)
        return made

    def load(self, parameters):
        self.count = int(parameters["head.bias"][0])

    def snapshot(self, state):
        return {"state": np.array(state or 0)}

    def restore(self, arrays, batch):
        return (batch and int(arrays["state"])) or None


class Clock:
    """A clock that advances by `step` seconds at each call."""

    def __init__(self, step=0.0):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def saved_at(folder):
    return int(load_model(folder).parameters["head.bias"][0])


class Session:
    """A trainer over five batches an epoch, and what it reported."""

    def __init__(self, tmp_path, engine, stop=lambda: False, clock=None, validation=True, resumed=False, **values):
        self.engine, self.events, self.folder = engine, [], tmp_path / "run"
        values = {"steps": 10, "warmup": 0, "lr": 1.0, "schedule": "constant", **values}
        settings = Settings.from_flat(values)
        split = StreamBatches(Ids.of(np.zeros(9, np.uint8)), 2, 4)
        layouts = Layouts(StreamBatches(Ids.of(np.zeros(21, np.uint8)), 2, 2), *[split if validation else None] * 3)
        assert len(layouts.training) == BATCHES
        if resumed:
            run = RunFolder(self.folder, settings, {})
            state = run.load_last()
        else:
            run = RunFolder.create(self.folder, "x", settings, {})
            state = RunState(ModelFolder(SHAPE, VOCABULARY, initial_parameters(SHAPE, 0)), Progress())
        self.trainer = Trainer(engine, layouts, run, state, self.events.append, stop, clock or Clock())

    def seen(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def progress(self):
        return json.loads((self.folder / "last" / "resume.json").read_text())


def trained(tmp_path, engine, **values):
    session = Session(tmp_path, engine, **values)
    session.finished = session.trainer.train()
    return session


def test_best_holds_the_weights_of_the_best_validation_not_the_last(tmp_path):
    """Catches the latest weights taken for the best, an inverted comparison, and the whole split measured with the last
    ones.
    """
    engine = Scripted(scores={2: 0.9, 4: 0.5, 6: 0.7, 8: 0.6, 10: 0.8})
    session = trained(tmp_path, engine, validate_every=2)
    assert [(event.step, event.best) for event in session.seen(Validation)] == [
        (2, True),
        (4, True),
        (6, False),
        (8, False),
        (10, False),
    ]
    assert (saved_at(session.folder / "best"), saved_at(session.folder / "last")) == (4, 10)
    assert (session.finished.best_step, session.finished.validation_nats) == (4, 0.5)
    metadata = load_model(session.folder / "best").metadata
    assert (metadata["validation_nats"], metadata["test_nats"], metadata["step"]) == (0.5, 0.5, 4)


@pytest.mark.parametrize(("steps", "every"), [(7, 3), (3, 100)])
def test_the_last_weights_are_validated_too(tmp_path, steps, every):
    """Catches a run shorter than --validate-every whose best weights are untrained."""
    session = trained(tmp_path, Scripted(scores={steps: 0.1}), steps=steps, validate_every=every)
    assert session.seen(Validation)[-1].step == steps
    assert saved_at(session.folder / "best") == steps


def test_twenty_validations_in_a_budget(tmp_path):
    """Catches no validation if the budget has fewer steps than twenty, and one after every step if it has many."""
    assert [event.step for event in trained(tmp_path / "a", Scripted(), steps=40).seen(Validation)] == [
        *range(2, 41, 2)
    ]
    assert [event.step for event in trained(tmp_path / "b", Scripted(), steps=3).seen(Validation)] == [1, 2, 3]


def test_patience_stops_after_so_many_validations_without_a_better_one(tmp_path):
    """Catches a count off by one, a better loss that does not reset it, and an equal loss that counts as better."""
    scores = {1: 0.9, 2: 0.95, 3: 0.8, 4: 0.8, 5: 0.81, 6: 0.82, 7: 0.1}
    session = trained(tmp_path, Scripted(scores=scores), steps=20, validate_every=1, patience=3)
    assert (session.finished.step, session.finished.best_step) == (6, 3)
    again = Session(tmp_path, Scripted(scores=scores), resumed=True, steps=20, validate_every=1, patience=3)
    assert again.trainer.train().step == 6
    [said] = again.seen(Notice)
    assert said.text.startswith("this run has already ended: 3 validations without a better one; its best model is")


@pytest.mark.parametrize(
    ("budgets", "said"),
    [
        ({"steps": 7}, "7 of 7 steps; .* `steps=14`"),
        ({"steps": 2}, "7 of 2 steps; .* `steps=14`"),
        ({"steps": 9, "epochs": 1}, r"1\.4 of 1 epochs; .* `epochs=3`"),
        ({"steps": None, "minutes": 0.125}, r"0\.[23] of 0\.125 minutes; .* `minutes=1`"),
    ],
)
def test_a_spent_budget_is_named_with_what_to_give(tmp_path, budgets, said):
    """Catches another budget in the message than the one that ended, and advice for a budget that is spent too."""
    trained(tmp_path, Scripted(), steps=7, clock=Clock(1.0), sample_length=0)
    again = Session(tmp_path, Scripted(), resumed=True, clock=Clock(1.0), **budgets)
    assert again.trainer.train().step == 7
    texts = [notice.text for notice in again.seen(Notice)]
    assert len(texts) == 1
    assert re.search(f": {said}$", texts[0]), texts
    assert trained(tmp_path / "other", Scripted(), steps=3).seen(Notice) == []


def test_without_a_validation_split_the_last_weights_are_the_best(tmp_path):
    session = trained(tmp_path, Scripted(), steps=4, validation=False, patience=1)
    assert {event.validation_nats for event in session.seen(Validation)} == {None}
    assert session.finished == Finished(str(session.folder), 4, 0, 0.0, 4, None, None, None, predictions=4 * 2 * 2)
    assert saved_at(session.folder / "best") == 4
    assert session.seen(Sample), "samples need no validation split"


@pytest.mark.parametrize("validation", [True, False])
def test_best_by_training_loss(tmp_path, validation):
    """Catches the best by the other loss, by the loss of one step, or by a sum from before the last validation."""
    engine = Scripted(losses=dict(enumerate([3, 5, 1, 2, 4, 4], 1)), scores={6: 0.1})
    session = trained(tmp_path, engine, steps=6, validate_every=2, best_by="training", validation=validation)
    assert [(e.train_nats, e.best) for e in session.seen(Validation)] == [(4, True), (1.5, True), (4, False)]
    assert (saved_at(session.folder / "best"), session.finished.best_step) == (4, 4)
    assert load_model(session.folder / "best").metadata["step"] == 4


def test_validating_after_each_epoch(tmp_path):
    """Catches a validation at the start or in the middle of an epoch, and one with the number of the next epoch."""
    events = trained(tmp_path, Scripted(), steps=12, validate_every="epoch").seen(Validation)
    assert [(event.step, event.epoch) for event in events] == [(BATCHES, 0), (2 * BATCHES, 1), (12, 2)]


@pytest.mark.parametrize(
    ("keep", "names"),
    [
        ("best", ["epoch-0001-step-000005-loss-0.9000", "epoch-0002-step-000010-loss-0.5000"]),
        (2, ["epoch-0002-step-000010-loss-0.5000", "epoch-0004-step-000020-loss-0.8000"]),
        (None, []),
    ],
)
def test_models_that_are_kept_for_good(tmp_path, keep, names):
    """Catches a model that is kept too often or never, with another epoch in its name, or with other weights."""
    engine = Scripted(scores={5: 0.9, 10: 0.5, 15: 0.7, 20: 0.8})
    session = trained(tmp_path, engine, steps=20, validate_every="epoch", keep=keep)
    assert [path.name for path in sorted((session.folder / "kept").glob("*"))] == names
    assert [event.kept for event in session.seen(Validation) if event.kept] == [
        str(session.folder / "kept" / name) for name in names
    ]
    for name in names:
        kept = session.folder / "kept" / name
        assert saved_at(kept) == load_model(kept).metadata["step"] == BATCHES * int(name[6:10])


def test_models_of_one_epoch_are_all_kept(tmp_path):
    """Catches names without the step: of equal losses in one epoch, only the last was kept."""
    trained(tmp_path, Scripted(), steps=4, validate_every=1, keep=1)
    assert sorted(path.name for path in (tmp_path / "run" / "kept").iterdir()) == [
        f"epoch-0001-step-00000{step}-loss-1.0000" for step in (1, 2, 3, 4)
    ]


def test_samples_as_they_are_asked_for(tmp_path):
    """Catches a length or temperature that is not passed on, and greedy texts with the same first character."""
    assert not trained(tmp_path / "a", Scripted(), sample_length=0).seen(Sample)
    greedy = trained(tmp_path / "b", Scripted(), steps=10, sample_length=3, sample_temperature=0, validate_every=1)
    assert {len(event.text) for event in greedy.seen(Sample)} == {3}
    assert {event.text[0] for event in greedy.seen(Sample)} == {"a", "b"}
    cold = trained(tmp_path / "c", Scripted(), sample_temperature=0.01).seen(Sample)[0].text
    assert len(set(cold[9:])) == 1
    assert len(set(trained(tmp_path / "d", Scripted(), sample_temperature=9).seen(Sample)[0].text)) == 2


def test_the_state_is_carried_through_an_epoch_and_starts_anew(tmp_path):
    """Catches a state that continues into the next epoch, is lost at a validation, or comes from measuring."""
    session = trained(tmp_path, Scripted(), steps=7, validate_every=1)
    assert session.engine.states == [None, 1, 2, 3, 4, None, 1]


def test_a_loss_that_is_not_finite_rewinds_once_and_halves_the_rate(tmp_path):
    """Catches a rewound step that counts, a rate that is halved for only one step, and lines of the log
    written twice.
    """
    engine = Scripted(losses={6: math.nan})
    session = trained(tmp_path, engine, validate_every=2, checkpoint_every=2, epochs=2)
    assert [event.text for event in session.seen(Notice)] == [
        "the loss was not finite at step 5; training goes back to step 4, with half the learning rate"
    ]
    assert engine.rates == [1.0] * 6 + [0.5] * 6
    assert engine.states[6] == 4, "the state of the checkpoint"
    assert (session.finished.step, engine.calls, saved_at(session.folder / "last")) == (10, 12, 10)
    assert session.progress["lr_factor"] == 0.5
    log = [json.loads(line) for line in (session.folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if line["event"] == "validation"] == [2, 4, 6, 8, 10]


@pytest.mark.parametrize("second", [8, 12])
def test_a_second_loss_that_is_not_finite_is_the_end(tmp_path, second):
    """Catches endless rewinds, a message without advice, and a lost best model."""
    engine = Scripted(losses={6: math.inf, second: math.nan}, scores={2: 0.5})
    session = Session(tmp_path, engine, validate_every=2, checkpoint_every=2, steps=20)
    with pytest.raises(TrainingError, match=r"at step \d+ it was not, .*best holds .* smaller `lr` or `clip`$"):
        session.trainer.train()
    assert saved_at(session.folder / "best") == 2
    assert len(session.seen(Notice)) == 1


def test_the_halved_rate_outlives_an_interruption(tmp_path):
    """Catches a resumed run that does not know of its rewind, and so rewinds for ever at the full rate."""
    ask = itertools.chain([False] * 6, itertools.repeat(True))
    engine = Scripted(losses={4: math.nan})
    session = Session(tmp_path, engine, stop=lambda: next(ask), checkpoint_every=2, validate_every=100)
    with pytest.raises(Interrupted):
        session.trainer.train()
    again = Session(tmp_path, Scripted(losses={1: math.nan}), resumed=True)
    with pytest.raises(TrainingError, match="for the second time"):
        again.trainer.train()


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("moment", [3, 4, 10])
def test_spoilt_weights_are_never_saved(tmp_path, moment, validation):
    """Catches weights that are not finite saved as the best: the loss of a step is measured before its update."""
    engine = Scripted(spoilt={moment}, scores={3: 0.5, 4: 0.4})
    session = trained(tmp_path, engine, validate_every=1, checkpoint_every=2, validation=validation)
    assert len(session.seen(Notice)) == 1
    assert (session.finished.step, saved_at(session.folder / "last")) == (10, 10)
    assert saved_at(session.folder / "best") == (4 if validation else 10)


def test_a_validation_that_is_not_finite_rewinds_too(tmp_path):
    engine = Scripted(scores={4: math.nan})
    session = Session(tmp_path, engine, validate_every=2, checkpoint_every=2)
    with pytest.raises(TrainingError):  # the script gives NaN again after 4 steps
        session.trainer.train()
    assert (saved_at(session.folder / "best"), saved_at(session.folder / "last")) == (2, 2)
    assert engine.rates == [1.0] * 4 + [0.5] * 2


def test_a_state_that_explodes_over_the_whole_split_is_said_and_not_written(tmp_path):
    """Catches NaN in a JSON log, which ended the run in a traceback after its last step."""
    engine = Scripted()
    session = Session(tmp_path, engine, validate_every=10)
    measured = []
    engine.score = lambda inputs, targets, state: (
        measured.append(1) or (np.array([1.0 if len(measured) == 1 else math.inf]), np.zeros(1, bool), state)
    )
    finished = session.trainer.train()
    assert (finished.validation_nats, finished.test_nats) == (None, None)
    assert "validation_nats" not in load_model(session.folder / "best").metadata
    assert "not finite" in session.seen(Notice)[0].text


def test_weights_that_generate_nothing_are_no_reason_to_end(tmp_path):
    """Catches a sample that overflows in a relu network and ends the run."""
    engine = Scripted()
    huge = {"rnn.weight_hh_l0": np.full((2, 2), 3e38, np.float32), "rnn.bias_hh_l0": np.ones(2, np.float32)}
    made = engine.parameters
    engine.parameters = lambda: made() | huge | {"head.weight": np.full((2, 2), 3e38, np.float32)}
    session = trained(tmp_path, engine, steps=2)
    assert (session.finished.step, session.seen(Sample), session.seen(Notice)) == (2, [], [])


def test_stopping_saves_says_how_to_go_on_and_going_on_ends_as_if_it_had_not(tmp_path):
    """Catches a step that is lost or done twice, and a folder name that the shell splits."""
    folder = tmp_path / "a b"
    folder.mkdir()
    ask = iter([False, False, True])
    session = Session(folder, Scripted(), stop=lambda: next(ask), validate_every=2)
    with pytest.raises(
        Interrupted, match=f"^stopped at step 3; everything is saved in {folder}/run; .*resume the run$"
    ):
        session.trainer.train()
    assert (session.progress["step"], saved_at(session.folder / "last")) == (3, 3)
    again = Session(folder, Scripted(), resumed=True, validate_every=2)
    assert again.trainer.train().step == 10
    assert again.engine.states == [3, 4, None, 1, 2, 3, 4]


def test_stopping_while_the_whole_split_is_measured(tmp_path):
    """Catches Ctrl-C without an effect during the last measurement, and a resume that does not repeat the
    measurement.
    """
    ask = itertools.chain([False] * 10, itertools.repeat(True))
    session = Session(tmp_path, Scripted(), stop=lambda: next(ask))
    with pytest.raises(Interrupted, match="stopped at step 10"):
        session.trainer.train()
    again = Session(tmp_path, Scripted(), resumed=True)
    assert again.trainer.train().step == 10
    assert again.engine.calls == 0


def test_a_budget_in_minutes_goes_on_with_the_minutes_that_are_left(tmp_path):
    """Catches a clock that restarts with each resume, and time between two parts that counts."""
    ask = itertools.chain([False] * 9, [True])
    session = Session(tmp_path, Scripted(), lambda: next(ask), Clock(1.0), steps=None, minutes=0.5, validate_every=99)
    with pytest.raises(Interrupted):
        session.trainer.train()
    before = session.progress
    assert (before["step"], before["seconds"]) == (10, pytest.approx(10, abs=1.5))
    late = Clock(1.0)
    late.now = 5000.0
    again = Session(tmp_path, Scripted(), clock=late, resumed=True, steps=None, minutes=0.5, validate_every=99)
    finished = again.trainer.train()
    assert finished.seconds == pytest.approx(30, abs=2)
    assert 16 <= again.engine.calls <= 22


def test_measuring_counts_as_time_spent(tmp_path):
    """Catches a run of two minutes, half of them for validation, that takes three."""
    clock, engine = Clock(1.0), Scripted()
    score = engine.score

    def slow(*arguments):
        clock.now += 10
        return score(*arguments)

    engine.score = slow
    session = trained(tmp_path, engine, clock=clock, steps=None, minutes=1.0, validate_every=5)
    assert session.finished.step < 40
    assert session.finished.seconds >= 60
    late = Session(tmp_path / "late", engine, clock=clock, stop=lambda: True, validate_every=1)
    with pytest.raises(Interrupted):
        late.trainer.train()
    assert late.progress["seconds"] > 10, "what the checkpoint keeps"


def test_reports_come_every_second_with_rates_and_what_is_left(tmp_path):
    """Catches tokens/s of the whole run instead of since the last report, and remaining time of the wrong budget."""
    session = trained(tmp_path, Scripted(), clock=Clock(0.5), steps=20, validate_every=99, schedule="cosine")
    reports = session.seen(Step)
    assert [event.step for event in reports] == [*range(2, 21, 2)]
    for event in reports:
        assert event.train_nats == 1.0
        assert event.tokens_per_second == pytest.approx(2 * 4 / 1.0)  # two steps of 2 x 2 tokens a second
        assert event.seconds_left == pytest.approx((20 - event.step) / 2)
    assert reports[-1].learning_rate == pytest.approx(FLOOR)


def test_a_checkpoint_a_minute_however_long_the_budget(tmp_path):
    """Catches checkpoints only at validations: a power cut in a run of ten hours cost half an hour."""
    saves = []
    session = Session(tmp_path, Scripted(), clock=Clock(10.0), steps=1000, stop=lambda: len(saves) > 3)
    save = session.trainer._run.save_last
    session.trainer._run.save_last = lambda state: (saves.append(state.progress.seconds), save(state))
    with pytest.raises(Interrupted):
        session.trainer.train()
    assert np.diff(saves[:3]).tolist() == [60, 60]


def test_a_measurement_ends_when_enough_is_read():
    """Catches `most` counted in batches, and a state that is carried although the layout says 0."""
    split, states, engine = StreamBatches(Ids.of(np.zeros(101, np.uint8)), 2, 5), [], Scripted()
    score = engine.score
    engine.score = lambda inputs, targets, state: (states.append(state), score(inputs, targets, state))[1]
    assert measure(engine, split, most=15).tokens == 20
    assert measure(engine, split).tokens == 100
    assert states[:2] == [None, "measuring"]
    states.clear()
    measure(engine, StreamBatches(Ids.of(np.zeros(101, np.uint8)), 2, 5, carries_state=False))
    assert set(states) == {None}
