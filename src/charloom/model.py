"""A trained model that writes and reads: what `charloom.load(path)` returns.

    model = Model.load("runs/alice-1/best")
    for piece in model.stream("Alice was", length=500, seed=1):
        print(piece, end="", flush=True)

Everything that writes goes through one loop, `Model._write`: a batch of texts, some tokens of each at a time from a
`Writer`, the kernels' or NumPy's, each handed to its text's `Detokenizer`. The state is carried, so a character's cost
and the memory do not grow with the length.

Shapes: B texts side by side, T steps, V vocabulary size.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
from pydantic import Field, field_validator

from charloom.architecture import Architecture
from charloom.config import MOST_THREADS, Cleaning, RecordKind, validated
from charloom.data.cleaning import clean
from charloom.data.vocabulary import UnknownPolicy, Vocabulary
from charloom.errors import ModelError, SettingsError, TextError, UnknownCharacterError
from charloom.inference.backend import Numbers, Precision, Rules, Writer, writer
from charloom.inference.detokenizer import SEPARATOR_TEXTS, Detokenizer, StopStrings
from charloom.inference.layers import Floats
from charloom.inference.network import Integers, Network, State
from charloom.inference.sampling import Sampling, draw, uniform_rows
from charloom.score import Score, cross_entropy

if TYPE_CHECKING:
    from charloom.checkpoint import ModelFolder

LENGTH = 1000
"""Characters written where neither a length nor a number of records is asked for: about half a printed page."""

CHUNK_SECONDS = 0.02
"""What is written in so long is handed over together: soon enough for the eye, rare enough to cost nothing."""

CHUNK_TOKENS = 2**12
"""Most tokens handed over together, those of all texts counted."""

MOST_AT_ONCE = 100_000
"""Texts in one batch: their states take 800 MB with 1,024 units."""

MOST_STOP = 100_000
"""Characters of all stop strings together: what watches for them takes 30 MB then."""

SCORED = 256
"""Tokens of a text that are scored together: their logits are what memory is needed for."""

# Surrogates but for U+DC80 … U+DCFF, which carry undecodable bytes, and, in models of records, the separator.
LONE = re.compile("[\\ud800-\\udc7f\\udd00-\\udfff]")
LONE_IN_RECORDS = re.compile("[\\ud801-\\udc7f\\udd00-\\udfff]")


class Writing(Sampling):
    """Everything that can be asked of a text."""

    length: int | None = Field(None, ge=0, description="characters; 1,000 where None and no records are asked for")
    records: int | None = Field(None, ge=1, description="whole records, of a model trained on records")
    stop: tuple[str, ...] = Field((), description="end before the first of these strings")
    seed: int | None = Field(None, ge=0, lt=2**63, description="of the random numbers; None draws one")
    index: int = Field(0, ge=0, lt=2**63, description="which of a seed's texts: text k of a batch has index + k")
    unknown: UnknownPolicy = Field("error", description="what to do with a prompt's unknown characters")
    precision: Precision = Field("auto", description="of the arithmetic: auto, fp32, bf16 or int8")
    threads: int | None = Field(None, ge=1, le=MOST_THREADS, description="CPU threads; None is all cores")

    @field_validator("stop", mode="before")
    @classmethod
    def _stop(cls, value: Any) -> Any:
        value = (value,) if isinstance(value, str) else value
        if value is not None and "" in value:
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


class Options(TypedDict, total=False):
    """The keywords of `Model.stream`, `generate` and `generate_many`; `Writing` says what each does."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    greedy: bool
    records: int | None
    stop: str | Sequence[str]
    seed: int | None
    index: int
    unknown: UnknownPolicy
    precision: Precision
    threads: int | None


