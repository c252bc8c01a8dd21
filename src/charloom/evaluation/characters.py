"""The static score of each character and of each line. It shows which parts of a text a model predicts badly.

All functions work in chunks. So memory does not grow with the text, except for its token ids.

Shapes: T tokens, N targets, C characters, V vocabulary size.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charloom.checkpoint import ModelFolder
from charloom.data.vocabulary import RECORD_SEPARATOR, IdArray, Vocabulary
from charloom.evaluation import static
from charloom.evaluation.engine import open_evaluation_engine
from charloom.evaluation.text import EvaluationText

Doubles = NDArray[np.float64]
CodePoints = NDArray[np.uint32]

UNKNOWN = 0xFFFD
FIRST_ESCAPE, LAST_ESCAPE = 0xDC80, 0xDCFF  # bytes that are not UTF-8 (PEP 383)
LINE_END = re.compile(f"[\n{RECORD_SEPARATOR}]")


@dataclass(frozen=True)
class CharacterNats:
    """Consecutive characters of a text, and the nats of each.

    text: C characters, with `RECORD_SEPARATOR` for a record separator; nats_C: NaN for a character that is not
    predicted, which can only be the first one of a text; start: the position in the text of the first of these
    characters.
    """

    text: str
    nats_C: Doubles
    start: int

    @property
    def bits_C(self) -> Doubles:
        """The same in bits."""
        return self.nats_C / math.log(2)


@dataclass(frozen=True)
class LineNats:
    """A line of a text and its nats.

    number: from 1; text: without the newline or separator that ends the line; characters: the number of predicted
    characters; nats: their sum. Both include that newline or separator.
    """

    number: int
    text: str
    characters: int
    nats: float

    @property
    def bits_per_char(self) -> float | None:
        """None for a line without a predicted character: only the first line, if it is empty."""
        return self.nats / math.log(2) / self.characters if self.characters else None


def per_character(model: ModelFolder, text: EvaluationText) -> Iterator[CharacterNats]:
    """The static score of each character, in order.

    A character of a byte-level model has the sum of its bytes' nats. The text is what the model reads. A character that
    it does not know is U+FFFD, or its replacement, or is left out.
    """
    ids_T, position = text.ids_T, 0
    done = int(ids_T[0] == text.vocabulary.separator_id)  # 1: a model of records reads a separator first
    waiting_T = np.full(1 - done, math.nan)  # nats of tokens whose character is not complete
    for nats_N, _ in static.targets(open_evaluation_engine(model), ids_T, model.reset_id):
        nats_T = np.concatenate([waiting_T, nats_N])
        stop = done + len(nats_T)
        found, nats_C, used = _decoded(text.vocabulary, ids_T[done:stop], nats_T, stop == len(ids_T))
        yield CharacterNats(found, nats_C, position)
        waiting_T, done, position = nats_T[used:], done + used, position + len(found)


def per_line(chunks: Iterable[CharacterNats]) -> Iterator[LineNats]:
    """The lines of the text of `per_character`. A record separator also ends a line."""
    number, texts, characters, nats = 1, list[str](), 0, 0.0
    for chunk in chunks:
        predicted_C = ~np.isnan(chunk.nats_C)
        start = 0
        for stop in [match.end() for match in LINE_END.finditer(chunk.text)] + [len(chunk.text)]:
            texts.append(chunk.text[start:stop])
            characters += int(predicted_C[start:stop].sum())
            nats += float(chunk.nats_C[start:stop].sum(where=predicted_C[start:stop]))
            if texts[-1].endswith(("\n", RECORD_SEPARATOR)):
                yield LineNats(number, "".join(texts)[:-1], characters, nats)
                number, texts, characters, nats = number + 1, [], 0, 0.0
            start = stop
    if any(texts):
        yield LineNats(number, "".join(texts), characters, nats)


def _decoded(vocabulary: Vocabulary, ids_T: IdArray, nats_T: Doubles, final: bool) -> tuple[str, Doubles, int]:
    """(text, nats_C, number of tokens used). Bytes of an incomplete character at the end of a chunk are not used."""
    if vocabulary.kind == "characters":
        special = [UNKNOWN] * vocabulary.unknown + [ord(RECORD_SEPARATOR)] * vocabulary.separator
        codes_V = np.array([*map(ord, vocabulary.characters), *special], np.uint32)
        return _text(codes_V[ids_T]), nats_T, len(ids_T)
    text_bytes = np.where(ids_T < 256, ids_T, ord("\n")).astype(np.uint8).tobytes()
    found, used = codecs.utf_8_decode(text_bytes, "surrogateescape", final)
    codes_C = np.frombuffer(found.encode("utf-32-le", "surrogatepass"), np.uint32).copy()
    starts_C, nats_C = _summed(codes_C, nats_T[:used])
    if not vocabulary.binary:
        codes_C[(codes_C >= FIRST_ESCAPE) & (codes_C <= LAST_ESCAPE)] = UNKNOWN
    special_C = ids_T[starts_C]
    codes_C[special_C >= 256] = UNKNOWN
    codes_C[special_C == (vocabulary.separator_id or -1)] = ord(RECORD_SEPARATOR)
    return _text(codes_C), nats_C, used


def _summed(codes_C: CodePoints, nats_T: Doubles) -> tuple[NDArray[np.int64], Doubles]:
    """(the first byte of each character, the sum of its bytes' nats); NaN if no byte is predicted."""
    escapes_C = (codes_C >= FIRST_ESCAPE) & (codes_C <= LAST_ESCAPE)
    lengths_C = np.where(escapes_C, 1, 1 + (codes_C >= 0x80) + (codes_C >= 0x800) + (codes_C >= 0x10000))
    starts_C = np.cumsum(lengths_C) - lengths_C
    if not len(codes_C):
        return starts_C, np.empty(0)
    predicted_T = ~np.isnan(nats_T)
    sums_C = np.add.reduceat(np.where(predicted_T, nats_T, 0.0), starts_C)
    return starts_C, np.where(np.logical_or.reduceat(predicted_T, starts_C), sums_C, math.nan)


def _text(codes_C: CodePoints) -> str:
    return codes_C.tobytes().decode("utf-32-le", "surrogatepass")
