"""Beginning a run: fresh, from a model, or from where another stopped."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from charloom.architecture import Architecture
from charloom.checkpoint import Arrays, ModelFolder, load_model
from charloom.config import BUDGETS, Settings, TrainingSettings, validated
from charloom.data.batches import training_batches, validation_batches
from charloom.data.corpus import open_corpus
from charloom.data.dataset import SPLITS, Dataset, open_dataset, prepare
from charloom.data.ids import Ids
from charloom.engines.engine import Engine, choose_engine, open_engine, slower_than_asked
from charloom.engines.initial import initial_parameters
from charloom.errors import ModelError, SettingsError
from charloom.training.budget import Progress
from charloom.training.events import Event, Finished, Notice, Planned, Report, Started
from charloom.training.finetune import adapt, settings_like
from charloom.training.interrupt import prompt_interrupt
from charloom.training.planning import plan, plans
from charloom.training.run_folder import RunFolder
from charloom.training.trainer import Layouts, Trainer

STREAM = 200_000  # tokens; a split of more is measured in several streams, each cold only at its start
MOST_STREAMS = 64
PROMPT_TOKENS = 10_000  # of the validation text, in which a prompt is looked for

Stop = Callable[[], bool]


def start(
    paths: Sequence[str],
    values: Mapping[str, Any],
    out: Path | None,
    origin: str | None,
    report: Report,
    stop: Stop,
) -> Finished:
    """A new run on the text at these paths, to the end of its budget.

    Args:
        paths: as `text.corpus.open_corpus` takes them.
        values: settings by their flat names; the others have their defaults.
        out: the run folder; by default `runs/<corpus>-<n>`.
        origin: a model folder to fine-tune.

    Raises:
        CharloomError: for every mistake that a person can make.
        Interrupted: if asked to stop; everything is saved.
        KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGHUP before the first step; nothing is left behind.
    """
    with ExitStack() as locked:
        with prompt_interrupt():
            trainer = _begin(paths, values, out, origin, report, stop, locked)
        return trainer.train()


def planned(
    paths: Sequence[str], values: Mapping[str, Any], origin: str | None, notice: Callable[[str], None]
) -> Planned:
    """What `start` would choose for the text at these paths; nothing is left behind.

    Raises:
        CharloomError: for every mistake that a person can make.
    """
    base, given, settings = _asked(values, origin)
    if not plans(given, settings):
        raise SettingsError(
            "a plan needs a budget in minutes, streams with a loss at every character, and something left to choose; "
            "otherwise settings are as given, and defaults else"
        )
    corpus = open_corpus(paths, settings.text, notice)
    with TemporaryDirectory(prefix="charloom-") as folder:
        vocabulary = base.vocabulary if base else None
        return plan(
            given, settings, prepare(corpus, settings.text, Path(folder), notice, vocabulary, settings.training.seed)
        )[0]


def _asked(values: Mapping[str, Any], origin: str | None) -> tuple[ModelFolder | None, Mapping[str, Any], Settings]:
    """The model to begin from, what was chosen by it or for the run, and the settings with that; none can be wrong."""
    base = load_model(origin) if origin else None
    given = settings_like(base, values) if base else values
    settings = Settings.from_flat(given)
    choose_engine(settings.training, settings.model.cell)  # before the text is read, which may take long
    return base, given, settings


def _begin(
    paths: Sequence[str],
    values: Mapping[str, Any],
    out: Path | None,
    origin: str | None,
    report: Report,
    stop: Stop,
    locked: ExitStack,
) -> Trainer:
    """Reads the text and makes the run folder, which stays locked as long as `locked` says, and the first model."""
    base, given, settings = _asked(values, origin)
    said: list[Event] = []

    def say(event: Event) -> None:
        said.append(event)
        report(event)

    def notice(text: str) -> None:
        say(Notice(text))

    if slower := slower_than_asked(settings.training, settings.model.cell):
        notice(slower)
    corpus = open_corpus(paths, settings.text, notice)
    source = {"paths": list(paths), "charloom": version("charloom")} | ({"from": origin} if origin else {})
    run = locked.enter_context(RunFolder.create(out, corpus.name, settings, source))
    with run.abandoned_on_error():
        run.save_settings()
        seed = settings.training.seed
        dataset = prepare(corpus, settings.text, run.data, notice, base.vocabulary if base else None, seed)
        if plans(given, settings):
            choices, run.settings = plan(given, settings, dataset)
            say(choices)
            run.save_settings()
        model = _fresh(run, corpus.name, dataset)
        if base:
            model = adapt(base, model, notice)
        return _trainer(run, dataset, model, Progress(), None, report, stop, notice, said)


def resume(folder: Path, budgets: Mapping[str, Any], report: Report, stop: Stop) -> Finished:
    """Goes on with a run, exactly as if it had never stopped.

    Args:
        folder: the run folder.
        budgets: minutes, epochs or steps to replace the run's own with; empty for none.

    Raises:
        CharloomError: if the folder is not a run, is damaged, or another process trains it.
    """
    with RunFolder.open(folder) as run:
        with prompt_interrupt():
            trainer = _resumed(run, budgets, report, stop)
        return trainer.train()


def _resumed(run: RunFolder, budgets: Mapping[str, Any], report: Report, stop: Stop) -> Trainer:
    """Reads what the run left, and its budget if that is a new one."""
    if budgets:
        training = run.settings.training.model_dump() | dict.fromkeys(BUDGETS) | dict(budgets)
        run.settings = run.settings.model_copy(update={"training": validated(TrainingSettings, training)})
    model, progress, arrays = run.load_last()
    if progress.best_nats is not None:
        load_model(run.folder / "best")  # as at the end: damage to it should not wait until all training is done
    dataset = open_dataset(run.data)
    _check_parts(run, dataset, model)
    trainer = _trainer(run, dataset, model, progress, arrays, report, stop)
    if budgets:
        run.save_settings()  # so that the next --resume goes on to the same end
    return trainer


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


def _fresh(run: RunFolder, corpus: str, dataset: Dataset) -> ModelFolder:
    """The model that training begins with."""
    settings = run.settings
    architecture = Architecture.of(settings.model, dataset.vocabulary.size)
    return ModelFolder(
        architecture,
        dataset.vocabulary,
        initial_parameters(architecture, settings.training.seed),
        settings.text.cleaning,
        settings.text.records,
        _metadata(run, corpus, dataset),
        keep_order=not settings.text.independent,
    )


def _trainer(
    run: RunFolder,
    dataset: Dataset,
    model: ModelFolder,
    progress: Progress,
    arrays: Arrays | None,
    report: Report,
    stop: Stop,
    notice: Callable[[str], None] = lambda _: None,
    said: Sequence[Event] = (),
) -> Trainer:
    """Builds what training needs, and reports that it begins.

    notice, said: where the layout's notices go (a resumed run has shown them), and all of them, for the log.
    """
    settings = run.settings
    layouts = _layouts(dataset, settings, notice)
    batches = len(layouts.training)
    if progress.index >= batches:
        raise ModelError(f"resume.json: index must be below {batches}, the batches; found {progress.index}")
    choice = choose_engine(settings.training, settings.model.cell)
    engine = open_engine(choice, model.architecture, settings.training, settings.training.dropout)
    engine.load(model.parameters)
    state = (
        engine.restore(arrays, layouts.training.carried(progress.epoch, progress.index)) if arrays is not None else None
    )
    started = _started(run, dataset, model, engine, progress)
    for event in (*said, started):
        progress.log_bytes = run.log(event)
    report(started)
    return Trainer(engine, layouts, run, model, progress, state, report, stop)


def _layouts(dataset: Dataset, settings: Settings, notice: Callable[[str], None]) -> Layouts:
    laid = dataset.vocabulary.separator_id, settings.training, settings.text.independent
    train, validation, test = (dataset.ids(name) for name in SPLITS)
    quick = validation_batches(validation, *laid, MOST_STREAMS)
    return Layouts(
        training_batches(train, *laid, notice),
        quick,
        quick if settings.text.independent else validation_batches(validation, *laid, _streams(validation)),
        validation_batches(test, *laid, _streams(test)),
        validation_batches(train, *laid, MOST_STREAMS),
    )


def _streams(ids: Ids) -> int:
    return max(1, min(MOST_STREAMS, len(ids) // STREAM))


def _metadata(run: RunFolder, corpus: str, dataset: Dataset) -> dict[str, Any]:
    """Where the model comes from, and a prompt to try, for people."""
    prompt = _suggested(dataset)
    return ({"prompt": prompt} if prompt else {}) | {
        "corpus": corpus,
        "characters": dataset.characters,
        "sha256": dataset.sha256,
        "split": run.settings.text.split,
        "run": str(run.folder),
    }


def _suggested(dataset: Dataset) -> str | None:
    """The beginning of a validation line, cut at a word: something that this model knows and did not learn.

    The first line with a clean one: it begins with a letter or digit (`@` names a file) and holds no unknown token.
    """
    text = dataset.vocabulary.decode(dataset.ids("validation").view()[:PROMPT_TOKENS])
    for line in text.splitlines()[1:]:  # the first may begin within a word
        found = re.match(r"(?:\S.{0,18}\S|\S)(?!\S)|\S{2,10}", line.lstrip())
        if found and found[0].isprintable() and found[0][0].isalnum() and not {*found[0]} & {*"\ufffd`"}:
            return found[0]
    return None


def _started(run: RunFolder, dataset: Dataset, model: ModelFolder, engine: Engine, progress: Progress) -> Started:
    a = model.architecture
    return Started(
        str(run.folder),
        engine.description,
        a.cell,
        a.layers,
        a.hidden,
        a.size,
        a.vocabulary_size,
        dataset.vocabulary.unit,
        len(dataset.ids("train")),
        len(dataset.ids("validation")),
        progress.step,
        progress.step > 0,
    )
