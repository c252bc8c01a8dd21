"""A trained model that generates and scores text: what `charloom.load(path)` returns.

    model = Model.load("runs/alice-1/best")
    for chunk in model.stream("Alice was", length=500, seed=1):
        print(chunk, end="", flush=True)

All generation uses a `Scheduler` (`charloom.inference`). The recurrent state is carried, so the time for each character
and the memory do not grow with the length.
"""

from __future__ import annotations

import os
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
from charloom.inference.detokenizer import SEPARATOR_TEXTS
from charloom.inference.next_token import next_token
from charloom.inference.options import GenerationOptions, Options, RequestOptions
from charloom.inference.request import Request
from charloom.inference.requests import Prompt, RequestBuilder, check_memory
from charloom.inference.rows import Backend
from charloom.inference.scheduler import SLOTS, WAITING, Scheduler
from charloom.inference.sequence import Output
from charloom.inference.weights import InferenceWeights
from charloom.score import Score
from charloom.validation import check_names, validated

if TYPE_CHECKING:
    from charloom.evaluation.engine import EnginePool
    from charloom.evaluation.report import Report
    from charloom.evaluation.text import FileOptions
    from charloom.trace import Trace

MANY_SLOTS = 256
"""Sequences that `generate_many` runs at the same time. With more, the time for each sequence is not shorter."""

TRACED = 256
"""Steps in a chunk of a trace: 6 MB for two layers of 512 units."""


