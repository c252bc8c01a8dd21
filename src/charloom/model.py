"""A trained model that generates and scores text: what `charloom.load(path)` returns.

    model = Model.load("runs/alice-1/best")
    for chunk in model.stream("Alice was", length=500, seed=1):
        print(chunk, end="", flush=True)

Everything that generates goes through a `Scheduler` (`charloom.inference`). The recurrent state is carried, so the time
of a character and the memory do not grow with the length.

Shapes: B rows, T steps, V vocabulary size.
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

from charloom.architecture import Architecture
from charloom.checkpoint import ModelFolder, load_model
from charloom.data.tokenizer import Tokenizer
from charloom.data.vocabulary import UnknownPolicy, Vocabulary
from charloom.errors import ModelError, SettingsError
from charloom.inference.backend import Precision, open_backend
from charloom.inference.detokenizer import SEPARATOR_TEXTS
from charloom.inference.options import MOST_SEQUENCES, Count, GenerationOptions, Options, RequestOptions
from charloom.inference.request import Request
from charloom.inference.rows import Backend
from charloom.inference.sampling import Sampling
from charloom.inference.scheduler import SLOTS, Scheduler
from charloom.inference.sequence import Output
from charloom.inference.stop_strings import StopStrings
from charloom.inference.weights import InferenceWeights
from charloom.score import Score
from charloom.validation import validated

if TYPE_CHECKING:
    from charloom.data.corpus import AnyPath
    from charloom.evaluation.engine import EnginePool
    from charloom.evaluation.report import Report
    from charloom.evaluation.text import FileOptions
    from charloom.trace import Trace

LENGTH = 1000
"""Characters generated where neither a length nor a number of records is asked for: about half a printed page."""

MOST_LENGTH = 10**9
"""Most characters that `generate` and `generate_many` return in all: they hold them in memory."""

MANY_SLOTS = 256
"""Sequences that `generate_many` has at work at once: with more, a step is not faster for each."""

MOST_LOGPROBS = 100
"""Most log-probabilities for each token."""

TRACED = 256
"""Steps in a chunk of a trace: 6 MB for two layers of 512 units."""


class Model:
    """A network, its vocabulary, and how its text was prepared. Threads may share one: nothing in it changes. Its
    weights are packed for the kernels when it first generates.

    Args:
        folder: the content of a model folder, read or made in memory. Its parameters are copied when the model first
            generates.

    Raises:
        ModelError: if the vocabulary does not fit the network.
    """

    def __init__(self, folder: ModelFolder) -> None:
        if folder.vocabulary.size != folder.architecture.vocabulary_size:
            raise ModelError(
                "a model's vocabulary must have as many tokens as its network, "
                f"{folder.architecture.vocabulary_size}; found {folder.vocabulary.size}"
            )
        self.folder = folder
        self.tokenizer = Tokenizer(folder.vocabulary, folder.cleaning)
        self._backends: dict[Precision, Backend] = {}

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Model:
        """The model in a model folder.

        Raises:
            ModelError: for a folder that is missing, damaged, from the future, or not a model.
        """
        return Model(load_model(path))

    @property
    def architecture(self) -> Architecture:
        """Sizes and kinds of the network."""
        return self.folder.architecture

    @property
    def vocabulary(self) -> Vocabulary:
        """Its tokens."""
        return self.folder.vocabulary

    @property
    def metadata(self) -> dict[str, Any]:
        """Where the model comes from, for people."""
        return self.folder.metadata

    @property
    def provenance(self) -> dict[str, Any]:
        """The earlier name of `metadata`."""
        warnings.warn("Model.provenance is now Model.metadata", DeprecationWarning, stacklevel=2)
        return self.metadata

    @cached_property
    def weights(self) -> InferenceWeights:
        """What the backends compute with."""
        return InferenceWeights(self.architecture, self.folder.parameters, self.folder.reset_id)

    def stream(self, prompt: str = "", length: int | None = None, **options: Unpack[Options]) -> Iterator[str]:
        """What follows the prompt, in chunks as they are made; the prompt itself is not among them.

        The prompt is cleaned as the training text was. A model of records takes it as the beginning of a record: it
        always reads a separator first, and never generates an empty record. Without a prompt, any other model starts
        after a newline if it knows one, else with a character drawn evenly from all, which is also the first one given.

        Args:
            prompt: what to continue.
            length: exactly so many characters (not tokens), separators between records included; None is 1,000, or
                no limit where `records` is given. Of a model of binary data (trained with `binary=True`), a byte that
                is no UTF-8 is one character, a surrogate escape: `text.encode("utf-8", "surrogateescape")` gives the
                bytes. Prompts and stop strings may hold such escapes.
            options: `temperature` (default 0.8), `top_k`, `top_p`, `min_p`, `greedy`, `repetition_penalty` over the
                last `repetition_window` tokens, `no_repeat_ngram_size`: see `Sampling`. `seed`: the same seed gives the
                same text, alone, streamed or among others. `index`: another text of the same seed.
                `stop`: ends before the first of these strings, of which nothing is given. `records`: ends after so
                many whole records; between two of them stands a newline, a space for sentences, or a blank line for
                paragraphs and files; each begins from the zero state or goes on from the one before, as in training
                (`keep_order`). `unknown`: `error`, `skip` or `replace`. `precision`: `fp32`, or `bf16` or `int8`, which
                are faster and give another text; `auto` is `charloom.inference.backend.AUTO`. `threads`: at most so
                many; the text is the same.

        Raises:
            SettingsError: for an option out of range; at the call, not at the first chunk, as the others.
            UnknownCharacterError: for a character of the prompt that the model does not know.
            ModelError: while generating, if no token can be chosen.
        """
        return self._stream(prompt, self._options(length, options))

    def generate(self, prompt: str = "", length: int | None = None, **options: Unpack[Options]) -> str:
        """What follows the prompt, at once: arguments and errors of `stream`; at most 10^9 characters."""
        asked = self._options(length, options)
        _check_length(asked, 1)
        return "".join(self._stream(prompt, asked))

    def generate_many(
        self, count: int, prompt: str | Sequence[str] = "", length: int | None = None, **options: Unpack[Options]
    ) -> list[str]:
        """So many texts after a prompt, or after each of several, side by side: arguments and errors of `stream`.

        Text k is what `generate` gives with the same seed and `index=index + k`; first come those of the first prompt.
        """
        asked = self._options(length, options)
        requests = self._requests(count, prompt, asked)
        _check_length(asked, len(requests))
        texts: list[list[str]] = [[] for _ in requests]
        for number, output in self.run(requests, asked.precision, asked.threads, min(len(requests), MANY_SLOTS)):
            texts[number].append(output.text)
        return ["".join(chunks) for chunks in texts]

    def requests(
        self,
        count: int,
        prompt: str | Sequence[str] = "",
        length: int | None = None,
        **options: Unpack[RequestOptions],
    ) -> list[Request]:
        """The requests of `generate_many`, in its order."""
        return self._requests(count, prompt, self._options(length, dict(options)))

    def request(
        self,
        prompt: str = "",
        length: int | None = None,
        logprobs: int | None = None,
        **options: Unpack[RequestOptions],
    ) -> Request:
        """What `run` and a scheduler take: arguments and errors of `stream`.

        Args:
            prompt: what to continue.
            length: characters.
            logprobs: log-probabilities of so many tokens beside that of each generated one, at most 100 and at most as
                many as the vocabulary has; None for none at all.
            options: see `stream`.
        """
        if logprobs is not None and not (type(logprobs) is int and 0 <= logprobs <= MOST_LOGPROBS):
            raise SettingsError(f"`logprobs` must be a whole number from 0 to {MOST_LOGPROBS}; got {logprobs!r}")
        request = self._request(prompt, self._options(length, dict(options)))
        return replace(request, logprobs=None if logprobs is None else min(logprobs, self.vocabulary.size))

    def run(
        self,
        requests: Iterable[Request],
        precision: Precision = "auto",
        threads: int | None = None,
        slots: int = SLOTS,
    ) -> Iterator[tuple[int, Output]]:
        """Generates all of these, so many side by side: pairs of a request's number, from 0, and its next output.

        Raises:
            SettingsError: for a precision that this model or machine does not have; at the call.
            ModelError: if no token can be chosen for one of them.
        """
        return self.scheduler(precision, threads, slots).run(iter(requests))

    def scheduler(self, precision: Precision = "auto", threads: int | None = None, slots: int = SLOTS) -> Scheduler:
        """A scheduler of its own for requests to this model.

        Raises:
            SettingsError: for a precision that this model or machine does not have.
        """
        asked = validated(GenerationOptions, {"precision": precision, "threads": threads})
        return Scheduler(self._backend(asked.precision, asked.threads), self.vocabulary, slots)

    def score(self, text: str, unknown: UnknownPolicy = "error") -> Score:
        """How well the model predicts a text: every character after the first once, the state carried from its start,
        or, where records are independent, from the start of each.

        A model of records reads a separator first and so predicts the first character too; separators inside the text
        (`charloom.data.vocabulary.RECORD_SEPARATOR`) are predicted as characters. Memory does not grow but for the ids.

        Raises:
            TextError: for a text too short to predict anything in.
            UnknownCharacterError: for a character that the model does not know.
        """
        from charloom.evaluation import static
        from charloom.evaluation.text import encoded

        with self._engines.borrowed() as engine:
            return static.score(engine, encoded(self.folder, text, unknown), self.folder.reset_id)

    def evaluate(
        self,
        text: str | None = None,
        *,
        paths: AnyPath | Sequence[AnyPath] | None = None,
        dynamic: bool = False,
        windows: int | None = None,
        baselines: bool = True,
        unknown: UnknownPolicy | None = None,
        **options: Unpack[FileOptions],
    ) -> Report:
        """What `charloom eval` prints: the score of a text beside what compressors need for it.

        Args:
            text: what to predict. Without `text` and `paths`, it is the validation split of the run that the model
                was loaded from.
            paths: files to predict in place of a text, or anything else that `charloom.train` reads.
            dynamic: also with a model that learns from each part of the text after it was scored.
            windows: also in windows of so many tokens, each from the zero state.
            baselines: also xz and PPMd, primed with the training text if the model was loaded from a run. They take
                about 4 seconds for each megabyte.
            unknown: as in `score`.
            options: of files: `encoding`, `errors` and `field`, as in `charloom.train`.

        Raises:
            SettingsError: without a text, if the model was not loaded from a run; for `windows` out of range.
            TextError: for a text that cannot be read, or is too short to predict anything in.
            UnknownCharacterError: for a character that the model does not know.
        """
        from charloom.evaluation.report import evaluate
        from charloom.evaluation.text import evaluation_text

        found = evaluation_text(self.folder, text, paths, warnings.warn, unknown, **options)
        return evaluate(self.folder, found, dynamic, windows, baselines)

    def adapt(self, text: str, unknown: UnknownPolicy = "error") -> Model:
        """A model that has learnt from a text by reading it once, as in dynamic evaluation; this one stays as it is.

        Arguments and errors are those of `score`.
        """
        from charloom.evaluation.dynamic import adapted
        from charloom.evaluation.text import encoded

        return Model(adapted(self.folder, encoded(self.folder, text, unknown).ids_T))

    @cached_property
    def _engines(self) -> EnginePool:
        """What scores texts; imported when it is needed, because it costs start-up time."""
        from charloom.evaluation.engine import EnginePool

        return EnginePool(self.folder)

    def trace(
        self,
        text: str,
        *,
        gradients_of: int | None = None,
        window: int | None = None,
        unknown: UnknownPolicy = "error",
    ) -> Trace:
        """What the network computes at every step while it reads a text: gates, states, logits and probabilities of
        every layer, as named arrays.

        Step t reads token t and predicts token t + 1. A token is a character or, for a byte-level model, a byte. The
        first step starts from the zero state. A model of records reads a separator first, as in `score`; where records
        are independent, every separator starts from the zero state.

        Args:
            text: what to read; it is cleaned as the training text was.
            gradients_of: a step; the trace then also holds the gradient of its loss, -ln p of the token that follows.
            window: how many steps before that one have a row in the gradients; None is all back to the zero state.
            unknown: `error`, `skip` or `replace`.

        Raises:
            TextError: for an empty text, or a text whose trace does not fit `charloom.trace.MOST_NUMBERS`.
            SettingsError: for a step or window out of range.
            UnknownCharacterError: for a character that the model does not know.
        """
        from charloom import trace

        return trace.trace(self.folder, self.tokenizer.ids(text, unknown), gradients_of, window)

    def trace_chunks(self, text: str, chunk: int = TRACED, unknown: UnknownPolicy = "error") -> Iterator[Trace]:
        """The trace of a text of any length, in chunks of so many steps; the state is carried. No gradients.

        The arrays of all chunks, concatenated, equal those of `trace` within rounding: BLAS may add in another order.

        Raises:
            SettingsError: for a chunk that is too large for the memory; at the call.
            UnknownCharacterError: for a character that the model does not know; at the call.
        """
        from charloom import trace

        return trace.trace_chunks(self.folder, self.tokenizer.ids(text, unknown), chunk)

    def _backend(self, precision: Precision, threads: int | None = None) -> Backend:
        """Made once for each precision; two threads may both make one, which does no harm."""
        if precision not in self._backends:
            self._backends[precision] = open_backend(self.weights, precision)
        return self._backends[precision].with_threads(threads)

    def _options(self, length: int | None, options: Mapping[str, Any]) -> GenerationOptions:
        asked = validated(GenerationOptions, {"length": length, **options})
        if asked.records is not None and self.vocabulary.separator_id is None:
            raise SettingsError(
                "`records` needs a model that was trained on records, for example with `records='line'`; "
                "this one was not; give `length` or `stop` instead"
            )
        return asked.model_copy(update={"seed": secrets.randbits(63) if asked.seed is None else asked.seed})

    def _stream(self, prompt: str, asked: GenerationOptions) -> Iterator[str]:
        outputs = self.run([self._request(prompt, asked)], asked.precision, asked.threads, slots=1)
        return (output.text for _, output in outputs if output.text)

    def _requests(self, count: int, prompt: str | Sequence[str], asked: GenerationOptions) -> list[Request]:
        """So many after each prompt, all with an index of their own."""
        prompts = [prompt] if isinstance(prompt, str) else prompt
        count = validated(Count, {"count": count}).count
        if not 1 <= count * len(prompts) <= MOST_SEQUENCES:
            raise SettingsError(
                f"`count` must give from 1 to {MOST_SEQUENCES:,} texts in one call; got {count} for each of "
                f"{len(prompts)} prompts"
            )
        if asked.index + count * len(prompts) > 2**63:
            raise SettingsError(
                f"`index` must be below 2^63 for each of {count * len(prompts)} texts; got {asked.index} for the first"
            )
        first = self._request(prompts[0], asked)
        prompts_T = [self.tokenizer.prompt(each, asked.unknown) for each in prompts]
        return [
            replace(first, prompt_T=prompts_T[k // count], index=asked.index + k) for k in range(count * len(prompts))
        ]

    def _request(self, prompt: str, asked: GenerationOptions) -> Request:
        assert asked.seed is not None
        return Request(
            prompt_T=self.tokenizer.prompt(prompt, asked.unknown),
            sampling=Sampling.model_construct(**{name: getattr(asked, name) for name in Sampling.model_fields}),
            seed=asked.seed,
            index=asked.index,
            length=LENGTH if asked.length is None and asked.records is None else asked.length,
            records=asked.records,
            stop=StopStrings(asked.stop),
            separator_text=SEPARATOR_TEXTS[self.folder.records],
        )


def _check_length(asked: GenerationOptions, count: int) -> None:
    if asked.length is not None and count * asked.length > MOST_LENGTH:
        raise SettingsError(
            f"`length` must be at most {MOST_LENGTH:,} characters for all texts together; got "
            f"{count * asked.length:,}; `Model.stream` has no such limit"
        )
