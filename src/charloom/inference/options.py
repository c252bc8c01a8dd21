"""All options of generation: names, ranges and defaults, checked when the call is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

from pydantic import Field, field_validator

from charloom.config import MOST_THREADS, Section
from charloom.data.vocabulary import UnknownPolicy
from charloom.inference.backend import Precision
from charloom.inference.sampling import Sampling

MOST_STOP = 100_000
"""Most characters of all stop strings together: their automaton then takes 30 MB."""

MOST_SEQUENCES = 100_000
"""Most sequences of one call of `Model.generate_many`."""


class GenerationOptions(Sampling):
    """All options of generation."""

    length: int | None = Field(None, ge=0, description="characters to generate  [1,000; with `records` no limit]")
    records: int | None = Field(
        None, ge=1, description="generate N whole records, with a model that was trained on records"
    )
    stop: tuple[str, ...] = Field((), description="end before this text; may be given several times")
    seed: int | None = Field(None, ge=0, lt=2**63, description="the same seed gives the same text  [random]")
    index: int = Field(
        0, ge=0, lt=2**63, description="number of the text among those of a seed; text k of `count` has index + k"
    )
    unknown: UnknownPolicy = Field(
        "error", description="characters of a prompt that the model does not know: an error, left out, or replaced"
    )
    precision: Precision = Field(
        "auto", description="number format of the weights; bf16 and int8 are faster and give another text; auto: fp32"
    )
    threads: int | None = Field(
        None, ge=1, le=MOST_THREADS, description="number of CPU threads at most; the text is the same  [all cores]"
    )

    @field_validator("stop", mode="before")
    @classmethod
    def _stop(cls, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return () if value is None else (value,)
        if isinstance(value, bytes) or not isinstance(value, Iterable):
            raise ValueError(f"`stop` must be a string or a list of strings; got {value!r}")
        return tuple(value)

    @field_validator("stop")
    @classmethod
    def _bounded(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if "" in stop:
            raise ValueError("`stop` must not contain an empty string; leave it out")
        if (characters := sum(map(len, stop))) > MOST_STOP:
            raise ValueError(
                f"`stop` must have at most {MOST_STOP:,} characters in all its strings; got {characters:,} in "
                f"{len(stop):,} strings"
            )
        return stop


class Count(Section):
    """The number of texts."""

    count: int = Field(1, ge=1, le=MOST_SEQUENCES, description="texts after each prompt")


class RequestOptions(TypedDict, total=False):
    """The keywords of `Model.request`. `GenerationOptions` explains each."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    greedy: bool
    repetition_penalty: float
    repetition_window: int
    no_repeat_ngram_size: int | None
    records: int | None
    stop: str | Sequence[str]
    seed: int | None
    index: int
    unknown: UnknownPolicy


class Options(RequestOptions, total=False):
    """The keywords of `Model.stream`, `generate` and `generate_many`."""

    precision: Precision
    threads: int | None