class Model:
    """A network, its vocabulary, and the cleaning of its text. Threads may share one, because it does not change. When
    it first generates, it packs its weights for the kernels.

    Args:
        folder: the content of a model folder, read or made in memory. The first generation copies its parameters.

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
            ModelError: if the folder is missing, damaged, of a newer version, or not a model.
        """
        return Model(load_model(path))

    def save(self, path: AnyPath) -> None:
        """Writes a model folder, whole or not at all; `load` reads it.

        Raises:
            SettingsError: if the folder exists and is not empty, or cannot be written.
        """
        save_new_model(Path(checked_path(path, "path")), self.folder)

    def __repr__(self) -> str:
        """The network and its training text, in one line."""
        sizes, tokens, made = self.architecture, self.vocabulary, self.metadata
        facts = [f"{sizes.cell} {sizes.layers} x {sizes.hidden}", f"{tokens.plain} {tokens.kind}"]
        facts.append(f"{sizes.size:,} parameters")
        if "corpus" in made:
            facts.append(f"trained on {reprlib.repr(made['corpus'])}")
        if isinstance(nats := made.get("validation_nats"), float):
            facts.append(f"{nats:.3f} nats/{tokens.unit}")
        return f"<charloom.Model: {', '.join(facts)}>"

    def __reduce__(self) -> tuple[type[Model], tuple[ModelFolder]]:
        """For pickles and deep copies: the content of the model folder. A copy packs its weights again.

        A copy does not get the cached tables of the vocabulary.
        """
        return type(self), (replace(self.folder, vocabulary=replace(self.vocabulary)),)

    @property
    def architecture(self) -> Architecture:
        """The sizes and kinds of the network."""
        return self.folder.architecture

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens of the network."""
        return self.folder.vocabulary

    @property
    def metadata(self) -> dict[str, Any]:
        """The origin of the model and its losses, for people."""
        return self.folder.metadata

    @property
    def provenance(self) -> dict[str, Any]:
        """The former name of `metadata`."""
        warnings.warn("Model.provenance is now Model.metadata", DeprecationWarning, stacklevel=2)
        return self.metadata

    @cached_property
    def weights(self) -> InferenceWeights:
        """The weights for the backends."""
        return InferenceWeights(self.architecture, self.folder.parameters, self.folder.reset_id)

    def stream(self, prompt: str = "", length: int | None = None, **options: Unpack[Options]) -> Iterator[str]:
        """Generates text after the prompt and returns it in chunks, as it is made: `for chunk in model.stream("Once")`.

        Arguments, options and errors are those of `generate`, but the length has no limit. The call raises an error of
        an argument, not the first chunk.
        """
        asked = self._requests.options(length, options)
        return self._texts(self._requests.one(prompt, asked), asked)

    def astream(
        self, prompt: str = "", length: int | None = None, **options: Unpack[Options]
    ) -> AsyncGenerator[str, None]:
        """Does the same as `stream` for asyncio: `async for chunk in model.astream("Once")`. Threads generate the text.

        If the loop is left early, or its task is cancelled, generation ends within a moment. Arguments and errors are
        those of `stream`, but an unavailable precision raises its error with the first chunk.
        """
        from charloom.inference import asynchronous  # asyncio takes longer to import than the rest of this module

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
        """Generates text after the prompt and returns it, without the prompt. For a list of prompts, a list of texts.

        The prompt is cleaned like the training text. For a model of records it is the beginning of a record; a newline
        that is not in the vocabulary, or `charloom.RECORD_SEPARATOR`, ends a record. Without a prompt, any other model
        starts after a newline, or with a character that is drawn from all with equal probability.

        Args:
            prompt: the text to continue. Several are continued in one batch: `generate_many(1, prompts)`.
            length: the exact number of characters (not tokens), including separators between records; at most 10^9.
                None means 1,000, or no limit if `records` is given. A byte of binary data that is not UTF-8 is one
                character, a surrogate escape; prompts and stop strings may contain such escapes.

        Options:
            temperature: below 1 is more predictable, above 1 more varied; by default 0.8.
            top_k, top_p: choose from the k most probable tokens; from the fewest that have probability p together.
            min_p: choose from tokens at least this many times as probable as the most probable one.
            greedy: always choose the most probable token.
            repetition_penalty: above 1 makes the last `repetition_window` tokens less probable.
            no_repeat_ngram_size: never repeat this number of tokens in the same order.
            seed, index: the same pair gives the same text, alone or in a batch; by default a random seed, and index 0.
            stop: a string or a list of strings; the text ends before the first of them.
            records: the text ends after this number of complete records. Between two of them is a newline, a space for
                sentences, or a blank line for paragraphs and files.
            unknown: `error`, `skip` or `replace` characters of the prompt that the model does not know.
            precision: `auto` (`fp32`), or `bf16` or `int8`, which are faster and give another text.
            threads: the largest number of threads; it does not change the text.

        Raises:
            SettingsError: if an option is out of range.
            UnknownCharacterError: if the model does not know a character of the prompt.
            ModelError: if no token can be chosen.
        """
        if isinstance(prompt, list | tuple):
            return self.generate_many(1, prompt, length, **options)
        asked = self._requests.options(length, options)
        check_memory(asked, 1)
        return "".join(self._texts(self._requests.one(prompt, asked), asked))

    def generate_many(
        self, count: int, prompt: str | Iterable[str] = "", length: int | None = None, **options: Unpack[Options]
    ) -> list[str]:
        """Generates `count` texts after a prompt, or after each of several prompts, in one batch.

        The other arguments, the options and the errors are those of `generate`. Text k is that of `generate` with the
        same seed and `index=index + k`. The texts of the first prompt come first.
        """
        asked = self._requests.options(length, options)
        requests = self._requests.many(count, prompt, asked)
        check_memory(asked, len(requests))
        texts: list[list[str]] = [[] for _ in requests]
        for number, output in self.run(requests, asked.precision, asked.threads, min(len(requests), MANY_SLOTS)):
            texts[number].append(output.text)
        return ["".join(chunks) for chunks in texts]

    def next_token(self, prefix: str = "", unknown: UnknownPolicy = "error") -> dict[str, float]:
        """The probability of every token after a text, the most probable first; their sum is 1.

        It is the model's own distribution: no temperature, no filter, and tokens of probability 0 are included. The
        prefix is read like the prompt of `generate`.

        A token is a character. For a byte-level model it is a byte, from 128 on as a surrogate escape (PEP 383), so
        `prefix + token` is the next prefix. `charloom.RECORD_SEPARATOR` ends a record. U+FFFD is the unknown token, for
        all rare characters together; it is never generated. The separator and surrogate escapes cannot be printed;
        this is safe for every token:

            for token, probability in model.next_token("On").items():
                print(f"{probability:.3f} {token!r}")

        Raises:
            SettingsError: if the prefix is not a string.
            UnknownCharacterError: if the model does not know a character of the prefix.
            ModelError: if the model's output is not finite.
        """
        return next_token(self._backend("auto"), self.vocabulary, self.tokenizer.prompt(prefix, unknown))

    def tokenize(self, text: str, unknown: UnknownPolicy = "error") -> list[int]:
        """The token ids of a prompt. `request` and `requests` accept them in place of the text.

        Raises:
            SettingsError: if the text is not a string.
            UnknownCharacterError: if the model does not know a character.
        """
        ids: list[int] = self.tokenizer.tokens(text, unknown).tolist()
        return ids

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of these token ids. Between two records is the text that `generate` puts there.

        Raises:
            SettingsError: if an id is not a token of this model.
        """
        return self.vocabulary.decode(self.tokenizer.tokens([*tokens]), self.separator_text)

    @property
    def separator_text(self) -> str:
        """The text between two generated records."""
        return SEPARATOR_TEXTS[self.folder.records]

    def requests(
        self,
        count: int,
        prompt: Prompt | Iterable[Prompt] = "",
        length: int | None = None,
        logprobs: int | None = None,
        **options: Unpack[RequestOptions],
    ) -> list[Request]:
        """The requests of `generate_many`, in its order. A prompt may be a list of token ids, inside a list of prompts.
        `logprobs` is that of `request`.
        """
        return self._requests.many(count, prompt, self._requests.options(length, options), logprobs)

    def request(
        self,
        prompt: Prompt = "",
        length: int | None = None,
        logprobs: int | None = None,
        **options: Unpack[RequestOptions],
    ) -> Request:
        """A request for `run` or a scheduler. Arguments and errors are those of `generate`.

        Args:
            prompt: the text to continue, or its token ids.
            length: characters.
            logprobs: the number of tokens whose log-probabilities are given beside that of each generated token, at
                most 100 and at most the vocabulary size. None: no log-probabilities.
            options: see `generate`.
        """
        return self._requests.one(prompt, self._requests.options(length, options), logprobs)

    def run(
        self, requests: Iterable[Request], precision: Precision = "auto", threads: int | None = None, slots: int = SLOTS
    ) -> Iterator[tuple[int, Output]]:
        """Generates all requests, `slots` at the same time: pairs of a request's number, from 0, and its next output.

        Raises:
            SettingsError: if this model or machine does not have the precision; raised by the call.
            ModelError: if no token can be chosen for a request.
        """
        return self.scheduler(precision, threads, slots).run(iter(requests))

    def scheduler(
        self, precision: Precision = "auto", threads: int | None = None, slots: int = SLOTS, waiting: int = WAITING
    ) -> Scheduler:
        """A new scheduler for requests to this model.

        Raises:
            SettingsError: if this model or machine does not have the precision, or a limit is below 1.
        """
        asked = validated(GenerationOptions, {"precision": precision, "threads": threads})
        return Scheduler(self._backend(asked.precision, asked.threads), self.vocabulary, slots, waiting)

    def score(self, text: str, unknown: UnknownPolicy = "error") -> Score:
        """The loss of the model on a text. `evaluate(paths="my.txt")` scores a file.

        Every character after the first is predicted once. The state is carried from the start of the text, or, if
        records are independent, from the start of each record.

        A model of records reads a separator first, so it also predicts the first character. It predicts separators
        inside the text (`charloom.RECORD_SEPARATOR`) like characters. If such a model does not know the newline, as
        with `records="line"`, a newline is a separator too. Only the ids need memory that grows with the text.

        Raises:
            TextError: if the text is too short for a prediction.
            UnknownCharacterError: if the model does not know a character.
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
        """The report that `charloom eval` prints: the score of a text beside those of compressors.

        Args:
            text: the text to predict, not the name of a file; there is a warning if a file has this name. Without
                `text` and `paths`, it is the validation split of the run that the model was loaded from.
            paths: files to predict instead of a text, or any other source that `charloom.train` reads.
            dynamic: also report the loss of a model that learns from each part of the text after scoring it.
            windows: also report the loss in windows of this many tokens, each from the zero state.
            baselines: also report xz and PPMd, primed with the training text if the model was loaded from a run. They
                take about 4 seconds for each megabyte.
            unknown: as in `score`.
            options: for files: `encoding`, `errors` and `field`, as in `charloom.train`.

        Raises:
            SettingsError: if there is no text and the model was not loaded from a run, or if `windows` is out of range.
            TextError: if the text cannot be read, or is too short for a prediction.
            UnknownCharacterError: if the model does not know a character.
        """
        from charloom.evaluation.report import evaluate
        from charloom.evaluation.text import FileOptions, evaluation_text

        check_names(options, FileOptions.__annotations__, Model.evaluate.__kwdefaults__)
        if isinstance(text, str) and os.path.isfile(text):
            warnings.warn(f"{text!r} is scored as a text, but a file has this name; `paths` reads files", stacklevel=2)
        found = evaluation_text(self.folder, text, paths, warnings.warn, unknown, **options)
        return evaluate(self.folder, found, dynamic, windows, baselines)

    def adapt(self, text: str, unknown: UnknownPolicy = "error") -> Model:
        """A model that learned from a text by reading it once, as in dynamic evaluation. This model does not change.

        Arguments and errors are those of `score`.
        """
        from charloom.evaluation.dynamic import adapted
        from charloom.evaluation.text import encoded

        return Model(adapted(self.folder, encoded(self.folder, text, unknown).ids_T))

    @cached_property
    def _engines(self) -> EnginePool:
        """The engines that score texts; imported on use, because the import takes time."""
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
        """The values that the network computes at every step of a text: gates, states, logits and probabilities of
        every layer, as named arrays.

        Step t reads token t and predicts token t + 1. A token is a character or, for a byte-level model, a byte. The
        first step starts from the zero state. A model of records reads a separator first, as in `score`; if records are
        independent, every separator starts from the zero state.

        Args:
            text: the text to read; it is cleaned like the training text.
            gradients_of: a step. The trace then also has the gradient of its loss, -ln p of the next token.
            window: the number of steps before that one in the gradients; None means all since the zero state.
            unknown: `error`, `skip` or `replace`.

        Returns:
            see `charloom.trace.Trace`: such as `layers[0].hidden_TH`, `probabilities_TV`, `gradients.hidden_LWH`.

        Raises:
            TextError: if the text is empty, or its trace is larger than `charloom.trace.MOST_NUMBERS`.
            SettingsError: if a step or the window is out of range.
            UnknownCharacterError: if the model does not know a character.
        """
        from charloom import trace

        return trace.trace(self.folder, self.tokenizer.ids(text, unknown), gradients_of, window)

    def trace_chunks(self, text: str, chunk: int = TRACED, unknown: UnknownPolicy = "error") -> Iterator[Trace]:
        """The trace of a text of any length, in chunks of `chunk` steps, with the state carried. No gradients.

        The arrays of all chunks, concatenated, equal those of `trace` within rounding: BLAS may add in another order.

        Raises:
            SettingsError: if a chunk is too large for the memory; raised by the call.
            UnknownCharacterError: if the model does not know a character; raised by the call.
        """
        from charloom import trace

        return trace.trace_chunks(self.folder, self.tokenizer.ids(text, unknown), chunk)

    def _backend(self, precision: Precision, threads: int | None = None) -> Backend:
        """The backend of each precision, made once. Two threads may both make one; this does no harm."""
        if precision not in self._backends:
            self._backends[precision] = open_backend(self.weights, precision)
        return self._backends[precision].with_threads(threads)

    def _texts(self, request: Request, asked: GenerationOptions) -> Iterator[str]:
        outputs = self.run([request], asked.precision, asked.threads, slots=1)
        return (output.text for _, output in outputs if output.text)
