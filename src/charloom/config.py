"""Every setting, defined once: its name, range, default and the reason for it.

A field here is also a flag of `charloom train` (`seq_length` is `--seq-length`), a keyword of `charloom.train()` and a
line of a run's `run.toml`. Values are checked on construction and never change afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from charloom import earlier
from charloom.character_class import listed_characters
from charloom.validation import unknown_name, validated

RecordKind = Literal["none", "line", "sentence", "paragraph", "file", "field"]


LARGEST = 10**100
"""The limit for every whole number: products and quotients of two such numbers are still finite floats."""

MOST_THREADS = 2**16
"""More than any machine has, and within the C int of the kernels and of PyTorch."""


class Section(BaseModel):
    """A group of settings: frozen, no unknown names, no infinities, and no number that is infinite as a float."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _no_infinity(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError(f"`{info.field_name}` must be at most 1e100; got {value}")
        return value


class Cleaning(Section):
    """The cleaning of every text that a model reads, including prompts. Stored with the model. By default, none.

    Here and on disk `allow` has the characters themselves; only `Settings.from_flat` reads ranges and escapes in it.
    """

    lowercase: bool = Field(False, description="turn every letter into its lower case")
    allow: str | None = Field(
        None, description="keep only these characters, listed as in a regular expression's [], such as 'a-zA-Z .\\n'"
    )
    newlines_to_spaces: bool = Field(False, description="turn every newline into a space")
    collapse_spaces: bool = Field(False, description="turn every run of spaces into one")
    normalize: Literal["nfc", "nfkc"] | None = Field(None, description="convert the text to this Unicode normal form")


class TextSettings(Cleaning):
    """How files become one clean text, its vocabulary and its split."""

    field: str | None = Field(
        None, description="the field (.jsonl, .json; user.name is nested) or column (.csv, .tsv) that holds the text"
    )
    encoding: str | None = Field(None, description="the encoding of the text  [UTF-8, else detected]")
    errors: Literal["strict", "replace", "ignore"] = Field(
        "strict", description="invalid bytes in the encoding: an error, replaced by U+FFFD, or left out"
    )
    binary: bool = Field(False, description="read and generate raw bytes, without an encoding; the vocabulary is bytes")
    records: RecordKind = Field(
        "none", description="the text is many short records of this kind; the model learns where each begins and ends"
    )
    keep_order: bool = Field(
        False, description="with `records`: they belong together and are read in their order, with the state carried"
    )
    vocabulary: Literal["auto", "characters", "bytes"] = Field(
        "auto",
        validate_default=True,
        description="what one token is; auto: characters, or bytes above 4,000 distinct characters",
    )
    min_count: int = Field(
        1, ge=1, description="replace characters that training has fewer than N times by one unknown token"
    )
    split: str = Field(
        "auto",
        description="sizes of the training, validation and test splits, as parts of the text or its records; auto: "
        "90/10/0, with at most 5 million tokens for validation",
    )

    @property
    def cleaning(self) -> Cleaning:
        """The part that is stored with the model."""
        return Cleaning.model_validate({name: getattr(self, name) for name in Cleaning.model_fields})

    @property
    def fractions(self) -> tuple[Fraction, Fraction, Fraction]:
        """The split as train, validation and test fractions that sum to 1. Exact: in floats 0.7 + 0.2 is below 0.9.

        With `auto`, validation may get a smaller part.
        """
        split = "90/10/0" if self.split == "auto" else self.split
        train, validation, test = [*map(Fraction, split.split("/")), Fraction(0)][:3]
        total = train + validation + test
        return train / total, validation / total, test / total

    @property
    def independent(self) -> bool:
        """Whether the records are independent: they are shuffled, and each is read from the zero state."""
        return self.records != "none" and not self.keep_order

    @field_validator("vocabulary")
    @classmethod
    def _bytes_for_binary(cls, vocabulary: str, info: ValidationInfo) -> str:
        if not info.data.get("binary"):
            return vocabulary
        if vocabulary == "characters":
            raise ValueError(
                "`vocabulary` must be 'bytes' with `binary=True`; got 'characters'; leave one of the two out"
            )
        return "bytes"

    @field_validator("split")
    @classmethod
    def _two_or_three(cls, split: str) -> str:
        number = r"\d{1,18}(\.\d{1,18})?"
        if split == "auto":
            return split
        if not re.fullmatch(rf"{number}(/{number}){{1,2}}", split) or Fraction(split.split("/")[0]) == 0:
            raise ValueError(f"`split` must be two or three numbers such as 80/10/10, the first above 0; got {split!r}")
        return split

    @model_validator(mode="after")
    def _field_for_records(self) -> Self:
        if self.records == "field" and self.field is None:
            raise ValueError("`records='field'` needs the name of a field; pass `field`")
        return self

    @model_validator(mode="after")
    def _records_to_keep_in_order(self) -> Self:
        if self.keep_order and self.records == "none":
            raise ValueError("`keep_order=True` needs records; pass `records`, for example `records='line'`")
        return self

    @model_validator(mode="after")
    def _no_decoding_of_binary(self) -> Self:
        for name, found, default in (("encoding", self.encoding, None), ("errors", self.errors, "strict")):
            if self.binary and found != default:
                raise ValueError(f"`{name}` must be left out with `binary=True`, which decodes nothing; got {found!r}")
        return self


