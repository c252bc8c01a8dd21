"""The training loop. It uses batches, an engine, a budget and a run folder, and knows no framework.

After every step the whole state of training is (parameters, the engine's snapshot, hidden state, `Progress`). A
checkpoint writes exactly this state, and resuming reads it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from charloom.checkpoint import ModelFolder
from charloom.engines.engine import Engine, State
from charloom.errors import Interrupted, ProcessLostError, TrainingError
from charloom.evaluation.static import measure
from charloom.training import budget
from charloom.training.events import Event, EventHandler, Finished, Notice, Sample, Step, Validation
from charloom.training.finish import finish
from charloom.training.layouts import QUICK_VALIDATION, Layouts
from charloom.training.run_folder import RunFolder, RunState
from charloom.training.weights import NotFinite, finite_parameters, sample, trained_model

REPORT_EVERY = 1.0  # seconds between two `Step` events
CHECKPOINT_EVERY = 60.0  # seconds of training that a power cut can lose at most


@dataclass
class Recent:
    """Sums since the last report."""

    nats: float = 0.0
    tokens: int = 0

    @property
    def mean(self) -> float | None:
        """Nats per token, if there were tokens."""
        return self.nats / self.tokens if self.tokens else None


class Trainer:
    """One run, from its state to the end of its budget.

    engine: takes over the parameters and the arrays of the state; stop: called after every step, true ends the run with
    everything saved; clock: monotonic, in seconds.
    """

    def __init__(
        self,
        engine: Engine,
        layouts: Layouts,
        run: RunFolder,
        state: RunState,
        report: EventHandler,
        stop: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._layouts, self._run = engine, layouts, run
        self._settings = run.settings.training
        self._report, self._stop, self._clock = report, stop, clock
        self._go_on_from(state)

    def _go_on_from(self, state: RunState) -> None:
        self._model, self._progress = state.model, state.progress
        self._engine.load(state.model.parameters)
        self._state: State = None  # the hidden state before the next batch
        if state.arrays is not None:
            self._state = self._engine.restore(state.arrays, self._carried())
        self._recent = Recent()
        self._started = self._clock() - self._progress.seconds
        self._saved_at = self._reported_at = self._progress.seconds

    def train(self) -> Finished:
        """Trains to the end of the budget. Then `best/` has the best weights and their losses over whole splits.

        Raises:
            Interrupted: if `stop` returned true; everything is saved.
            TrainingError: if the loss is not finite twice, the weights diverged and are useless, or the disk is full.
            ProcessLostError: see `ProcessEngine`.
        """
        if self._progress.step == 0:
            self._run.save_best(self._trained(0, {}))
            self._checkpoint()
        elif self._ended():
            self._emit(Notice(self._end_notice()))
        while True:
            try:
                while not self._ended():
                    self._turn()
                self._checkpoint()
                return self._finish()
            except NotFinite:
                self._rewind()
            except ProcessLostError as error:
                advice = "to go on from the last checkpoint, resume the run"
                raise ProcessLostError(error.reason, advice, self._run.folder) from None

    def _turn(self) -> None:
        """One step, then the validation and the checkpoint that are due."""
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
        """Ends a run that is saved. Before the first validation, the newest weights become the best ones."""
        step, folder = self._progress.step, self._run.folder
        if self._progress.validations == 0:
            self._run.save_best(self._trained(step, {}))
        raise Interrupted(f"stopped at step {step}; everything is saved in {folder}; to go on, resume the run", folder)

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
        """The number of sequences that continue in the next batch; 0 if it begins from the zero state."""
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
        """Returns to the last checkpoint with half the learning rate; ends the run the second time.

        Raises:
            TrainingError: if the rate was already halved.
        """
        if self._progress.lr_factor < 1:
            raise TrainingError(
                f"the loss must be finite; at step {self._progress.step} it was not, for the second time, although the "
                f"learning rate was halved; {self._run.folder / 'best'} holds the best model so far; start a new run "
                "with a smaller `lr` or `clip`"
            )
        step = self._progress.step
        self._go_on_from(self._run.load_last())
        self._progress.lr_factor = 0.5
        back = f"back to step {self._progress.step}, with half the learning rate"
        self._emit(Notice(f"the loss was not finite at step {step}; training goes {back}"))

    def _fraction(self) -> float:
        return budget.fraction(self._settings, self._progress, len(self._layouts.training))

    def _ended(self) -> bool:
        return self._fraction() >= 1 or self._out_of_patience()

    def _end_notice(self) -> str:
        """Why a resumed run has nothing to do, and which argument changes that."""
        if self._out_of_patience():
            done = f"{self._progress.waited:,} validations without a better one"
            then = "start a new run with this model as `base_model`"
        else:
            done, more = budget.spent(self._settings, self._progress, len(self._layouts.training))
            then = f"resume it with a larger budget, such as `{more}`"
        return f"this run has already ended: {done}; its best model is measured again; to train longer, {then}"

    def _out_of_patience(self) -> bool:
        return self._settings.patience is not None and self._progress.waited >= self._settings.patience

    def _validation_due(self) -> bool:
        """Whether a validation is due: every n steps, every epoch or every twentieth of the budget, and at its end."""
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
        """Whether a checkpoint is due: every n steps, or with every validation and every minute."""
        if self._settings.checkpoint_every:
            return self._progress.step % self._settings.checkpoint_every == 0
        return validated or self._progress.seconds - self._saved_at >= CHECKPOINT_EVERY

    def _checkpoint(self) -> None:
        """Writes `last/`."""
        model = dataclasses.replace(self._model, parameters=finite_parameters(self._engine))
        self._run.save_last(RunState(model, self._progress, self._engine.snapshot(self._state)))
        self._saved_at = self._progress.seconds

    def _trained(self, step: int, figures: dict[str, float]) -> ModelFolder:
        """The model with the engine's weights, and these figures in its metadata."""
        return trained_model(self._model, self._engine, step, figures)

    def _validate(self) -> None:
        """Measures the loss, saves models that are due, and reports a sample. The state of training does not change."""
        progress = self._progress
        train_nats = progress.train_nats / progress.train_tokens if progress.train_tokens else None
        progress.train_nats, progress.train_tokens = 0.0, 0
        progress.validations += 1
        score = measure(self._engine, self._layouts.quick, QUICK_VALIDATION) if self._layouts.quick else None
        if score and not math.isfinite(score.nats):
            raise NotFinite
        validation_nats = score.nats_per_char if score else None
        nats = train_nats if self._settings.best_by == "training" else validation_nats
        best = self._save_if_best(nats)
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

    def _save_if_best(self, nats: float | None) -> bool:
        """Whether these weights are the best so far; if so, saves them. Without a loss, the newest are the best."""
        progress = self._progress
        best = nats is None or progress.best_nats is None or nats < progress.best_nats
        progress.waited += 1
        if best:
            progress.best_nats, progress.best_step, progress.waited = nats, progress.step, 0
            self._run.save_best(self._trained(progress.step, self._figures(nats)))
        return best

    def _keep(self, best: bool, nats: float | None) -> str | None:
        """Writes a model folder into `kept/` if one is due; its name has the epoch, the step and the loss."""
        every = self._settings.keep
        if not every or not (best if every == "best" else self._progress.validations % every == 0):
            return None
        figures = self._figures(nats)
        place = f"epoch-{self._epoch + 1:04}-step-{self._progress.step:06}"  # one epoch may have several
        name = "-".join([place, *(f"loss-{value:.4f}" for value in figures.values())])
        return str(self._run.save_kept(name, self._trained(self._progress.step, figures)))

    def _figures(self, nats: float | None) -> dict[str, float]:
        """The loss that decides which model is the best, for the metadata of a model."""
        return {} if nats is None else {f"{self._settings.best_by}_nats": nats}

    def _sample(self) -> None:
        """Generates text with the current weights; the random numbers of training do not change."""
        if self._settings.sample_length == 0:
            return
        model = dataclasses.replace(self._model, parameters=finite_parameters(self._engine))
        text = sample(model, self._settings, self._progress.step)
        if text is not None:
            self._run.add_sample(self._progress.step, text)
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
        self._run.log(event)
        self._report(event)

    def _finish(self) -> Finished:
        return finish(
            self._engine,
            self._layouts,
            self._run,
            RunState(self._model, self._progress),
            self._emit,
            self._stop_measuring,
        )

    def _stop_measuring(self) -> None:
        """Handles Ctrl-C while a large split is measured: writes `last/`, so that resuming measures again."""
        if self._stop():
            self._interrupt()
