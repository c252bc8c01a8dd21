"""The end of a run: the losses of the best weights over whole splits, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable

from charloom.checkpoint import load_model
from charloom.data.batches import Batches
from charloom.engines.engine import Engine
from charloom.errors import TrainingError
from charloom.evaluation.baselines import guesses
from charloom.evaluation.static import measure
from charloom.score import Score
from charloom.training.curve import read_curve
from charloom.training.events import EventHandler, Finished, Notice
from charloom.training.layouts import QUICK_VALIDATION, Layouts
from charloom.training.run_folder import RunFolder, RunState
from charloom.training.verdict import Outcome, verdict
from charloom.training.weights import trained_model


def finish(
    engine: Engine, layouts: Layouts, run: RunFolder, state: RunState, emit: EventHandler, watch: Callable[[], None]
) -> Finished:
    """Writes `best/` again, with the losses over the whole splits. Afterwards the engine has the weights of `best/`.

    Args:
        emit: shows and logs an event.
        watch: called after every measured batch; it may raise.

    Raises:
        NotFinite: if a weight is not finite.
        TrainingError: if the weights diverged and are worse than the frequencies of the tokens.
    """
    progress = state.progress
    if progress.best_nats is None:
        progress.best_step = progress.step
    else:
        engine.load(load_model(run.folder / "best").parameters)
    seen = measure(engine, layouts.seen, QUICK_VALIDATION, watch) if layouts.seen else None
    validation = _whole("validation", engine, layouts.whole, emit, watch)
    test = _whole("test", engine, layouts.test, emit, watch)
    figures = {f"{name}_nats": s.nats_per_char for name, s in (("validation", validation), ("test", test)) if s}
    run.save_best(trained_model(state.model, engine, progress.best_step, figures))
    outcome = _outcome(layouts, run, state, seen, validation, emit)
    finished = Finished(
        run=str(run.folder),
        step=progress.step,
        epoch=progress.epoch,
        seconds=progress.seconds,
        best_step=progress.best_step,
        validation_nats=figures.get("validation_nats"),
        accuracy=validation.accuracy if validation else None,
        test_nats=figures.get("test_nats"),
        seen_nats=seen.nats_per_char if seen and math.isfinite(seen.nats) else None,
        verdict=verdict(outcome) if outcome else None,
        predictions=progress.tokens,
    )
    emit(finished)
    run.sync_log()
    return _useful(finished, outcome)


def _whole(
    name: str, engine: Engine, batches: Batches | None, emit: EventHandler, watch: Callable[[], None]
) -> Score | None:
    """The score of a whole split, if there is one and it is finite."""
    score = measure(engine, batches, watch=watch) if batches else None
    if score and not math.isfinite(score.nats):
        emit(Notice(f"the loss over the whole {name} split is not finite: the carried state grows without a bound"))
        return None
    return score


def _useful(finished: Finished, outcome: Outcome | None) -> Finished:
    """Returns `finished`, or raises TrainingError if the best weights are useless."""
    if outcome and outcome.useless:
        raise TrainingError(
            f"the weights diverged: those of the best step, {finished.best_step}, are worse than the frequencies "
            f"of the {outcome.unit}s alone; start a new run with a smaller `lr`"
        )
    return finished


def _outcome(
    layouts: Layouts, run: RunFolder, state: RunState, seen: Score | None, unseen: Score | None, emit: EventHandler
) -> Outcome | None:
    """The values for the verdict; None if there is no curve, or no finite loss on training text or held-out text."""
    curve, damaged = read_curve(run.log_file)
    if damaged:
        lines = "1 line" if damaged == 1 else f"{damaged} lines"
        emit(Notice(f"log.jsonl has {lines} that cannot be read, perhaps after a power cut; skipped"))
    if not (layouts.seen and seen and unseen and curve.steps and math.isfinite(seen.nats)):
        return None
    vocabulary = state.model.vocabulary
    return Outcome(
        curve=curve,
        seen=seen.nats_per_char,
        unseen=unseen.nats_per_char,
        unit=vocabulary.unit,
        read=state.progress.tokens / state.model.architecture.size,
        guesses=guesses(layouts.seen, vocabulary.size, QUICK_VALIDATION),
    )
