"""The training loop. It knows batches, an engine, a budget and a run folder, and no framework.

After every step the whole state of training is (parameters, what the engine remembers, hidden state, `Progress`); a
checkpoint writes exactly that, and resuming reads exactly that.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from charloom.checkpoint import ModelFolder, load_model
from charloom.data.batches import Batches
from charloom.engines.engine import Engine, State
from charloom.errors import Interrupted, ModelError, TrainingError
from charloom.model import Model, Options
from charloom.score import Score
from charloom.training import budget
from charloom.training.budget import Progress
from charloom.training.events import Event, Finished, Notice, Report, Sample, Step, Validation
from charloom.training.measuring import guesses, measure
from charloom.training.run_folder import RunFolder
from charloom.training.verdict import Curve, Outcome, verdict

REPORT_EVERY = 1.0  # seconds between two `Step` events
QUICK_VALIDATION = 200_000  # tokens; the standard error of their mean is below 0.005 nats
CHECKPOINT_EVERY = 60.0  # seconds that a power cut may cost at most, however long the budget


@dataclass(frozen=True)
class Layouts:
    """What a run trains and measures on; None where the split is empty.

    quick: the validation split in many streams, of which the curve takes a part; whole, test: from start to end; seen:
    the training split in many streams, of which the verdict takes a part. Independent records are in groups everywhere.
    """

    training: Batches
    quick: Batches | None
    whole: Batches | None
    test: Batches | None
    seen: Batches | None = None


class NotFinite(Exception):
    """The loss or a weight became infinite or NaN; never leaves this file."""


@dataclass
class Recent:
    """Sums since the last report."""

    nats: float = 0.0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def mean(self) -> float | None:
        """Nats per token, if there was any."""
        return self.nats / self.tokens if self.tokens else None


class Trainer:
    """One run, from where `progress` stands to the end of its budget.

    engine: with its parameters loaded (and restored, when resuming); model: the folder to write, whose parameters the
    engine's replace at every checkpoint; state: the hidden state before the next batch; stop: asked after every step,
    true ends the run with everything saved; clock: seconds, monotonic.
    """

    def __init__(
        self,
        engine: Engine,
        layouts: Layouts,
        run: RunFolder,
        model: ModelFolder,
        progress: Progress,
        state: State,
        report: Report,
        stop: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._layouts, self._run, self._model = engine, layouts, run, model
        self._settings = run.settings.training
        self._progress, self._state = progress, state
        self._listener, self._stop, self._clock = report, stop, clock
        self._recent = Recent()
        self._start_clock()

    def train(self) -> Finished:
        """Runs to the end of the budget; `best/` then holds the best weights and their exact losses.

        Raises:
            Interrupted: if asked to stop; everything is saved.
            TrainingError: if the loss is not finite twice, if the weights diverged and nothing is left of what they
                learnt, or if the disk is full.
        """
        if self._progress.step == 0:
            with self._run.abandoned_on_error():
                self._save_best()
                self._checkpoint()
        elif self._ended():
            self._emit(Notice(self._said_of_the_end()))
        while True:
            try:
                while not self._ended():
                    self._turn()
                self._checkpoint()
                return self._finish()
            except NotFinite:
                self._rewind()

    def _turn(self) -> None:
        """One step, and all that is due after it."""
        self._step()
        self._report_step()
        validation_due = self._validation_due()
        if validation_due:
            self._validate()
        stop = self._stop()
        if stop or self._checkpoint_due(validation_due):
            self._checkpoint()
        if stop:
            self._interrupt()

    def _interrupt(self) -> None:
        raise Interrupted(f"stopped at step {self._progress.step}; go on with: {self._run.resume_command}")

    def _step(self) -> None:
        progress = self._progress
        inputs_BT, targets_BT = self._layouts.training.batch(progress.epoch, progress.index)
        rate = budget.learning_rate(self._settings, self._fraction()) * progress.lr_factor
        nats, count, state = self._engine.step(inputs_BT, targets_BT, self._state, rate)
        if not math.isfinite(nats):
            raise NotFinite
        self._advance(nats, count)
        self._state = state if self._carried() else None

    def _carried(self) -> int:
        """How many texts the next batch goes on with; 0 where it begins from the zero state."""
        return self._layouts.training.carried(self._progress.epoch, self._progress.index)

    def _advance(self, nats: float, count: int) -> None:
        progress = self._progress
        progress.step, progress.index, progress.tokens = (
            progress.step + 1,
            progress.index + 1,
            progress.tokens + count,
        )
        if progress.index == len(self._layouts.training):
            progress.epoch, progress.index = progress.epoch + 1, 0
        recent = self._recent
        recent.nats, recent.tokens = recent.nats + nats, recent.tokens + count
        progress.train_nats, progress.train_tokens = progress.train_nats + nats, progress.train_tokens + count
        progress.seconds = self._clock() - self._started

    def _rewind(self) -> None:
        """Back to the last checkpoint with half the learning rate; the second time is the end.

        Raises:
            TrainingError: if the rate was halved before.
        """
        if self._progress.lr_factor < 1:
            raise TrainingError(
                f"the loss stopped being finite again at step {self._progress.step}, with the learning rate already "
                f"halved; start anew with a smaller --lr or --clip; {self._run.folder / 'best'} holds the best so far"
            )
        step = self._progress.step
        self._model, self._progress, arrays = self._run.load_last()
        self._engine.load(self._model.parameters)
        self._state = self._engine.restore(arrays, self._carried())
        self._progress.lr_factor = 0.5
        self._recent = Recent()
        self._start_clock()
        back = f"back to step {self._progress.step}, with half the learning rate"
        self._emit(Notice(f"the loss was not finite at step {step}: {back}"))

    def _start_clock(self) -> None:
        self._started = self._clock() - self._progress.seconds
        self._saved_at = self._reported_at = self._progress.seconds

    def _fraction(self) -> float:
        return budget.fraction(self._settings, self._progress, len(self._layouts.training))

    def _ended(self) -> bool:
        return self._fraction() >= 1 or self._out_of_patience()

    def _said_of_the_end(self) -> str:
        """Why a run that is resumed does not go on, and what would let it."""
        if self._out_of_patience():
            done, then = f"{self._progress.waited:,} validations without a better one", "begin a new run from its model"
        else:
            done, more = budget.spent(self._settings, self._progress, len(self._layouts.training))
            then = f"give a larger budget: {self._run.resume_command} {more}"
        return f"this run had come to its end: {done}; its best model is measured once more; to train on, {then}"

    def _out_of_patience(self) -> bool:
        return self._settings.patience is not None and self._progress.waited >= self._settings.patience

    def _validation_due(self) -> bool:
        """After every so many steps, every epoch or every twentieth of the budget, and at its end."""
        spent = self._fraction()
        marks = int(spent * budget.VALIDATIONS)
        passed, self._progress.marks = marks > self._progress.marks, marks
        every = self._settings.validate_every
        if every == "epoch":
            passed = self._progress.index == 0
        elif every:
            passed = self._progress.step % every == 0
        return spent >= 1 or passed

    def _checkpoint_due(self, validated: bool) -> bool:
        """With every validation and every minute, or every so many steps."""
        if self._settings.checkpoint_every:
            return self._progress.step % self._settings.checkpoint_every == 0
        return validated or self._progress.seconds - self._saved_at >= CHECKPOINT_EVERY

    def _checkpoint(self) -> None:
        """Writes `last/`."""
        model = dataclasses.replace(self._model, parameters=self._parameters())
        self._run.save_last(model, self._progress, self._engine.snapshot(self._state))
        self._saved_at = self._progress.seconds

    def _parameters(self) -> dict[str, Any]:
        """The engine's parameters, fit to be written.

        Raises:
            NotFinite: if they are not: a step may have spoilt them and its own loss not shown it yet.
        """
        parameters = self._engine.parameters()
        if not all(np.isfinite(value).all() for value in parameters.values()):
            raise NotFinite
        return parameters

    def _save_best(self, figures: dict[str, float] | None = None) -> None:
        """Writes `best/` with the engine's weights, and these figures in its metadata."""
        self._run.save_best(self._as_saved(self._progress.best_step, figures or {}))

    def _as_saved(self, step: int, figures: dict[str, float]) -> ModelFolder:
        metadata = {**self._model.metadata, "step": step, **figures}
        return dataclasses.replace(self._model, parameters=self._parameters(), metadata=metadata)

    def _validate(self) -> None:
        """Measures, keeps what is to be kept, and shows what the weights write; training's own state stays as it is."""
        progress = self._progress
        train_nats = progress.train_nats / progress.train_tokens if progress.train_tokens else None
        progress.train_nats, progress.train_tokens = 0.0, 0
        progress.validations += 1
        score = measure(self._engine, self._layouts.quick, QUICK_VALIDATION) if self._layouts.quick else None
        if score and not math.isfinite(score.nats):
            raise NotFinite
        validation_nats = score.nats_per_char if score else None
        nats = train_nats if self._settings.best_by == "training" else validation_nats
        best = self._judge(nats)
        kept = self._keep(best, nats)
        self._emit(
            Validation(
                progress.step,
                self._epoch,
                train_nats,
                validation_nats,
                score.accuracy if score else None,
                best,
                progress.seconds,
                kept,
            )
        )
        self._sample()
        progress.seconds = self._clock() - self._started

    @property
    def _epoch(self) -> int:
        """The epoch of the last step, from 0."""
        return self._progress.epoch - (self._progress.index == 0)

    def _judge(self, nats: float | None) -> bool:
        """Whether these weights are the best so far, which are written down; without a loss to tell, the newest are."""
        progress = self._progress
        best = nats is None or progress.best_nats is None or nats < progress.best_nats
        progress.waited += 1
        if best:
            progress.best_nats, progress.best_step, progress.waited = nats, progress.step, 0
            self._save_best({} if nats is None else {f"{self._settings.best_by}_nats": nats})
        return best

    def _keep(self, best: bool, nats: float | None) -> str | None:
        """Writes a model folder for good, where that is due; its name tells the epoch, the step and the loss."""
        every = self._settings.keep
        if not every or not (best if every == "best" else self._progress.validations % every == 0):
            return None
        figures = {} if nats is None else {f"{self._settings.best_by}_nats": nats}
        place = f"epoch-{self._epoch + 1:04}-step-{self._progress.step:06}"  # several may be kept in one epoch
        name = "-".join([place, *(f"loss-{value:.4f}" for value in figures.values())])
        return str(self._run.save_kept(name, self._as_saved(self._progress.step, figures)))

    def _sample(self) -> None:
        """A few lines from the weights as they are, drawn without touching training's own randomness."""
        settings = self._settings
        if settings.sample_length == 0:
            return
        made = self._model
        model = Model.of(dataclasses.replace(made, parameters=self._parameters()))
        options: Options = {"seed": settings.seed, "records": 1 if made.vocabulary.separator else None}
        options |= {"threads": settings.threads}
        if settings.sample_temperature == 0:
            options |= {"greedy": True, "index": self._progress.step}  # another first character each time
        else:
            options |= {"temperature": settings.sample_temperature}
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                text = model.generate(length=settings.sample_length, **options)
        except ModelError:  # a relu network's state may still explode by itself: no text today, and no reason to end
            return
        self._progress.samples_bytes = self._run.add_sample(self._progress.step, text)
        self._emit(Sample(self._progress.step, text))

    def _report_step(self) -> None:
        progress, recent = self._progress, self._recent
        passed = progress.seconds - self._reported_at
        if passed < REPORT_EVERY or recent.mean is None:
            return
        spent = self._fraction()
        rate = budget.learning_rate(self._settings, spent) * progress.lr_factor
        left = progress.seconds / spent * (1 - spent) if spent > 0 else None
        speed = recent.tokens / passed
        self._recent, self._reported_at = Recent(), progress.seconds
        self._emit(Step(progress.step, self._epoch, recent.mean, rate, speed, progress.seconds, left, min(1.0, spent)))

    def _emit(self, event: Event) -> None:
        self._progress.log_bytes = self._run.log(event)
        self._listener(event)

    def _finish(self) -> Finished:
        """The best weights, measured over the whole splits and kept with those figures."""
        progress = self._progress
        if progress.best_nats is not None:
            self._engine.load(load_model(self._run.folder / "best").parameters)
        else:
            progress.best_step = progress.step
        seen = (
            measure(self._engine, self._layouts.seen, QUICK_VALIDATION, self._stop_measuring)
            if self._layouts.seen
            else None
        )
        whole, test = self._measured("validation", self._layouts.whole), self._measured("test", self._layouts.test)
        figures = {"validation_nats": whole, "test_nats": test}
        self._save_best({name: score.nats_per_char for name, score in figures.items() if score})
        outcome = self._outcome(seen, whole)
        finished = Finished(
            str(self._run.folder),
            progress.step,
            progress.epoch,
            progress.seconds,
            progress.best_step,
            whole.nats_per_char if whole else None,
            whole.accuracy if whole else None,
            test.nats_per_char if test else None,
            seen.nats_per_char if seen and math.isfinite(seen.nats) else None,
            verdict(outcome) if outcome else None,
            progress.tokens,
        )
        self._emit(finished)
        self._run.sync_log()
        if outcome and outcome.useless:
            raise TrainingError(
                f"the weights diverged: those of the best step, {progress.best_step}, are worse than the frequencies "
                f"of the {outcome.unit}s alone; start anew with a smaller --lr"
            )
        return finished

    def _outcome(self, seen: Score | None, unseen: Score | None) -> Outcome | None:
        """What the verdict is about, where there is a curve and text on both sides."""
        steps, nats, training, damaged = self._run.curve()
        if damaged:
            lines = "1 line" if damaged == 1 else f"{damaged} lines"
            self._emit(Notice(f"log.jsonl holds {lines} that cannot be read, as a power cut leaves them; skipped"))
        curve = Curve(steps, nats, training)
        if not (self._layouts.seen and seen and unseen and curve.steps and math.isfinite(seen.nats)):
            return None
        vocabulary = self._model.vocabulary
        return Outcome(
            curve,
            seen.nats_per_char,
            unseen.nats_per_char,
            vocabulary.unit,
            self._progress.tokens / self._model.architecture.size,
            guesses(self._layouts.seen, vocabulary.size, QUICK_VALIDATION),
        )

    def _measured(self, name: str, batches: Batches | None) -> Score | None:
        """The score over a whole split; None if it is empty, or the loss not finite."""
        if batches is None:
            return None
        score = measure(self._engine, batches, watch=self._stop_measuring)
        if math.isfinite(score.nats):
            return score
        self._emit(Notice(f"the loss over the whole {name} split is not finite: carried so far, the state explodes"))
        return None

    def _stop_measuring(self) -> None:
        """Ctrl-C while a large split is measured: `last/` is written, and resuming comes straight back here."""
        if self._stop():
            self._interrupt()
