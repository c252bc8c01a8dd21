"""The colours of a heat map: bits of a character → level → colours. A terminal and a web page show the same.

A level is the bits, rounded down: 0 … 9, where 9 is 9 bits or more. So a level is also a digit, for where there are no
colours.
"""

from __future__ import annotations

import math

LEVELS = 10

RAMP = ("#ffffcc", "#ffeda0", "#fed976", "#feb24c", "#fd8d3c", "#fc4e2a", "#e31a1c", "#bd0026", "#800026")
"""Backgrounds of the levels 1 … 9: YlOrRd of ColorBrewer (Brewer 2003). Level 0 has none."""

DARK, LIGHT = "#000000", "#ffffff"
LIGHT_FROM = 7
"""The level from which on white is legible: there it has more contrast with the background than black (WCAG 2)."""


def level_of(bits: float) -> int | None:
    """0 … 9; None for NaN: a character that is not predicted."""
    return None if math.isnan(bits) else int(min(bits, LEVELS - 1))


def colours(level: int | None) -> tuple[str, str] | None:
    """(foreground, background) as #rrggbb, legible on any page; None for the colours that the page has anyway."""
    return (DARK if level < LIGHT_FROM else LIGHT, RAMP[level - 1]) if level else None
