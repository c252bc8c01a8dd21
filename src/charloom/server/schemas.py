"""The JSON of the other routes, for checks and for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from charloom.data.vocabulary import UnknownPolicy
from charloom.server.bodies import Body


class Tokenize(Body):
    """A text to tokenize."""

    model: str | None = Field(None, description="the name of a model; by default the first")
    prompt: str = Field(description="the text")
    unknown: UnknownPolicy = Field("error", description="characters that the model does not know")


def _ids(value: Any) -> Any:
    if isinstance(value, list) and all(type(token) is int for token in value):
        return value
    raise ValueError("`tokens` must be a list of token ids")


class Detokenize(Body):
    """Token ids to detokenize."""

    model: str | None = Field(None, description="the name of a model; by default the first")
    tokens: Annotated[list[int], BeforeValidator(_ids)] = Field(description="token ids")


class TraceRequest(Body):
    """A text to trace."""

    model: str | None = Field(None, description="the name of a model; by default the first")
    text: str = Field(description="the text that the model reads")
    gradients_of: int | None = Field(None, ge=0, description="a step: also the gradient of its loss")
    window: int | None = Field(None, ge=0, description="the number of steps before it in the gradients")
    unknown: UnknownPolicy = Field("error", description="characters that the model does not know")


class Reload(Body):
    """Which model to load again."""

    model: str | None = Field(None, description="the name of a model; by default all")


class ErrorDetails(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    """Every error."""

    error: ErrorDetails


class Logprobs(BaseModel):
    """The log-probabilities of a text, token by token; the tokens joined are the text."""

    text_offset: list[int]
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]


class CompletionChoice(BaseModel):
    """One text."""

    index: int
    text: str
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"] | None


class Usage(BaseModel):
    """Numbers of tokens. Each prompt counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(BaseModel):
    """An answer to a request for completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class ModelCard(BaseModel):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["charloom"]


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"]
    data: list[ModelCard]


class Tokens(BaseModel):
    """The tokens of a text."""

    count: int
    max_model_len: int = Field(description="the most tokens of all prompts in a request")
    tokens: list[int]


class Text(BaseModel):
    """The text of tokens."""

    prompt: str


class Health(BaseModel):
    """The state of the server."""

    status: Literal["ok", "loading", "stopping", "failed"]


class Reloaded(BaseModel):
    """The models that were loaded again."""

    reloaded: list[str]


class Traced(BaseModel):
    """A trace: the number of its first step, what each step reads, and arrays by name, as nested lists."""

    model_config = ConfigDict(extra="allow")

    first: int
    tokens: list[str]
    ids_T: list[int]
