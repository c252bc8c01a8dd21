"""The two ways into training: a new run, and one that goes on.

Each is one function, read from top to bottom: settings, engine, corpus, run folder, dataset, layouts, plan, model,
trainer. A resumed run reads the same parts from its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from charloom.checkpoint import ModelFolder, load_model
from charloom.config import ModelSettings, Settings
from charloom.data.corpus import open_corpus
from charloom.data.dataset import Dataset, open_dataset, prepare
from charloom.data.vocabulary import Vocabulary
from charloom.engines.engine import EngineChoice, choose_engine, open_engine, slower_than_asked
from charloom.errors import ModelError, SettingsError
from charloom.training.budget import Progress
from charloom.training.events import Event, Finished, Notice, Planned, Report, Started
from charloom.training.finetune import adapt, settings_like
from charloom.training.first_model import first_model
from charloom.training.interrupt import prompt_interrupt
from charloom.training.layouts import Layouts, training_layout
from charloom.training.planning import plan, plans
from charloom.training.run_folder import RunFolder, RunState
from charloom.training.trainer import Trainer

Stop = Callable[[], bool]


def start(
    paths: Sequence[str],
    values: Mapping[str, Any],
    out: Path | None,
    base: str | None,
    report: Report,
    stop: Stop,
) -> Finished:
    """A new run on the text at these paths, to the end of its budget.

    Args:
        paths: as `data.corpus.open_corpus` takes them.
        values: settings by their flat names; the others have their defaults.
        out: the run folder; by default `runs/<corpus>-<n>`.
        base: the folder of a base model, to fine-tune it.
        report: called with every event.
        stop: asked after every step; true ends the run with everything saved.

    Raises:
        CharloomError: for every mistake that a person can make.
        Interrupted: if asked to stop; everything is saved.
        KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGHUP before the first step; nothing is left behind.
    """
    events: list[Event] = []  # for the log; they begin before there is a run folder

    def tell(event: Event) -> None:
        events.append(event)
        report(event)

    def notice(text: str) -> None:
        tell(Notice(text))

    with ExitStack() as lock:
        with prompt_interrupt():
            asked = _asked(values, base)
            settings = asked.settings
            if slower := slower_than_asked(settings.training, settings.model.cell):
                notice(slower)
            corpus = open_corpus(paths, settings.text, notice)
            source = {"paths": list(paths), "charloom": version("charloom")} | ({"from": base} if base else {})
            run = lock.enter_context(RunFolder.create(out, corpus.name, settings, source))
            with run.abandoned_on_error():
                run.save_settings()
                dataset = prepare(
                    corpus, settings.text, run.data, notice, asked.base_vocabulary, settings.training.seed
                )
                layouts = Layouts.of(dataset, settings, notice)
                if plans(asked.chosen, settings):
                    planned, run.settings = plan(asked.chosen, settings, dataset, layouts.training)
                    tell(planned)
                    run.save_settings()
                model = first_model(run, corpus.name, dataset)
                if asked.base:
                    model = adapt(asked.base, model, notice)
                for event in events:
                    run.log(event)
                trainer = _trainer(run, dataset, layouts, RunState(model, Progress()), asked.engine, report, stop)
        return trainer.train()


def plan_only(
    paths: Sequence[str], values: Mapping[str, Any], base: str | None, notice: Callable[[str], None]
) -> Planned:
    """What `start` would choose for the text at these paths; nothing is left behind.

    Raises:
        CharloomError: for every mistake that a person can make.
    """
    asked = _asked(values, base)
    settings = asked.settings
    if not plans(asked.chosen, settings):
        raise SettingsError(
            "a plan needs `minutes` as the budget, `batches='streams'`, `loss='every'`, and a setting that is not "
            "given and can be planned, such as `hidden`"
        )
    corpus = open_corpus(paths, settings.text, notice)
    with TemporaryDirectory(prefix="charloom-") as folder:
        dataset = prepare(corpus, settings.text, Path(folder), notice, asked.base_vocabulary, settings.training.seed)
        return plan(asked.chosen, settings, dataset, training_layout(dataset, settings, notice))[0]


def resume(folder: Path, budgets: Mapping[str, Any], report: Report, stop: Stop) -> Finished:
    """Goes on with a run, exactly as if it had never stopped.

    Args:
        folder: the run folder.
        budgets: minutes, epochs or steps to replace the run's own with; empty for none.
        report, stop: as `start` takes them.

    Raises:
        CharloomError: if the folder is not a run, is damaged, or another process trains it.
    """
    with RunFolder.open(folder) as run:
        with prompt_interrupt():
            run.settings = run.settings.replaced(budgets)
            state = run.load_last()
            if state.progress.best_nats is not None:
                load_model(run.folder / "best")  # damage to it should not be found only when all training is done
            dataset = open_dataset(run.data)
            _check_parts(run, dataset, state.model)
            layouts = Layouts.of(dataset, run.settings, lambda _: None)  # the notices were shown when it began
            if state.progress.index >= len(layouts.training):
                found = f"below {len(layouts.training)}, the batches; found {state.progress.index}"
                raise ModelError(f"resume.json: index must be {found}")
            engine = choose_engine(run.settings.training, run.settings.model.cell)
            trainer = _trainer(run, dataset, layouts, state, engine, report, stop)
            if budgets:
                run.save_settings()  # so that the next resume goes on to the same end
        return trainer.train()


@dataclass(frozen=True)
class Asked:
    """What a run was asked for.

    settings: all of them, checked; chosen: names of those that nobody else may choose; base: the base model, if any;
    engine: what will compute, which is here.
    """

    settings: Settings
    chosen: frozenset[str]
    base: ModelFolder | None
    engine: EngineChoice

    @property
    def base_vocabulary(self) -> Vocabulary | None:
        """The tokens that the new model keeps."""
        return self.base.vocabulary if self.base else None


def _asked(values: Mapping[str, Any], base: str | None) -> Asked:
    """Checks all that can be checked before the text is read, which may take long.

    Raises:
        CharloomError: for a setting, a base model or an engine that cannot be used.
    """
    model = load_model(base) if base else None
    settings = settings_like(model, values) if model else Settings.from_flat(values)
    engine = choose_engine(settings.training, settings.model.cell)
    return Asked(settings, frozenset([*values, *(ModelSettings.model_fields if model else ())]), model, engine)


def _check_parts(run: RunFolder, dataset: Dataset, model: ModelFolder) -> None:
    """Makes sure that an id means the same character in the text and in the model, and that both are of such records.

    Raises:
        ModelError: if not: training would go on, with one character for another, or with records read another way.
    """
    if dataset.vocabulary != model.vocabulary:
        raise ModelError(
            f"{run.folder}: data/dataset.json must have the vocabulary of last/vocabulary.json "
            f"({model.vocabulary.size} tokens); found another one ({dataset.vocabulary.size} tokens); "
            "is the data of another run?"
        )
    text, records = run.settings.text, dataset.vocabulary.separator
    if text.independent == model.keep_order or text.independent > records:
        raise ModelError(
            f"{run.folder}: records and keep_order in run.toml must be as they were when the run began; found records "
            f"{text.records}, keep_order {str(text.keep_order).lower()}"
        )


def _trainer(
    run: RunFolder,
    dataset: Dataset,
    layouts: Layouts,
    state: RunState,
    choice: EngineChoice,
    report: Report,
    stop: Stop,
) -> Trainer:
    """The trainer at this state of the run; reports that training begins."""
    shape = state.model.architecture
    engine = open_engine(choice, shape, run.settings.training)
    trainer = Trainer(engine, layouts, run, state, report, stop)
    started = Started(
        run=str(run.folder),
        engine=engine.description,
        cell=shape.cell,
        layers=shape.layers,
        hidden=shape.hidden,
        parameters=shape.size,
        tokens=shape.vocabulary_size,
        unit=dataset.vocabulary.unit,
        train_tokens=len(dataset.ids("train")),
        validation_tokens=len(dataset.ids("validation")),
        step=state.progress.step,
        resumed=state.progress.step > 0,
    )
    run.log(started)
    report(started)
    return trainer
