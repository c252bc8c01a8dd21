"""`POST /v1/completions`: from its JSON to requests, and from outputs to the JSON of the answer."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from charloom.config import Section
from charloom.data.vocabulary import UnknownPolicy
from charloom.errors import CharloomError, SettingsError
from charloom.inference.request import Request
from charloom.inference.sampling import Sampling
from charloom.inference.sequence import TokenLogprobs
from charloom.inference.token_texts import TokenPlaces
from charloom.server.bodies import Body
from charloom.server.call import Call, News
from charloom.server.errors import ApiError, api_error, body_of
from charloom.server.limits import ServerLimits
from charloom.server.served_models import LoadedModel
from charloom.server.wire import to_json, without_surrogates

LOWEST_LOGPROB = -9999.0
"""In place of -inf, which JSON lacks; vLLM sends the same number."""

SHORT = 1000
"""Characters or tokens of prompts that are checked in less than a millisecond, so the event loop does it."""

Prompt = str | list[int]


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(token) is int for token in value)


def _prompts(value: Any) -> Any:
    """Checks the four forms of a prompt, with one message for all."""
    if isinstance(value, str) or _is_ids(value):
        return value
    if isinstance(value, list) and (all(isinstance(one, str) for one in value) or all(map(_is_ids, value))):
        return value
    raise ValueError("`prompt` must be a string, a list of strings, a list of token ids, or a list of such lists")


def _stop(value: Any) -> Any:
    if value is None or isinstance(value, str) or (isinstance(value, list) and all(isinstance(s, str) for s in value)):
        return value
    raise ValueError("`stop` must be a string or a list of strings")


class StreamOptions(Section):
    """Options of a stream."""

    include_usage: bool = Field(False, description="a last chunk with the numbers of tokens")


class CompletionRequest(Body):
    """The body of a request for completions. Fields that are not listed are refused."""

    model: str | None = Field(None, description="the name of a model; by default the first")
    prompt: Annotated[str | list[str] | list[int] | list[list[int]], BeforeValidator(_prompts)] = Field(
        "", description="text or token ids, or a list of these; choice i × n + k is text k after prompt i"
    )
    max_tokens: int | None = Field(None, ge=0, description="tokens to generate; 0 needs echo")
    temperature: float | None = Field(
        None, ge=0, le=100, description=f"0 is greedy; by default {Sampling().temperature}, as in `charloom generate`"
    )
    top_p: float | None = Field(None, gt=0, le=1, description="choose from the fewest tokens of this probability")
    n: int | None = Field(None, ge=1, description="texts after each prompt; by default 1")
    stop: Annotated[str | list[str] | None, BeforeValidator(_stop)] = Field(
        None, description="the text ends before any of these strings; up to 4"
    )
    seed: int | None = Field(None, ge=0, lt=2**63, description="the same seed gives the same texts, whatever else runs")
    logprobs: int | None = Field(
        None, ge=0, le=5, description="log-probabilities of each token, and of this number of the most probable tokens"
    )
    echo: bool | None = Field(None, description="begin the text with the prompt")
    stream: bool | None = Field(None, description="send the text while it is made, as server-sent events")
    stream_options: StreamOptions | None = Field(None, description="only with stream")
    top_k: int | None = Field(None, ge=1, description="choose from this number of the most probable tokens")
    min_p: float | None = Field(
        None, ge=0, le=1, description="choose from tokens at least this many times as probable as the most probable one"
    )
    repetition_penalty: float | None = Field(None, ge=0.01, le=100, description="above 1, recent tokens are rarer")
    unknown: UnknownPolicy | None = Field(None, description="characters of the prompt that the model does not know")
    records: int | None = Field(None, ge=1, description="the text ends after this number of records")
    best_of: int | None = Field(None, description="accepted if it equals n, and without effect")
    frequency_penalty: float | None = Field(None, ge=0, le=0, description="accepted if 0: there is no such penalty")
    presence_penalty: float | None = Field(None, ge=0, le=0, description="accepted if 0: there is no such penalty")
    user: str | None = Field(None, description="accepted, and without effect")

    @field_validator("best_of")
    @classmethod
    def _best_of(cls, best_of: int | None, info: ValidationInfo) -> int | None:
        if best_of is not None and best_of != (info.data.get("n") or 1):
            raise ValueError(f"`best_of` must equal `n`: no texts are made and dropped; got {best_of}")
        return best_of

    @model_validator(mode="after")
    def _together(self) -> CompletionRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("`stream_options` needs `stream`; leave it out, or set `stream` to true")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("`max_tokens` must be at least 1 without `echo`; got 0")
        return self

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts in their order."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if _is_ids(self.prompt) and self.prompt:
            return [[token for token in self.prompt if isinstance(token, int)]]
        return [*self.prompt]

    @property
    def is_short(self) -> bool:
        """Whether its prompts take so little time that no thread is needed, where it would wait for long prompts."""
        return sum(map(len, self.prompts)) <= SHORT

    @property
    def tokens(self) -> int:
        """The most tokens of each text: 16 by default, and with `echo` 0."""
        return (0 if self.echo else 16) if self.max_tokens is None else self.max_tokens

    @property
    def strings(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


@dataclass(frozen=True)
class Prepared:
    """What a call needs. prompts: token ids of each prompt; requests: of each choice, in the order of the choices;
    tokens, logprobs: the most tokens and log-probabilities of its answer.
    """

    loaded: LoadedModel
    prompts: list[list[int]]
    requests: list[Request]
    tokens: int
    logprobs: int


def prepared(asked: CompletionRequest, loaded: LoadedModel, limits: ServerLimits) -> Prepared:
    """The requests for the choices of a call, checked against the limits.

    Raises:
        SettingsError: for a value that is out of range.
        UnknownCharacterError: for a character of a prompt that the model does not know.
    """
    model, count = loaded.model, asked.n or 1
    _check_sizes(asked, limits)
    unknown = asked.unknown or "error"
    prompts = [one if isinstance(one, list) else model.tokenize(one, unknown) for one in asked.prompts]
    _at_most("`prompt`", "tokens", sum(map(len, prompts)), limits.prompt_tokens)
    tokens, numbers = len(prompts) * count * asked.tokens, 0
    if asked.logprobs is not None:
        read = sum(map(len, prompts)) * count if asked.echo else 0
        numbers = (read + tokens) * (1 + asked.logprobs)
        _at_most("`logprobs`", "log-probabilities in one answer", numbers, limits.logprobs)
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "records", "seed")
    options = {name: value for name in names if (value := getattr(asked, name)) is not None}
    requests = model.requests(count, prompts, logprobs=asked.logprobs, stop=asked.strings, unknown=unknown, **options)
    scored = asked.logprobs if asked.echo else None
    return Prepared(
        loaded,
        prompts,
        [replace(each, length=None, tokens=asked.tokens, prompt_logprobs=scored) for each in requests],
        tokens,
        numbers,
    )


def _check_sizes(asked: CompletionRequest, limits: ServerLimits) -> None:
    prompts, count = len(asked.prompts), asked.n or 1
    if not prompts:
        raise SettingsError("`prompt` must have at least one prompt; got an empty list")
    _at_most("`n`", "texts in one request", prompts * count, limits.sequences)
    _at_most(
        "`max_tokens`", "tokens for all texts of a request", prompts * count * asked.tokens, limits.generated_tokens
    )
    _at_most("`stop`", "strings", len(asked.strings), limits.stop_strings)
    _at_most("`stop`", "characters", sum(map(len, asked.strings)), limits.stop_characters)


def _at_most(name: str, what: str, found: int, most: int) -> None:
    if found > most:
        raise SettingsError(f"{name} must give at most {most:,} {what}; got {found:,}")


class Choice:
    """One text of a call, as it grows.

    Args:
        index: the number of the choice.
        prompt: the token ids of its prompt.
        loaded: the model.
        asked: the request of the client.
    """

    def __init__(self, index: int, prompt: list[int], loaded: LoadedModel, asked: CompletionRequest) -> None:
        self.tokens = 0
        self.finish_reason: str | None = None
        self._index, self._prompt, self._asked, self._names = index, prompt, asked, loaded.names
        self._echoed = without_surrogates(loaded.model.detokenize(prompt)) if asked.echo else ""
        model = loaded.model
        self._prompt_places = TokenPlaces(model.vocabulary, model.separator_text)
        self._places = TokenPlaces(model.vocabulary, model.separator_text, len(self._echoed))
        self._length = 0  # of the text that was handed out
        self._begun = False
        self._entries: deque[tuple[int, int, TokenLogprobs | None]] = deque()  # place, token, log-probabilities

    def take(self, news: News) -> dict[str, Any]:
        """The next part of the choice as JSON: text that is final, and the log-probabilities of exactly this text."""
        text = without_surrogates("".join(news.text))
        if not self._begun:
            self._begun, text = True, self._echoed + text
            if self._asked.echo and self._asked.logprobs is not None:
                self._add_prompt(news.prompt_logprobs)
        self._length += len(text)
        self.tokens += news.tokens
        for found in news.logprobs:
            self._entries.append((self._places.push(found.token), found.token, found))
        self.finish_reason = {"records": "stop"}.get(str(news.finish_reason), news.finish_reason)
        part: dict[str, Any] = {
            "index": self._index,
            "text": text,
            "logprobs": None,
            "finish_reason": self.finish_reason,
        }
        if self._asked.logprobs is not None:
            part["logprobs"] = self._logprobs([*self._final(news)])
        return part

    def _add_prompt(self, found: list[TokenLogprobs]) -> None:
        """The tokens of the prompt. A first one that nothing predicts has no log-probability."""
        unpredicted: list[TokenLogprobs | None] = [None] * (len(self._prompt) - len(found))
        for token, logprobs in zip(self._prompt, [*unpredicted, *found], strict=True):
            self._entries.append((self._prompt_places.push(token), token, logprobs))

    def _final(self, news: News) -> Iterator[tuple[int, int, TokenLogprobs | None]]:
        """The tokens of the text that was handed out. Those that a stop string holds back stay, or never come.

        A text that ends by its length may end inside a character: its last bytes are tokens without text.
        """
        whole = news.finish_reason == "length"
        while self._entries and (whole or self._entries[0][0] < self._length):
            yield self._entries.popleft()

    def _logprobs(self, entries: list[tuple[int, int, TokenLogprobs | None]]) -> dict[str, Any]:
        return {
            "text_offset": [place for place, _, _ in entries],
            "tokens": [self._names[token] for _, token, _ in entries],
            "token_logprobs": [found and _logprob(found.logprob) for _, _, found in entries],
            "top_logprobs": [found and self._top(found) for _, _, found in entries],
        }

    def _top(self, found: TokenLogprobs) -> dict[str, float]:
        """By name. The chosen token is always there. Of two tokens with one name, the chosen or the more probable."""
        top = {self._names[found.token]: _logprob(found.logprob)}
        for token, logprob in found.top:
            top.setdefault(self._names[token], _logprob(logprob))
        return top


def _logprob(value: float) -> float:
    return max(value, LOWEST_LOGPROB)


class Answer:
    """The answer to one call: a whole one, or a stream of chunks."""

    def __init__(self, asked: CompletionRequest, name: str, made: Prepared, call: Call) -> None:
        self._asked, self._call, self._prompts = asked, call, made.prompts
        count = len(made.requests) // len(made.prompts)
        self._choices = [
            Choice(index, made.prompts[index // count], made.loaded, asked) for index in range(len(made.requests))
        ]
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": name,
        }

    async def whole(self) -> bytes:
        """The answer, when all texts have ended.

        Raises:
            ModelError, ApiError: as in `Call.chunks`.
        """
        news = await self._call.whole()
        choices = [choice.take(news[number]) for number, choice in enumerate(self._choices)]
        return to_json({**self._head, "choices": choices, "usage": self._usage()})

    async def events(self, seconds: float, observe: Callable[[float], None]) -> AsyncIterator[bytes]:
        """The chunks as server-sent events. An error in mid-stream is an event too, and the last one.

        Args:
            seconds: the least time between two chunks.
            observe: called with the time between two chunks in seconds.
        """
        usage = bool(self._asked.stream_options and self._asked.stream_options.include_usage)
        head = {**self._head, "usage": None} if usage else self._head
        last: float | None = None
        try:
            async for chunk in self._call.chunks(seconds):
                parts = [self._choices[number].take(news) for number, news in sorted(chunk.items())]
                if events := b"".join(_event({**head, "choices": [part]}) for part in parts if _says_something(part)):
                    now = time.monotonic()
                    if last is not None:
                        observe(now - last)
                    last = now
                    yield events
        except (ApiError, CharloomError) as error:
            yield _event(body_of(api_error(error)))
        else:
            if usage:
                yield _event({**head, "choices": [], "usage": self._usage()})
        yield b"data: [DONE]\n\n"

    def _usage(self) -> dict[str, int]:
        prompt = sum(map(len, self._prompts))
        generated = sum(choice.tokens for choice in self._choices)
        return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}


def _says_something(part: dict[str, Any]) -> bool:
    logprobs = part["logprobs"]
    return bool(part["text"] or part["finish_reason"] or (logprobs and logprobs["tokens"]))


def _event(value: object) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"
