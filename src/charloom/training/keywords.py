"""The settings as keywords of `charloom.train`, for type checkers and editors.

`charloom.config` has their meaning, range and default. A test keeps names and types equal.
"""

from __future__ import annotations

from typing import Literal, TypedDict


class TextKeywords(TypedDict, total=False):
    """How files become one clean text, its vocabulary and its split."""

    lowercase: bool
    allow: str | None
    newlines_to_spaces: bool
    collapse_spaces: bool
    normalize: Literal["nfc", "nfkc"] | None
    field: str | None
    encoding: str | None
    errors: Literal["strict", "replace", "ignore"]
    binary: bool
    records: Literal["none", "line", "sentence", "paragraph", "file", "field"]
    keep_order: bool
    vocabulary: Literal["auto", "characters", "bytes"]
    min_count: int
    split: str


class ModelKeywords(TypedDict, total=False):
    """The network."""

    cell: Literal["rnn", "lstm", "gru"]
    nonlinearity: Literal["tanh", "relu"]
    input_gate: Literal["free", "capped"]
    layers: int
    hidden: int
    input: Literal["embedding", "onehot", "scalar"]
    embedding: int


class Budget(TypedDict, total=False):
    """How long a run trains. If there are several budgets, the one that ends first counts."""

    minutes: float | None
    epochs: int | None
    steps: int | None


class TrainingKeywords(Budget, total=False):
    """How the network is trained, how long, and on which data."""

    batches: Literal["streams", "windows", "records"]
    state: Literal["carry", "reset"]
    loss: Literal["every", "last"]
    wrap: bool
    batch_size: int
    seq_length: int
    optimizer: Literal["adamw", "adam", "rmsprop", "adagrad", "sgd"]
    momentum: float
    nesterov: bool
    beta1: float
    beta2: float
    weight_decay: float
    lr: float
    schedule: Literal["cosine", "constant"]
    warmup: float
    clip: float
    clip_value: float
    dropout: float
    dropout_mask: Literal["fresh", "locked"]
    weight_drop: float
    seed: int
    validate_every: int | Literal["epoch"] | None
    best_by: Literal["validation", "training"]
    patience: int | None
    keep: int | Literal["best"] | None
    checkpoint_every: int | None
    sample_length: int
    sample_temperature: float
    engine: Literal["auto", "native", "torch", "numpy"]
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "fp32", "bf16"]
    threads: int | None


class SettingsKeywords(TextKeywords, ModelKeywords, TrainingKeywords, total=False):
    """Every setting, by its flat name."""
