"""The colours of a heat map."""

from __future__ import annotations

import math

import pytest

from charloom.evaluation.heat import FIRST, LEVELS, colours, level_of


def test_levels_are_bits_rounded_down():
    """Catches a level for a character that is not predicted, a tenth level, and an overflow."""
    assert [level_of(bits) for bits in (-1e-9, 0.99, 1.0, 8.99, 9.0, 40.0, math.inf)] == [0, 0, 1, 8, 9, 9, 9]
    assert level_of(math.nan) is None


def luminance(colour):
    """The relative luminance of #rrggbb (WCAG 2)."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("level", range(FIRST, LEVELS))
def test_text_is_legible_and_its_colour_is_seen(level):
    """Catches text without contrast, and a background that is not visible on a black or a white page."""
    foreground, background = colours(level)
    assert (luminance(background) + 0.05) / (luminance(foreground) + 0.05) > 4.5
    assert (luminance(background) + 0.05) / 0.05 > 4.5
    assert 1.05 / (luminance(background) + 0.05) > 2


def test_what_is_not_surprising_has_no_colour():
    """Catches colours for characters with few bits, so that no character stands out."""
    assert [colours(level) for level in (None, 0, 1)] == [None] * 3
    assert len({colours(level) for level in range(FIRST, LEVELS)}) == LEVELS - FIRST
