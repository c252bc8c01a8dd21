"""What compressors need for a text: the baselines of a model's bits per character.

A model has read its training text. For a compressor to have read it too, it stores both, and what the training text
alone takes is subtracted.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable

import pyppmd

PPMD_ORDER = 6
"""Characters that PPMd looks back; of 4 to 16 the best on tiny-shakespeare, by 0.003 bits (LOG.md)."""

PPMD_MEMORY = 2**28
"""Bytes for PPMd's statistics: those of a few tens of megabytes of text."""


def xz_bits(data: bytes) -> int:
    """Bits that `xz -9e` needs for these bytes, its container included."""
    return 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


def ppmd_bits(data: bytes) -> int:
    """Bits that PPMd needs (Shkarin 2002, variant H), which predicts each byte from those before it as a model does."""
    coder = pyppmd.Ppmd7Encoder(PPMD_ORDER, PPMD_MEMORY)
    return 8 * (len(coder.encode(data)) + len(coder.flush()))


def bits_after(coder: Callable[[bytes], int], before: bytes, data: bytes) -> int:
    """Bits that a compressor needs for the data once it has seen what comes before."""
    return coder(before + data) - coder(before) if before else coder(data)