class Model:
    """A network, its vocabulary, and how its text was prepared. Threads may share one: nothing in it changes, but that
    it is packed for the kernels when it first writes.

    Args:
        architecture: sizes and kinds of the network.
        vocabulary: of `architecture.vocabulary_size` tokens.
        parameters: by PyTorch's names; copied, so a trainer can pass its live ones.
        cleaning: what prompts and scored texts go through, as the training text did.
        records: what one record was in training; fixes the separator.
        metadata: where the model comes from, for people.
        keep_order: whether records were read in their order, the state carried from one to the next; otherwise a
            separator is always read from the zero state, as in training.

    Raises:
        ModelError: if the vocabulary does not fit the network.
    """

    def __init__(
        self,
        architecture: Architecture,
        vocabulary: Vocabulary,
        parameters: Mapping[str, Floats],
        cleaning: Cleaning | None = None,
        records: RecordKind = "none",
        metadata: Mapping[str, Any] | None = None,
        keep_order: bool = True,
    ) -> None:
        if vocabulary.size != architecture.vocabulary_size:
            raise ModelError(
                f"a model's vocabulary must have as many tokens as its network, {architecture.vocabulary_size}; "
                f"found {vocabulary.size}"
            )
        self.architecture = architecture
        self.vocabulary = vocabulary
        self.cleaning = cleaning or Cleaning()
        self.records: RecordKind = records
        self.metadata = dict(metadata or {})
        self.keep_order = keep_order
        self.network = Network(architecture, parameters, None if keep_order else vocabulary.separator_id)
        self._writers: dict[Precision, Writer] = {}

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Model:
        """The model in a model folder.

        Raises:
            ModelError: for a folder that is missing, damaged, from the future, or not a model.
        """
        from charloom.checkpoint import load_model  # here, so that a model made in memory needs no safetensors

        return Model.of(load_model(path))

    @staticmethod
    def of(folder: ModelFolder) -> Model:
        """A model that was read, or that training has in its hands."""
        return Model(
            folder.architecture,
            folder.vocabulary,
            folder.parameters,
            folder.cleaning,
            folder.records,
            folder.metadata,
            folder.keep_order,
        )

    def stream(self, prompt: str = "", length: int | None = None, **options: Unpack[Options]) -> Iterator[str]:
        """What follows the prompt, in pieces as they are made; the prompt itself is not among them.

        The prompt is cleaned as the training text was. A model of records takes it as the beginning of a record: it
        always reads a separator first, and never writes an empty record. Without a prompt, any other model starts after
        a newline if it knows one, else with a character drawn evenly from all, which is also the first one written.

        Args:
            prompt: what to continue.
            length: exactly so many characters (not tokens), separators between records included; None is 1,000, or
                no limit where `records` is given. Of a model of binary data (trained with `binary=True`), a byte that
                is no UTF-8 is one character, a surrogate escape: `text.encode("utf-8", "surrogateescape")` gives the
                bytes. Prompts and stop strings may hold such escapes.
            options: `temperature` (default 0.8), `top_k`, `top_p`, `min_p`, `greedy`: see `Sampling`. `seed`: the same
                seed gives the same text, alone, streamed or in a batch. `index`: another text of the same seed.
                `stop`: ends before the first of these strings, of which nothing is written. `records`: ends after so
                many whole records; between two of them stands a newline, a space for sentences, or a blank line for
                paragraphs and files; each begins from the zero state or goes on from the one before, as in training
                (`keep_order`). `unknown`: `error`,
                `skip` or `replace`. `precision`: `fp32`, or `bf16` or `int8`, which are faster and another text;
                `auto` is `charloom.inference.backend.AUTO`. `threads`: at most so many; the text is the same.

        Raises:
            SettingsError: for an option out of range; at the call, not at the first piece, as the others.
            UnknownCharacterError: for a character of the prompt that the model does not know.
            ModelError: while writing, if the network's output is not finite.
        """
        writing = self._writing(length, options)
        pieces = self._write(self._prompt(prompt, writing.unknown), writing, 1, self._writer(writing))
        return (piece for _, piece in pieces)

    def generate(self, prompt: str = "", length: int | None = None, **options: Unpack[Options]) -> str:
        """What follows the prompt, at once: arguments and errors of `stream`."""
        return "".join(self.stream(prompt, length, **options))

    def generate_many(
        self, count: int, prompt: str = "", length: int | None = None, **options: Unpack[Options]
    ) -> list[str]:
        """So many texts after the same prompt, written as one batch: arguments and errors of `stream`.

        Text k is what `generate` gives with the same seed and `index=index + k`.
        """
        if not 1 <= count <= MOST_AT_ONCE:
            raise SettingsError(f"count must be from 1 to {MOST_AT_ONCE:,}, texts in one batch; got {count}", "count")
        writing = self._writing(length, options)
        if writing.index + count > 2**63:
            raise SettingsError(
                f"index must be below 2^63 for each of {count} texts; got {writing.index} for the first"
            )
        texts: list[list[str]] = [[] for _ in range(count)]
        prompt_T = self._prompt(prompt, writing.unknown)
        for row, piece in self._write(prompt_T, writing, count, self._writer(writing)):
            texts[row].append(piece)
        return ["".join(pieces) for pieces in texts]

    def score(self, text: str, unknown: UnknownPolicy = "error") -> Score:
        """How well the model predicts a text: every character after the first once, the state carried from its start,
        or, where records are independent, from the start of each.

        A model of records reads a separator first and so predicts the first character too; separators inside the text
        (`charloom.data.vocabulary.RECORD_SEPARATOR`) are predicted as characters. Memory does not grow but for the ids.

        Raises:
            TextError: for a text too short to predict anything in.
            UnknownCharacterError: for a character that the model does not know.
        """
        return self.score_ids(*self.read(text, unknown))

    def score_ids(self, ids_T: Integers, characters: int) -> Score:
        """The same of tokens, all of which but the first are so many characters."""
        writer, state, nats, correct = self._writer(Writing()), self.network.initial_state(1), 0.0, 0
        for start in range(0, len(ids_T) - 1, SCORED):
            targets_T = ids_T[start + 1 : start + 1 + SCORED]
            logits_BTV, state = writer.logits(ids_T[None, start : start + len(targets_T)], state)
            found, hits = cross_entropy(logits_BTV[0], targets_T)
            nats, correct = nats + found, correct + hits
        return Score(len(ids_T) - 1, characters, nats, correct)

    def read(self, text: str, unknown: UnknownPolicy = "error") -> tuple[Integers, int]:
        """What the model reads of a text to be predicted: its tokens, and how many characters all but the first are.

        Raises:
            TextError: for a text too short to predict anything in.
            UnknownCharacterError: for a character that the model does not know.
        """
        ids_T = self._encode(text, unknown, "the text")
        known = len(self.clean(text)) if self.vocabulary.kind == "bytes" else len(ids_T)
        if self.vocabulary.separator_id is not None:
            ids_T = self._after_separator(ids_T)
        else:
            known -= 1
        if known < 1 or len(ids_T) < 2:
            raise TextError("a text to score must hold at least 2 characters, or 1 for a model of records; found fewer")
        return ids_T, known

    def _write(self, prompt_T: Integers, writing: Writing, count: int, writer: Writer) -> Iterator[tuple[int, str]]:
        """The loop: (which text, its next piece), again and again, until every text is done.

        Position p of a text takes random number p, however the text is made. The first piece is a single token, so
        that it is there at once.
        """
        stop = StopStrings(writing.stop)
        texts = [self._detokenizer(writing, stop) for _ in range(count)]
        rows = [row for row in range(count) if not texts[row].done]
        if not rows:
            return
        rules = self._rules(writing)
        seed, position, seconds = secrets.randbits(63) if writing.seed is None else writing.seed, 0, 0.0
        ids_BS, state = self._first(prompt_T, seed, [writing.index + row for row in range(count)], writer)
        if len(prompt_T) == 0:
            position = 1
            yield from _taken(texts, rows, ids_BS)
        while going := [n for n, row in enumerate(rows) if not texts[row].done]:
            rows, ids_B, state = [rows[n] for n in going], ids_BS[going, -1], state.rows(np.array(going, np.intp))
            numbers = Numbers(seed, tuple(writing.index + row for row in rows), position)
            steps = min(max(1, CHUNK_TOKENS // len(rows)), max(texts[row].left for row in rows))
            ids_BS, state = writer.write(ids_B, state, rules, numbers, steps, seconds)
            position, seconds = position + ids_BS.shape[1], CHUNK_SECONDS
            yield from _taken(texts, rows, ids_BS)

    def _first(self, prompt_T: Integers, seed: int, sequences: list[int], writer: Writer) -> tuple[Integers, State]:
        """The token that each text reads first, as ids_B1, and the state before it; the prompt is read once for all.

        Without a prompt that token is drawn, by random number 0, and is the first of the text.
        """
        state = self.network.initial_state(1)
        if len(prompt_T) == 0:
            uniform_B = next(uniform_rows(seed, sequences))
            ids_B = draw(np.ones((len(sequences), self.vocabulary.plain)), uniform_B)
        else:
            state = writer.read(prompt_T[:-1], state)
            ids_B = np.repeat(prompt_T[-1:], len(sequences))
        return ids_B[:, None], state.rows(np.zeros(len(sequences), np.intp))

    def _writer(self, writing: Writing) -> Writer:
        """Made once for each precision; two threads may both make one, which does no harm."""
        if writing.precision not in self._writers:
            self._writers[writing.precision] = writer(self.network, writing.precision)
        return self._writers[writing.precision].limited(writing.threads)

    def _rules(self, writing: Writing) -> Rules:
        """Never the unknown token, and never a separator after a separator."""
        unknown = self.vocabulary.unknown_id
        return Rules(writing, () if unknown is None else (unknown,), self.vocabulary.separator_id)

    def _detokenizer(self, writing: Writing, stop: StopStrings) -> Detokenizer:
        length = LENGTH if writing.length is None and writing.records is None else writing.length
        return Detokenizer(self.vocabulary, SEPARATOR_TEXTS[self.records], length, writing.records, stop)

    def _writing(self, length: int | None, options: Options) -> Writing:
        writing = validated(Writing, {"length": length, **options})
        if writing.records is not None and self.vocabulary.separator_id is None:
            raise SettingsError(
                "records need a model that knows where a record ends, trained with --records line, sentence, "
                "paragraph, file or field; this one was not: give a length or stop strings instead"
            )
        return writing

    def _prompt(self, prompt: str, unknown: UnknownPolicy) -> Integers:
        """The tokens that are read before the first one is written; empty where the first one is to be drawn."""
        prompt_T = self._encode(prompt, unknown, "the prompt")
        if self.vocabulary.separator_id is not None:
            return self._after_separator(prompt_T)
        if len(prompt_T) == 0 and (self.vocabulary.kind == "bytes" or "\n" in self.vocabulary.characters):
            return self.vocabulary.encode("\n")
        return prompt_T

    def _after_separator(self, ids_T: Integers) -> Integers:
        separator = self.vocabulary.separator_id
        if len(ids_T) > 0 and ids_T[0] == separator:
            return ids_T
        return np.concatenate([np.array([separator], self.vocabulary.dtype), ids_T])

    def _encode(self, text: str, unknown: UnknownPolicy, what: str) -> Integers:
        text = self.clean(text)
        if self.vocabulary.kind == "bytes":
            text = self._without_surrogates(text, unknown, what)
        return self.vocabulary.encode(text, unknown, what)

    def clean(self, text: str) -> str:
        """The text as training saw it: a model of characters knows one kind of line end."""
        return clean(text, self.cleaning, newlines="keep" if self.vocabulary.kind == "bytes" else "lf")

    def _without_surrogates(self, text: str, unknown: UnknownPolicy, what: str) -> str:
        """Bytes of UTF-8 exist for all but lone surrogates, such as half an emoji from a cut JSON string."""
        lone = LONE_IN_RECORDS if self.vocabulary.separator else LONE
        if (found := lone.search(text)) is None:
            return text
        if unknown == "error":
            raise UnknownCharacterError(
                f"{what} must be Unicode text; found the lone surrogate U+{ord(found[0]):04X} at position "
                f"{found.start()}; pass --unknown skip or --unknown replace"
            )
        return lone.sub("" if unknown == "skip" else "\ufffd", text)


def _taken(texts: list[Detokenizer], rows: list[int], ids_BS: Integers) -> Iterator[tuple[int, str]]:
    """What these texts make of their next tokens, where they make anything."""
    for row, ids_S in zip(rows, ids_BS.tolist(), strict=True):
        if piece := texts[row].take(ids_S):
            yield row, piece
