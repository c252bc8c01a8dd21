"""Bits per character of compressors: the baselines for the score of a model.

A model has read its training text. So a compressor is primed with it: it compresses the training text and the scored
text together, and the bits for the training text alone are subtracted.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyppmd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from charloom.data.dataset import Dataset
    from charloom.data.vocabulary import Vocabulary

MOST = 2**23
"""Tokens of the scored text, and of the end of the training text, that a compressor reads: PPMd takes 20 seconds."""

PPMD_ORDER = 6
"""PPMd's order, in characters of context; of 4 to 16 the best on tiny-shakespeare, by 0.003 bits (LOG.md)."""

PPMD_MEMORY = 2**28
"""Bytes for PPMd's statistics: enough for a few tens of megabytes of text."""


def xz_bits(data: bytes) -> int:
    """Bits that `xz -9e` needs for these bytes, with its container."""
    return 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


def ppmd_bits(data: bytes) -> int:
    """Bits that PPMd needs (Shkarin 2002, variant H); like a model, it predicts each byte from those before it."""
    coder = pyppmd.Ppmd7Encoder(PPMD_ORDER, PPMD_MEMORY)
    return 8 * (len(coder.encode(data)) + len(coder.flush()))


def bits_after(coder: Callable[[bytes], int], before: bytes, data: bytes) -> int:
    """Bits that a compressor primed with `before` needs for the data."""
    return coder(before + data) - coder(before) if before else coder(data)


def bytes_of(vocabulary: Vocabulary, ids: NDArray[Any]) -> bytes:
    """The text of ids in UTF-8; with a byte-level vocabulary, the bytes themselves."""
    if vocabulary.kind == "bytes":
        return np.where(ids < 256, ids, ord("\n")).astype(np.uint8).tobytes()  # a separator as a newline
    return vocabulary.decode(ids).encode("utf-8", "surrogateescape")


def characters_of(vocabulary: Vocabulary, ids: NDArray[Any]) -> int:
    """The number of characters in ids: of UTF-8 bytes, those that begin a character; of binary bytes, see `Decoder`."""
    if vocabulary.kind != "bytes":
        return len(ids)
    if vocabulary.binary:
        return len(bytes_of(vocabulary, ids).decode("utf-8", "surrogateescape"))
    chunks = (ids[start : start + MOST] for start in range(0, len(ids), MOST))
    return len(ids) - sum(int(((chunk >= 0x80) & (chunk < 0xC0)).sum()) for chunk in chunks)


def compressed(text: bytes, characters: int, data: Dataset | None) -> dict[str, float]:
    """Bits per character of xz and PPMd for a text in UTF-8, primed with the training text of `data`, if given."""
    before = b"" if data is None else bytes_of(data.vocabulary, data.ids("train").view()[-MOST:])
    return {
        f"{name}_bits_per_char": bits_after(coder, before, text) / characters
        for name, coder in (("xz", xz_bits), ("ppmd", ppmd_bits))
    } | {"compressors_read_bytes_before": len(before), "compressors_characters": characters}
