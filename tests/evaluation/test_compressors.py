"""The compressors that a model is compared with, against their own programs."""

from __future__ import annotations

import lzma

import numpy as np
import pyppmd
import pytest

from charloom.evaluation.compressors import PPMD_MEMORY, PPMD_ORDER, bits_after, ppmd_bits, xz_bits


def test_xz_bits_are_those_of_xz_9e():
    """Catches another preset, and bytes taken for bits."""
    data = b"".join(b"line %d of a text\n" % (n * n) for n in range(3000))
    expected = 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    assert xz_bits(data) == expected
    assert xz_bits(b"") == 8 * 32  # the container without content


def test_ppmd_bits_are_those_of_its_decoder():
    """Catches a stream that is not flushed: bits of a text that cannot be read again."""
    data = b"the cat sat on the mat. " * 50
    bits = ppmd_bits(data)
    coder = pyppmd.Ppmd7Encoder(PPMD_ORDER, PPMD_MEMORY)
    packed = coder.encode(data) + coder.flush()
    assert bits == 8 * len(packed)
    assert pyppmd.Ppmd7Decoder(PPMD_ORDER, PPMD_MEMORY).decode(packed, len(data)) == data
    assert bits < xz_bits(data)


@pytest.mark.parametrize("coder", [xz_bits, ppmd_bits])
def test_what_was_read_before_helps_and_is_not_counted(coder):
    """Catches bits of both texts in place of the second, and a second text without priming."""
    random = np.random.default_rng(0)
    before, other = (bytes(random.integers(97, 123, 20_000, np.uint8)) for _ in range(2))
    data = before[5_000:15_000]
    assert bits_after(coder, b"", data) == coder(data)
    assert bits_after(coder, before, data) < 0.1 * coder(data)
    assert bits_after(coder, other, data) > 0.9 * coder(data)
