"""Bits per character of compressors: the baselines for the score of a model.

A model has read its training text. So a compressor is primed with it: it compresses the training text and the scored
text together, and the bits for the training text alone are subtracted.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable

import pyppmd

from charloom.data.dataset import Dataset
from charloom.evaluation.text import bytes_of

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


def compressed(text: bytes, characters: int, data: Dataset | None) -> dict[str, float]:
    """Bits per character of xz and PPMd for a text in UTF-8, primed with the training text of `data`, if given."""
    before = b"" if data is None else bytes_of(data.vocabulary, data.ids("train").view()[-MOST:])
    return {
        f"{name}_bits_per_char": bits_after(coder, before, text) / characters
        for name, coder in (("xz", xz_bits), ("ppmd", ppmd_bits))
    } | {"compressors_read_bytes_before": len(before), "compressors_characters": characters}
