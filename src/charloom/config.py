"""Every setting, once: its name, its range, its default and the reason for it.

A field here is at the same time a flag of `charloom train` (`seq_length` is `--seq-length`), a keyword of
`charloom.train()` and a line of a run's `run.toml`. Values are checked on construction and never change after it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from charloom.errors import SettingsError

RecordKind = Literal["none", "line", "paragraph", "file", "field"]


class Section(BaseModel):
    """A group of settings: frozen, without unknown names, without infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Cleaning(Section):
    """What is done to every text before a model sees it, prompts included. Stored with the model; all off at first."""

    lowercase: bool = Field(False, description="turn every letter into its lower case")
    allow: str | None = Field(None, description="keep only these characters, drop all others")
    newlines_to_spaces: bool = Field(False, description="turn every newline into a space")
    collapse_spaces: bool = Field(False, description="turn every run of spaces into one")
    normalize: Literal["nfc", "nfkc"] | None = Field(None, description="Unicode normal form")


class TextSettings(Cleaning):
    """How files become one clean text, its vocabulary and its split."""

    field: str | None = Field(None, description="the field (.jsonl) or column (.csv) that holds the text")
    encoding: str | None = Field(None, description="insist on this encoding; otherwise UTF-8, else detected")
    records: RecordKind = Field("none", description="what one short text is; a boundary symbol marks its start and end")
    vocabulary: Literal["auto", "characters", "bytes"] = Field(
        "auto", description="characters; bytes (any language, any file); auto: bytes above 1,000 distinct characters"
    )
    min_count: int = Field(1, ge=1, description="fold characters seen fewer times in training into one unknown symbol")
    split: str = Field("90/10/0", description="train/validation/test in parts of the text, or of the records")

    @property
    def cleaning(self) -> Cleaning:
        """The part that goes with the model."""
        return Cleaning.model_validate({name: getattr(self, name) for name in Cleaning.model_fields})

    @property
    def fractions(self) -> tuple[float, float, float]:
        """The split as train, validation and test fractions that sum to 1."""
        parts = [*map(float, self.split.split("/")), 0.0]
        total = sum(parts[:3])
        return parts[0] / total, parts[1] / total, parts[2] / total

    @model_validator(mode="after")
    def _check(self) -> Self:
        number = r"\d+(\.\d+)?"
        if not re.fullmatch(rf"{number}(/{number}){{1,2}}", self.split) or float(self.split.split("/")[0]) <= 0:
            raise ValueError(
                f"split must be two or three numbers such as 80/10/10, the first above 0; got {self.split!r}"
            )
        if self.records == "field" and self.field is None:
            raise ValueError("records field needs a field: pass --field NAME")
        return self


class ModelSettings(Section):
    """The network: recurrent layers between an input and a softmax head.

    The size is what two cores train well in the minutes that people have: LOG.md, "default size".
    """

    cell: Literal["rnn", "lstm", "gru"] = Field("lstm", description="the recurrent cell")
    nonlinearity: Literal["tanh", "relu"] = Field("tanh", description="of the rnn cell")
    layers: int = Field(1, ge=1, le=64, description="recurrent layers, one above the other")
    hidden: int = Field(256, ge=1, le=65536, description="units in each layer")
    input: Literal["embedding", "onehot", "scalar"] = Field(
        "embedding", description="a learned vector for each character; one-hot; or its index/V as one number"
    )
    embedding: int = Field(64, ge=1, le=65536, description="size of that vector, with --input embedding")
    dropout: float = Field(0.0, ge=0, lt=1, description="between layers and before the head, while training")


class TrainingSettings(Section):
    """How the network is trained, for how long, and on what."""

    minutes: float | None = Field(None, gt=0, description="budget: so many minutes (5 where no budget is given)")
    epochs: int | None = Field(None, ge=1, description="budget: so many passes over the training text")
    steps: int | None = Field(None, ge=1, description="budget: so many steps; the budget that ends first counts")
    batches: Literal["streams", "windows", "records"] = Field(
        "streams", description="parallel streams with carried state; every window, shuffled; or one record a row"
    )
    state: Literal["carry", "reset"] = Field("carry", description="from step to step, with --batches streams")
    loss: Literal["every", "last"] = Field("every", description="predict after every step, or after the last one only")
    batch_size: int = Field(32, ge=1, description="texts side by side in a step")
    seq_length: int = Field(64, ge=1, description="characters a step; gradients reach back this far")
    optimizer: Literal["adamw", "adam", "rmsprop", "sgd"] = Field("adamw", description="the kind of gradient descent")
    lr: float = Field(0.01, gt=0, description="the highest learning rate, after the warm-up")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="of the learning rate, after the warm-up")
    warmup: float = Field(0.03, ge=0, lt=1, description="part of the budget in which the learning rate rises")
    weight_decay: float = Field(0.01, ge=0, description="on matrices only, never on biases")
    clip: float = Field(1.0, ge=0, description="largest norm of the gradient; 0 never clips")
    seed: int = Field(0, ge=0, lt=2**63, description="of everything random")
    validate_every: int | None = Field(None, ge=1, description="steps; by default 20 times a budget")
    checkpoint_every: int | None = Field(None, ge=1, description="steps; by default with each validation")
    patience: int | None = Field(None, ge=1, description="stop after so many validations without a better one")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="of the products")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where to train")
    engine: Literal["auto", "torch"] = Field("auto", description="what trains")
    threads: int | None = Field(None, ge=1, description="CPU threads; by default all cores")

    @model_validator(mode="before")
    @classmethod
    def _five_minutes(cls, values: Any) -> Any:
        if isinstance(values, dict) and all(values.get(name) is None for name in ("minutes", "epochs", "steps")):
            return {**values, "minutes": 5.0}
        return values


class Settings(Section):
    """All settings of a run, in the sections of its `run.toml`."""

    text: TextSettings = Field(default_factory=TextSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from flat names, as flags and keywords give them.

        Raises:
            SettingsError: for a name that no section has, or a value outside its range.
        """
        sections: dict[str, dict[str, Any]] = {"text": {}, "model": {}, "training": {}}
        for name, value in values.items():
            for section, kind in SECTIONS.items():
                if name in kind.model_fields:
                    sections[section][name] = value
                    break
            else:
                raise SettingsError(f"{name} is not a setting; `charloom train --help` lists them")
        return validated(cls, sections)


SECTIONS: dict[str, type[Section]] = {"text": TextSettings, "model": ModelSettings, "training": TrainingSettings}

S = TypeVar("S", bound=BaseModel)


def validated(kind: type[S], values: Mapping[str, Any]) -> S:
    """`kind(**values)`, with the first mistake as one line.

    Raises:
        SettingsError: names the setting, what must hold and what was found.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "value_error":
            raise SettingsError(message) from None
        name = str(first["loc"][-1]) if first["loc"] else kind.__name__
        must = message.removeprefix("Input should be ").removeprefix("Input should ")
        raise SettingsError(f"{name} must be {must[0].lower()}{must[1:]}; got {first['input']!r}", name) from None
