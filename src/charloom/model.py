"""A trained model that generates and scores text: what `charloom.load(path)` returns.

    model = Model.load("runs/alice-1/best")
    for chunk in model.stream("Alice was", length=500, seed=1):
        print(chunk, end="", flush=True)

Everything that generates goes through a `Scheduler` (`charloom.inference`). The recurrent state is carried, so the time
of a character and the memory do not grow with the length.
"""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from charloom.architecture import Architecture
from charloom.checkpoint import ModelFolder, load_model, save_new_model
from charloom.data.tokenizer import Tokenizer
from charloom.data.vocabulary import UnknownPolicy, Vocabulary
from charloom.errors import ModelError
from charloom.files import AnyPath, checked_path
from charloom.inference.backend import Precision, open_backend
from charloom.inference.next_token import next_token
from charloom.inference.options import GenerationOptions, Options, RequestOptions
from charloom.inference.request import Request
from charloom.inference.requests import RequestBuilder, check_memory
from charloom.inference.rows import Backend
from charloom.inference.scheduler import SLOTS, Scheduler
from charloom.inference.sequence import Output
from charloom.inference.weights import InferenceWeights
from charloom.score import Score
from charloom.validation import validated

if TYPE_CHECKING:
    from charloom.evaluation.engine import EnginePool
    from charloom.evaluation.report import Report
    from charloom.evaluation.text import FileOptions
    from charloom.trace import Trace

MANY_SLOTS = 256
"""Sequences that `generate_many` has at work at once: with more, a step is not faster for each."""

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
        self._requests = RequestBuilder(self.tokenizer, folder.records)
        self._backends: dict[Precision, Backend] = {}

    @staticmethod
    def load(path: AnyPath) -> Model:
        """The model in a model folder.

        Raises:
            ModelError: for a folder that is missing, damaged, from the future, or not a model.
        """
        return Model(load_model(path))

    def save(self, path: AnyPath) -> None:
        """Writes a model folder, whole or not at all; `load` reads it.

        Raises:
            SettingsError: if the folder exists and is not empty, or cannot be written.
        """
        save_new_model(Path(checked_path(path, "path")), self.folder)

    def __repr__(self) -> str:
        """The network and what it was trained on, in one line."""
        sizes, tokens, made = self.architecture, self.vocabulary, self.metadata
        facts = [f"{sizes.cell} {sizes.layers} x {sizes.hidden}", f"{tokens.plain} {tokens.kind}"]
        facts.append(f"{sizes.size:,} parameters")
        if "corpus" in made:
            facts.append(f"trained on {reprlib.repr(made['corpus'])}")
        if isinstance(nats := made.get("validation_nats"), float):
            facts.append(f"{nats:.3f} nats/{tokens.unit}")
        return f"<charloom.Model: {', '.join(facts)}>"

    def __reduce__(self) -> tuple[type[Model], tuple[ModelFolder]]:
        """For pickles and deep copies, the content of the model folder; a copy packs the weights anew.

        A vocabulary caches tables, which the copy does without.
        """
        return type(self), (replace(self.folder, vocabulary=replace(self.vocabulary)),)

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
        asked = self._requests.options(length, options)
        return self._texts(self._requests.one(prompt, asked), asked)

    def astream(
        self, prompt: str = "", length: int | None = None, **options: Unpack[Options]
    ) -> AsyncGenerator[str, None]:
        """The same for asyncio: `async for chunk in model.astream("Once")`. The work is done in threads.

        Where the loop is left early, or its task is cancelled, the work ends within a moment. Arguments and errors are
        those of `stream`; only a precision that is not available is refused with the first chunk.
        """
        from charloom.inference import asynchronous  # asyncio takes longer to import than all else here

        asked = self._requests.options(length, options)
        request = self._requests.one(prompt, asked)
        return asynchronous.texts(lambda: self.scheduler(asked.precision, asked.threads, slots=1), request)

    @overload
    def generate(self, prompt: str = "", length: int | None = None, **options: Unpack[Options]) -> str: ...

    @overload
    def generate(
        self, prompt: list[str] | tuple[str, ...], length: int | None = None, **options: Unpack[Options]
    ) -> list[str]: ...

    def generate(
        self, prompt: str | list[str] | tuple[str, ...] = "", length: int | None = None, **options: Unpack[Options]
    ) -> str | list[str]:
        """What follows the prompt, at once: arguments and errors of `stream`; at most 10^9 characters.

        For a list of prompts, a list of texts: those of `generate_many(1, prompts)`.
        """
        if isinstance(prompt, list | tuple):
            return self.generate_many(1, prompt, length, **options)
        asked = self._requests.options(length, options)
        check_memory(asked, 1)
        return "".join(self._texts(self._requests.one(prompt, asked), asked))

    def generate_many(
        self, count: int, prompt: str | Iterable[str] = "", length: int | None = None, **options: Unpack[Options]
    ) -> list[str]:
        """So many texts after a prompt, or after each of several, side by side: arguments and errors of `stream`.

        Text k is what `generate` gives with the same seed and `index=index + k`; first come those of the first prompt.
        """
        asked = self._requests.options(length, options)
        requests = self._requests.many(count, prompt, asked)
        check_memory(asked, len(requests))
        texts: list[list[str]] = [[] for _ in requests]
        for number, output in self.run(requests, asked.precision, asked.threads, min(len(requests), MANY_SLOTS)):
            texts[number].append(output.text)
        return ["".join(chunks) for chunks in texts]

    def next_token(self, prefix: str = "", unknown: UnknownPolicy = "error") -> dict[str, float]:
        """The probability of every token that may follow a text, the most probable first; their sum is 1.

        It is the model's own distribution: no temperature, no filter. Tokens of probability 0 are among them. The
        prefix is read as `stream` reads its prompt.

        A token is a character. Of a byte-level model it is a byte, from 128 as a surrogate escape (PEP 383), so
        `prefix + token` is the next prefix. `charloom.RECORD_SEPARATOR` ends a record. U+FFFD is the unknown token, for
        all rare characters together, which is never generated.

        Raises:
            SettingsError: for a prefix that is no string.
            UnknownCharacterError: for a character of the prefix that the model does not know.
            ModelError: if the model's output is not finite.
        """
        return next_token(self._backend("auto"), self.vocabulary, self.tokenizer.prompt(prefix, unknown))

    def requests(
        self, count: int, prompt: str | Iterable[str] = "", length: int | None = None, **options: Unpack[RequestOptions]
    ) -> list[Request]:
        """The requests of `generate_many`, in its order."""
        return self._requests.many(count, prompt, self._requests.options(length, options))

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
        return self._requests.one(prompt, self._requests.options(length, options), logprobs)

    def run(
        self, requests: Iterable[Request], precision: Precision = "auto", threads: int | None = None, slots: int = SLOTS
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

        Returns:
            see `charloom.trace.Trace`: such as `layers[0].hidden_TH`, `probabilities_TV`, `gradients.hidden_LWH`.

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

    def _texts(self, request: Request, asked: GenerationOptions) -> Iterator[str]:
        outputs = self.run([request], asked.precision, asked.threads, slots=1)
        return (output.text for _, output in outputs if output.text)