class ModelSettings(Section):
    """The network: recurrent layers between an input and a softmax head.

    Without a plan, the size is the one that two cores train well in two minutes (LOG.md, "default size").
    """

    cell: Literal["rnn", "lstm", "gru"] = Field("lstm", description="the recurrent cell")
    nonlinearity: Literal["tanh", "relu"] = Field("tanh", description="activation function, with `cell='rnn'`")
    input_gate: Literal["free", "capped"] = Field(
        "free", description="of an LSTM; capped: at most 1 minus the forget gate, which keeps the cell state within ±1"
    )
    layers: int = Field(1, ge=1, le=64, description="number of recurrent layers")
    hidden: int = Field(256, ge=1, le=65536, description="units in each layer")
    input: Literal["embedding", "onehot", "scalar"] = Field(
        "embedding",
        description="how a token enters the network: as a learned vector, one-hot, or its index/V as one number",
    )
    embedding: int = Field(64, ge=1, le=65536, description="size of the learned vector, with `input='embedding'`")


class TrainingSettings(Section):
    """How the network is trained, how long, and on which data."""

    minutes: float | None = Field(None, gt=0, description="train for X minutes  [5 without another budget]")
    epochs: int | None = Field(None, ge=1, description="train for N passes over the training text")
    steps: int | None = Field(
        None, ge=1, description="train for N steps; of several budgets, the first that is spent ends training"
    )
    batches: Literal["streams", "windows", "records"] = Field(
        "streams",
        description="streams: parallel parts of the text, with carried state; windows: all windows, shuffled; "
        "records: chunks, shuffled, each from the zero state. If records are independent (`records` without "
        "`keep_order`), a batch always has whole records",
    )
    state: Literal["carry", "reset"] = Field(
        "carry", description="at each step of a stream or a long record: carry the hidden state, or reset it to zero"
    )
    loss: Literal["every", "last"] = Field(
        "every", description="predict after every token of a step, or only after the last one"
    )
    wrap: bool = Field(False, description="read the text as a ring: the first character follows the last one")
    batch_size: int = Field(32, ge=1, description="sequences in a batch")
    seq_length: int = Field(64, ge=1, description="tokens in a step; gradients go back as many")
    optimizer: Literal["adamw", "adam", "rmsprop", "adagrad", "sgd"] = Field("adamw", description="the optimizer")
    momentum: float = Field(
        0.9, ge=0, lt=1, description="momentum, with `optimizer='sgd'`; 0 is plain gradient descent"
    )
    nesterov: bool = Field(False, description="Nesterov momentum, with `optimizer='sgd'`")
    beta1: float = Field(
        0.9, ge=0, lt=1, description="decay of the mean gradient at each step, for adamw and adam; 0 takes no mean"
    )
    beta2: float = Field(
        0.99, ge=0, lt=1, description="decay of the mean squared gradient at each step, for adamw, adam and rmsprop"
    )
    weight_decay: float = Field(0.01, ge=0, description="weight decay of matrices; biases have none")
    lr: float = Field(0.01, gt=0, description="highest learning rate, reached at the end of the warm-up")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="learning rate after the warm-up: falling as a cosine, or constant"
    )
    warmup: float = Field(0.03, ge=0, lt=1, description="part of the budget in which the learning rate rises")
    clip: float = Field(1.0, ge=0, description="clip the norm of the gradient to this; 0 is off")
    clip_value: float = Field(
        0.0, ge=0, description="before that, clip each number of the gradient to this size; 0 is off"
    )
    dropout: float = Field(
        0.3, ge=0, lt=1, description="part of the units that is dropped between layers and before the head"
    )
    dropout_mask: Literal["fresh", "locked"] = Field(
        "fresh", description="draw the dropped units anew for every token, or once for each sequence and step"
    )
    weight_drop: float = Field(
        0.0, ge=0, lt=1, description="part of the recurrent weights that is dropped in each step"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of all random numbers")
    validate_every: Annotated[int, Field(ge=1)] | Literal["epoch"] | None = Field(
        None, description="validate every N steps, or after each epoch  [20 times in the budget]"
    )
    best_by: Literal["validation", "training"] = Field(
        "validation",
        description="the loss that chooses the best model; the training loss is the mean since the last validation",
    )
    patience: int | None = Field(None, ge=1, description="stop after N validations without a better model  [never]")
    keep: Annotated[int, Field(ge=1)] | Literal["best"] | None = Field(
        None, description="also keep the model of every Nth validation, or each new best model, in kept/"
    )
    checkpoint_every: int | None = Field(
        None, ge=1, description="save every N steps  [at each validation and every minute]"
    )
    sample_length: int = Field(240, ge=0, le=100_000, description="characters generated at each validation")
    sample_temperature: float = Field(0.7, ge=0, description="temperature of those; 0 is greedy")
    engine: Literal["auto", "native", "torch", "numpy"] = Field(
        "auto", description="what computes; auto: torch with a GPU, else native (the kernels)"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where to train")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="number format of the matrix products")
    threads: int | None = Field(
        None, ge=1, le=MOST_THREADS, description="number of CPU threads  [all cores, at most 64]"
    )

    @field_validator("validate_every", "keep", mode="before")
    @classmethod
    def _count_or_word(cls, value: Any, info: ValidationInfo) -> Any:
        """Gives one message for both kinds of value; pydantic would report an error for each kind."""
        word = {"validate_every": "epoch", "keep": "best"}[str(info.field_name)]
        if value is None or value == word:
            return value
        if isinstance(value, bool) or not re.fullmatch(r"\d{1,18}", str(value)) or int(value) == 0:
            raise ValueError(f"`{info.field_name}` must be a whole number of at least 1, or {word!r}; got {value!r}")
        return int(value)

    @model_validator(mode="after")
    def _momentum_for_nesterov(self) -> Self:
        if self.nesterov and not (self.optimizer == "sgd" and self.momentum):
            found = f"`momentum={self.momentum:g}`" if self.optimizer == "sgd" else f"`optimizer={self.optimizer!r}`"
            raise ValueError(f"`nesterov=True` needs `optimizer='sgd'` and a `momentum` above 0; got {found}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _five_minutes(cls, values: Any) -> Any:
        if isinstance(values, dict) and all(values.get(name) is None for name in BUDGETS):
            return {**values, "minutes": 5.0}
        return values


class Settings(Section):
    """All settings of a run, in the sections of its `run.toml`."""

    text: TextSettings = Field(default_factory=TextSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)

    @model_validator(mode="after")
    def _independent_records_as_they_are(self) -> Self:
        """Refuses settings that would read across two independent records."""
        crossing = {"batches='windows'": self.training.batches == "windows", "wrap=True": self.training.wrap}
        for argument, given in crossing.items():
            if given and self.text.independent:
                raise ValueError(
                    f"`{argument}` would read across independent records; pass `keep_order=True`, or leave it out"
                )
        return self

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from flat names, as flags and keywords give them; `allow` is read by `listed_characters`.

        Raises:
            SettingsError: for a name that no section has, or a value outside its range.
        """
        if isinstance(allow := values.get("allow"), str):
            values = {**values, "allow": listed_characters(allow)}
        return cls().replaced(values)

    @property
    def flat(self) -> dict[str, Any]:
        """All settings by their flat names."""
        return {name: value for _, section in self for name, value in section}

    def replaced(self, values: Mapping[str, Any]) -> Settings:
        """These settings with other values, by their flat names; `allow` is the characters themselves.

        Any budget among the values replaces all budgets.

        Raises:
            SettingsError: for a name that no section has, or a value outside its range.
        """
        sections = {name: dict(section) for name, section in self}
        if any(values.get(name) is not None for name in BUDGETS):
            sections["training"] |= dict.fromkeys(BUDGETS)
        for name, value in values.items():
            sections[_section_of(name)][name] = value
        return validated(type(self), sections)


def _section_of(setting: str) -> str:
    for section, kind in SECTIONS.items():
        if setting in kind.model_fields:
            return section
    raise unknown_name(setting, [name for kind in SECTIONS.values() for name in kind.model_fields])


def with_current_names(values: Mapping[str, Any], notice: Callable[[str], None]) -> dict[str, Any]:
    """Settings under their current names. A former name works for one version, with a notice."""
    for old in earlier.SETTINGS.keys() & values.keys():
        notice(f"`{old}` is now called `{earlier.SETTINGS[old]}`; the next version will not accept the former name")
    return earlier.renamed(values, earlier.SETTINGS)


BUDGETS = ("minutes", "epochs", "steps")
ADAM = ("adam", "adamw")
"""Optimizers whose update the kernels have, and whose learning rate can be planned."""
PLANNED = ("hidden", "input_gate", "dropout", "dropout_mask", "weight_drop", "lr", "beta1", "weight_decay")
"""Settings that `training/planning.py` plans if the budget is in minutes and the user did not set them: `input_gate`
only for an LSTM, `lr` and `beta1` only for Adam and AdamW, `weight_decay` only for AdamW.
"""
SECTIONS: dict[str, type[Section]] = {"text": TextSettings, "model": ModelSettings, "training": TrainingSettings}
