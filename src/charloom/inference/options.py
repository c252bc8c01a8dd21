"""Everything that can be asked of a generated text: names, ranges and defaults, checked at the call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from pydantic import Field, field_validator

from charloom.config import MOST_THREADS
from charloom.data.vocabulary import UnknownPolicy
from charloom.inference.backend import Precision
from charloom.inference.sampling import Sampling

MOST_STOP = 100_000
"""Characters of all stop strings together: their automaton takes 30 MB then."""


class GenerationOptions(Sampling):
    """Everything that can be asked of a generated text."""

    length: int | None = Field(None, ge=0, description="characters; 1,000 where None and no records are asked for")
    records: int | None = Field(None, ge=1, description="whole records, of a model trained on records")
    stop: tuple[str, ...] = Field((), description="end before the first of these strings")
    seed: int | None = Field(None, ge=0, lt=2**63, description="of the random stream; None draws one")
    index: int = Field(0, ge=0, lt=2**63, description="which of a seed's texts: text k of many has index + k")
    unknown: UnknownPolicy = Field("error", description="what to do with a prompt's unknown characters")
    precision: Precision = Field("auto", description="of the arithmetic: auto, fp32, bf16 or int8")
    threads: int | None = Field(None, ge=1, le=MOST_THREADS, description="CPU threads; None is all cores")

    @field_validator("stop", mode="before")
    @classmethod
    def _stop(cls, value: Any) -> Any:
        value = (value,) if isinstance(value, str) else value
        if isinstance(value, Sequence | set | frozenset) and "" in value:
            raise ValueError("a stop string must hold at least one character; found an empty one")
        return () if value is None else value

    @field_validator("stop")
    @classmethod
    def _bounded(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if (characters := sum(map(len, stop))) > MOST_STOP:
            raise ValueError(
                f"stop strings must have at most {MOST_STOP:,} characters together; got {len(stop):,} of {characters:,}"
            )
        return stop


class RequestOptions(TypedDict, total=False):
    """The keywords of `Model.request`; `GenerationOptions` says what each does."""

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
