"""The model at the first step of a new run: initial parameters, the vocabulary of its text, and metadata."""

from __future__ import annotations

import re
from typing import Any

from charloom.architecture import Architecture
from charloom.checkpoint import ModelFolder
from charloom.data.dataset import Dataset
from charloom.engines.initial import initial_parameters
from charloom.training.run_folder import RunFolder

PROMPT_TOKENS = 10_000  # the first tokens of the validation text, in which a prompt is searched


def first_model(run: RunFolder, corpus: str, dataset: Dataset) -> ModelFolder:
    """A model for this dataset by the run's settings; `corpus` is the name of the text."""
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


def _metadata(run: RunFolder, corpus: str, dataset: Dataset) -> dict[str, Any]:
    """The metadata for people: the training text, and a prompt to try."""
    prompt = _suggested_prompt(dataset)
    return ({"prompt": prompt} if prompt else {}) | {
        "corpus": corpus,
        "characters": dataset.characters,
        "sha256": dataset.sha256,
        "split": _split(run, dataset),
        "run": str(run.folder),
        **{name: value for name, value in run.source.items() if name == "base_model"},
    }


def _split(run: RunFolder, dataset: Dataset) -> str:
    """The sizes of the splits as the user gave them; else their tokens."""
    split = run.settings.text.split
    return split if split != "auto" else "/".join(str(stop - start) for start, stop in dataset.bounds.values())


def _suggested_prompt(dataset: Dataset) -> str | None:
    """The beginning of a validation line, cut at the end of a word. The model knows such text, but did not train on it.

    It begins with a letter or digit, because `@` names a file. It has no unknown token. The first such line counts.
    """
    text = dataset.vocabulary.decode(dataset.ids("validation").view()[:PROMPT_TOKENS])
    for line in text.splitlines()[1:]:  # the first line may begin within a word
        found = re.match(r"(?:\S.{0,18}\S|\S)(?!\S)|\S{2,10}", line.lstrip())
        if found and found[0].isprintable() and found[0][0].isalnum() and not {*found[0]} & {*"\ufffd`"}:
            return found[0]
    return None
