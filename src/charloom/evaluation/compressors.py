"""Bits per character of compressors: the baselines for the score of a model.

A model has read its training text. So a compressor is primed with it: it compresses the training text followed by the
scored text. The bits for the training text alone are subtracted.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable

import pyppmd

from charloom.data.dataset import Dataset
from charloom.evaluation.text import bytes_of

MOST = 2**23
"""Most tokens that a compressor reads of the scored text, and of the end of the training text: 20 s for PPMd."""

PPMD_ORDER = 6
"""PPMd's order, in characters of context. Of 4 to 16, it is the best on tiny-shakespeare, by 0.003 bits (LOG.md)."""

PPMD_MEMORY = 2**28
"""Bytes for PPMd's statistics: enough for some tens of megabytes of text."""


def xz_bits(data: bytes) -> int:
    """Bits that `xz -9e` needs for these bytes, including its container."""
    return 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


def ppmd_bits(data: bytes) -> int:
    """Bits that PPMd needs (Shkarin 2002, variant H). Like a model, it predicts each byte from the bytes before it."""
    coder = pyppmd.Ppmd7Encoder(PPMD_ORDER, PPMD_MEMORY)
    return 8 * (len(coder.encode(data)) + len(coder.flush()))


def bits_after(coder: Callable[[bytes], int], before: bytes, data: bytes) -> int:
    """Bits that a compressor needs for `data` after it was primed with `before`."""
    return coder(before + data) - coder(before) if before else coder(data)


def compressed(text: bytes, characters: int, data: Dataset | None) -> dict[str, float]:
    """Bits per character of xz and PPMd for a text in UTF-8. If `data` is given, they are primed with its training
    text.
    """
    before = b"" if data is None else bytes_of(data.vocabulary, data.ids("train").view()[-MOST:])
    return {
        f"{name}_bits_per_char": bits_after(coder, before, text) / characters
        for name, coder in (("xz", xz_bits), ("ppmd", ppmd_bits))
    } | {"compressors_read_bytes_before": len(before), "compressors_characters": characters}
