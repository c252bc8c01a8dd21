"""From a user's prompts and options to requests, checked when the call is made."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from charloom.config import RecordKind
from charloom.data.tokenizer import Tokenizer
from charloom.errors import SettingsError
from charloom.inference.detokenizer import SEPARATOR_TEXTS
from charloom.inference.options import MOST_SEQUENCES, Count, GenerationOptions
from charloom.inference.request import Request
from charloom.inference.sampling import Sampling
from charloom.inference.stop_strings import StopStrings
from charloom.validation import validated

LENGTH = 1000
"""Characters to generate if neither a length nor a number of records is given: about half a printed page."""

MOST_LENGTH = 10**9
"""Most characters that one call of `Model.generate` or `generate_many` returns: it keeps them in memory."""

MOST_LOGPROBS = 100
"""Most log-probabilities for each token."""


Prompt = str | Sequence[int]
"""A prompt: text, or token ids."""


@dataclass(frozen=True)
class RequestBuilder:
    """Makes the requests to one model. tokenizer: the model's; records: the kind of record that it was trained on."""

    tokenizer: Tokenizer
    records: RecordKind

    def options(self, length: int | None, options: Mapping[str, Any]) -> GenerationOptions:
        """Checked options, always with a seed.

        Raises:
            SettingsError: if an option is out of range, or records are asked of a model without a record separator.
        """
        asked = validated(GenerationOptions, {"length": length, **options})
        if asked.records is not None and self.tokenizer.vocabulary.separator_id is None:
            raise SettingsError(
                "`records` needs a model that was trained on records, for example with `records='line'`; "
                "this one was not; give `length` or `stop` instead"
            )
        return asked.model_copy(update={"seed": secrets.randbits(63) if asked.seed is None else asked.seed})

    def one(self, prompt: Prompt, asked: GenerationOptions, logprobs: int | None = None) -> Request:
        """The request for one text. `logprobs` may exceed the vocabulary size.

        Raises:
            SettingsError: if `logprobs` is out of range, or the prompt is neither a string nor token ids.
            UnknownCharacterError: if the prompt has a character that the model does not know.
        """
        assert asked.seed is not None
        if logprobs is not None and not (type(logprobs) is int and 0 <= logprobs <= MOST_LOGPROBS):
            raise SettingsError(f"`logprobs` must be a whole number from 0 to {MOST_LOGPROBS}; got {logprobs!r}")
        return Request(
            prompt_T=self.tokenizer.prompt(prompt, asked.unknown),
            sampling=Sampling.model_construct(**{name: getattr(asked, name) for name in Sampling.model_fields}),
            seed=asked.seed,
            index=asked.index,
            length=LENGTH if asked.length is None and asked.records is None else asked.length,
            records=asked.records,
            stop=StopStrings(asked.stop),
            separator_text=SEPARATOR_TEXTS[self.records],
            logprobs=None if logprobs is None else min(logprobs, self.tokenizer.vocabulary.size),
        )

    def many(
        self, count: int, prompt: Prompt | Iterable[Prompt], asked: GenerationOptions, logprobs: int | None = None
    ) -> list[Request]:
        """`count` requests for each prompt, in the order of the prompts. Each request has its own index.

        Raises:
            SettingsError: if there are too many texts or none, or an index is out of range.
            UnknownCharacterError: if a prompt has a character that the model does not know.
        """
        if not (prompts := _listed(prompt)):
            raise SettingsError("`prompt` must be a string or a list with at least one string; got an empty list")
        count = validated(Count, {"count": count}).count
        if count * len(prompts) > MOST_SEQUENCES:
            raise SettingsError(
                f"`count` must give at most {MOST_SEQUENCES:,} texts in one call; got {count} for each of "
                f"{len(prompts)} prompts"
            )
        if asked.index + count * len(prompts) > 2**63:
            raise SettingsError(
                f"`index` must be below 2^63 for each of {count * len(prompts)} texts; got {asked.index} for the first"
            )
        first = self.one(prompts[0], asked, logprobs)
        prompts_T = [self.tokenizer.prompt(each, asked.unknown) for each in prompts]
        return [
            replace(first, prompt_T=prompts_T[k // count], index=asked.index + k) for k in range(count * len(prompts))
        ]


def _listed(prompt: object) -> list[Any]:
    """The prompts of a call. A value that is neither a string nor a list is one prompt, which the tokenizer rejects."""
    return [*prompt] if isinstance(prompt, Iterable) and not isinstance(prompt, str | bytes) else [prompt]


def check_memory(asked: GenerationOptions, count: int) -> None:
    """Checks that `count` texts fit in memory.

    Raises:
        SettingsError: for more than `MOST_LENGTH` characters.
    """
    if asked.length is not None and count * asked.length > MOST_LENGTH:
        raise SettingsError(
            f"`length` must be at most {MOST_LENGTH:,} characters for all texts together; got "
            f"{count * asked.length:,}; `Model.stream` has no such limit"
        )
