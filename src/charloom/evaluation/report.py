"""The evaluation of a model on a text, as one `Report`. `Model.evaluate` and `charloom eval` use it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from charloom.checkpoint import ModelFolder
from charloom.data.dataset import Dataset
from charloom.errors import SettingsError
from charloom.evaluation import compressors, static
from charloom.evaluation.dynamic import dynamic as dynamic_nats
from charloom.evaluation.engine import open_evaluation_engine
from charloom.evaluation.text import EvaluationText, run_data
from charloom.score import Score


@dataclass(frozen=True)
class Report:
    """How well a model predicts a text, and how well compressors do. A figure that was not asked for is None.

    characters: the number of predicted characters; accuracy: the share of tokens, 0 … 1, that were the top guess. The
    first five are the static score: every character counts once, and the state is carried.

    bytes, bits_per_byte: of byte-level models. windows_nats_per_char: in windows of `windows_length` tokens, each from
    the zero state. dynamic_nats_per_char: the model learns from each chunk after that chunk was scored.

    xz_bits_per_char, ppmd_bits_per_char: of `xz -9e` and PPMd, on the first `compressors_characters` characters of the
    text. They were primed with `compressors_read_bytes_before` bytes of the training text; 0 without the run's data.
    """

    characters: int
    nats_per_char: float
    bits_per_char: float
    perplexity: float
    accuracy: float
    bytes: int | None = None
    bits_per_byte: float | None = None
    windows_length: int | None = None
    windows_nats_per_char: float | None = None
    dynamic_nats_per_char: float | None = None
    xz_bits_per_char: float | None = None
    ppmd_bits_per_char: float | None = None
    compressors_read_bytes_before: int | None = None
    compressors_characters: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The figures that were asked for, by their names."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def evaluate(
    model: ModelFolder,
    text: EvaluationText,
    dynamic: bool = False,
    windows: int | None = None,
    baselines: bool = True,
) -> Report:
    """Scores a text by each protocol that is asked for. All protocols use one engine.

    Args:
        model: the model to evaluate.
        text: the result of `evaluation_text`.
        dynamic: adds dynamic evaluation.
        windows: adds windows of this many tokens, at most the number of predicted tokens.
        baselines: adds xz and PPMd: half a minute for 8 MB.

    Raises:
        SettingsError: if `windows` is below 1, or the model has independent records.
    """
    if windows is not None:
        _check_windows(model, windows)
        windows = min(windows, len(text.ids_T) - 1)
    engine = open_evaluation_engine(model)
    score = static.score(engine, text, model.reset_id)
    figures = _of_score(score, text.vocabulary.kind == "bytes")
    if windows is not None:
        mean = static.in_windows(engine, text.ids_T, windows).nats_per_char
        figures |= {"windows_length": windows, "windows_nats_per_char": mean * score.tokens / score.characters}
    if dynamic:  # last, because it changes the engine's weights
        nats = dynamic_nats(engine, text.ids_T, model.reset_id)
        figures["dynamic_nats_per_char"] = nats / score.characters
    if baselines:
        figures |= _compressed(text, run_data(model))
    return Report(**figures)


def _check_windows(model: ModelFolder, length: int) -> None:
    if type(length) is not int or length < 1:
        raise SettingsError(f"`windows` must be a number from 1; got {length!r}")
    if model.reset_id is not None:
        raise SettingsError("`windows` needs a model without independent records; this one has them; leave it out")


def _of_score(score: Score, of_bytes: bool) -> dict[str, Any]:
    """The figures of the static score."""
    figures = {
        name: getattr(score, name)
        for name in ("characters", "nats_per_char", "bits_per_char", "perplexity", "accuracy")
    }
    if of_bytes:
        figures |= {"bytes": score.tokens, "bits_per_byte": score.nats / score.tokens / math.log(2)}
    return figures


def _compressed(text: EvaluationText, data: Dataset | None) -> dict[str, float]:
    beginning, characters = text.beginning(compressors.MOST)
    return compressors.compressed(beginning, characters, data)
