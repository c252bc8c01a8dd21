"""The two ways to start training: a new run, and a resumed run.

Each is one function, read from top to bottom: settings, engine, corpus, run folder, dataset, layouts, plan, model,
trainer. A resumed run reads the same parts from its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from charloom.checkpoint import ModelFolder, load_model
from charloom.config import BUDGETS, ModelSettings, Settings
from charloom.data.corpus import Corpus, open_corpus
from charloom.data.dataset import Dataset, open_dataset, prepare
from charloom.data.sources import without_secrets
from charloom.data.texts import Texts
from charloom.data.vocabulary import Vocabulary
from charloom.engines.engine import Engine, EngineChoice, choose_engine, slower_than_asked
from charloom.engines.shared import check_processes, open_for
from charloom.errors import ModelError, SettingsError
from charloom.training.events import Event, EventHandler, Finished, Notice, Planned, Started
from charloom.training.finetune import adapt, settings_like
from charloom.training.first_model import first_model
from charloom.training.layouts import Layouts, training_layout
from charloom.training.planning import plan, why_no_plan
from charloom.training.run_folder import RunFolder, RunState, has_checkpoint, remove_unbegun
from charloom.training.trainer import Trainer

if TYPE_CHECKING:
    from charloom.engines.torch.processes import Processes

Stop = Callable[[], bool]
TextSource = Sequence[str] | Texts
"""Paths, as `data.corpus.open_corpus` takes them, or texts in memory."""


def start(
    source: TextSource,
    values: Mapping[str, Any],
    out: Path | None,
    base_model: str | None,
    report: EventHandler,
    stop: Stop,
    name: str | None = None,
    processes: Processes | None = None,
) -> Finished:
    """Trains a new run on a text, to the end of its budget.

    Args:
        source: the text.
        values: settings by their flat names; all others have their defaults.
        out: the run folder; by default `runs/<corpus>-<n>`.
        base_model: the folder of a model to fine-tune.
        report, stop: called with every event; called after every step: true saves everything and ends the run.
        name: of the text, for the model's metadata and the default of `out`; by default that of the first path.
        processes: the group of processes that train together, of which this is the first; None if it is alone.

    Raises:
        CharloomError: for every mistake that a person can make.
        Interrupted: if `stop` returned true; everything is saved.
        KeyboardInterrupt: on Ctrl-C; after the first step the run can be resumed from its last checkpoint.
    """
    events: list[Event] = []  # for the log; the first events come before the run folder exists

    def tell(event: Event) -> None:
        events.append(event)
        report(event)

    request = _run_request(values, base_model, tell)
    check_processes(processes, request.engine, request.settings.training)
    corpus = open_corpus(source, request.settings.text, lambda text: tell(Notice(text)))
    corpus = replace(corpus, name=name or corpus.name)
    about = _about(source, base_model)
    with RunFolder.create(out, corpus.name, request.settings, about) as run, run.abandoned_on_error():
        with run.writing():
            dataset, layouts, model = _prepared(run, corpus, request, tell, processes)
            for event in events:
                run.log(event)
            engine = open_for(processes, request.engine, model.architecture, run.settings.training)
            state = RunState(model)
            trainer = Trainer(engine, layouts, run, state, report, stop)
        _report_start(run, engine, dataset, state, report)
        return trainer.train()


def _about(source: TextSource, base_model: str | None) -> dict[str, Any]:
    """What `run.toml` says about a run beside its settings; for people."""
    text = (
        {"texts": len(source.strings)}
        if isinstance(source, Texts)
        else {"paths": [without_secrets(str(path)) for path in source]}
    )
    return {**text, "charloom": version("charloom")} | ({"base_model": base_model} if base_model else {})


def _prepared(
    run: RunFolder, corpus: Corpus, request: RunRequest, tell: Callable[[Event], None], processes: Processes | None
) -> tuple[Dataset, Layouts, ModelFolder]:
    """Reads the text into the run folder, and plans what the user did not set. The model is that of step 0."""

    def notice(text: str) -> None:
        tell(Notice(text))

    run.save_settings()
    settings = run.settings
    dataset = prepare(corpus, settings.text, run.data, notice, request.base_vocabulary, settings.training.seed)
    layouts = Layouts.of(dataset, settings, notice)
    if why_no_plan(request.chosen, settings) is None:
        planned, run.settings = plan(request.chosen, settings, dataset, layouts.training, processes)
        tell(planned)
        run.save_settings()
    model = first_model(run, corpus.name, dataset)
    return dataset, layouts, adapt(request.base, model, notice) if request.base else model


def plan_only(source: TextSource, values: Mapping[str, Any], base_model: str | None, report: EventHandler) -> Planned:
    """The settings that `start` would plan for this text; no file stays.

    Raises:
        CharloomError: for every mistake that a person can make.
    """

    def notice(text: str) -> None:
        report(Notice(text))

    request = _run_request(values, base_model, report)
    settings = request.settings
    if missing := why_no_plan(request.chosen, settings):
        raise SettingsError(f"a plan needs {missing}")
    corpus = open_corpus(source, settings.text, notice)
    with TemporaryDirectory(prefix="charloom-") as folder:
        dataset = prepare(corpus, settings.text, Path(folder), notice, request.base_vocabulary, settings.training.seed)
        return plan(request.chosen, settings, dataset, training_layout(dataset, settings, notice))[0]


def resume(
    folder: Path,
    budgets: Mapping[str, Any],
    report: EventHandler,
    stop: Stop,
    processes: Processes | None = None,
) -> Finished:
    """Resumes a run, exactly as if it had never stopped.

    Args:
        folder: the run folder.
        budgets: minutes, epochs or steps that replace those of the run; empty: they stay.
        report, stop, processes: as `start` takes them.

    Raises:
        CharloomError: if the folder is not a run, is damaged, or another process trains it.
        Interrupted: if `stop` returned true; everything is saved.
    """
    with RunFolder.open(folder) as run:
        run.settings = run.settings.replaced(budgets)
        state = run.load_last()
        if state.progress.best_nats is not None:
            load_model(run.folder / "best")  # finds damage now, not after all of the training
        dataset = open_dataset(run.data)
        _check_parts(run, dataset, state.model)
        layouts = Layouts.of(dataset, run.settings, lambda _: None)  # the notices were shown when the run began
        if state.progress.index >= len(layouts.training):
            found = f"below {len(layouts.training)}, the batches; found {state.progress.index}"
            raise ModelError(f"resume.json: index must be {found}")
        choice = choose_engine(run.settings.training, run.settings.model.cell)
        check_processes(processes, choice, run.settings.training)
        engine = open_for(processes, choice, state.model.architecture, run.settings.training)
        trainer = Trainer(engine, layouts, run, state, report, stop)
        if budgets:
            run.save_settings()  # the next resume has the same end
        _report_start(run, engine, dataset, state, report)
        return trainer.train()


def resume_or_start(
    source: TextSource,
    values: Mapping[str, Any],
    out: Path,
    base_model: str | None,
    report: EventHandler,
    stop: Stop,
    processes: Processes | None = None,
) -> Finished:
    """Resumes the run in the folder `out` if it has a checkpoint, else starts one there. The arguments are those of
    `start`; a resumed run takes only the budget from `values`.

    Raises:
        CharloomError: as `start` and `resume`; also if `out` has files that are not of a run.
    """
    if has_checkpoint(out):
        return resume(out, {name: values[name] for name in BUDGETS if name in values}, report, stop, processes)
    remove_unbegun(out)
    return start(source, values, out, base_model, report, stop, processes=processes)


def _report_start(run: RunFolder, engine: Engine, dataset: Dataset, state: RunState, report: EventHandler) -> None:
    """Reports that training begins, and logs it."""
    sizes = state.model.architecture
    started = Started(
        run=str(run.folder),
        engine=engine.description,
        cell=sizes.cell,
        layers=sizes.layers,
        hidden=sizes.hidden,
        parameters=sizes.size,
        tokens=sizes.vocabulary_size,
        unit=dataset.vocabulary.unit,
        train_tokens=len(dataset.ids("train")),
        validation_tokens=len(dataset.ids("validation")),
        step=state.progress.step,
        resumed=state.progress.step > 0,
    )
    run.log(started)
    report(started)


@dataclass(frozen=True)
class RunRequest:
    """The checked request for a run.

    settings: all of them, checked; chosen: names of the settings that the plan must not change; base: the base model or
    None; engine: the engine that will train; it is available.
    """

    settings: Settings
    chosen: frozenset[str]
    base: ModelFolder | None
    engine: EngineChoice

    @property
    def base_vocabulary(self) -> Vocabulary | None:
        """The vocabulary whose tokens the new model keeps."""
        return self.base.vocabulary if self.base else None


def _run_request(values: Mapping[str, Any], base_model: str | None, report: EventHandler) -> RunRequest:
    """Checks all that can be checked before the text is read, because reading may take long. Reports a slow engine.

    Raises:
        CharloomError: for a setting, a base model or an engine that cannot be used.
    """
    model = load_model(base_model) if base_model else None
    settings = settings_like(model, values) if model else Settings.from_flat(values)
    engine = choose_engine(settings.training, settings.model.cell)
    if slower := slower_than_asked(settings.training, settings.model.cell):
        report(Notice(slower))
    return RunRequest(settings, frozenset([*values, *(ModelSettings.model_fields if model else ())]), model, engine)


def _check_parts(run: RunFolder, dataset: Dataset, model: ModelFolder) -> None:
    """Checks that the text and the model have the same vocabulary and the same kind of records.

    Raises:
        ModelError: if they do not. Training would then confuse characters, or read records in another way.
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
