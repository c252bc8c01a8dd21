"""The colours of a heat map: from a character's bits to a level to colours, for a terminal and a web page alike.

A level is the number of bits, rounded down: 0 … 9, where 9 is 9 bits or more. A level is one digit, so it can be
printed where colours are not available.
"""

from __future__ import annotations

import math

LEVELS = 10
FIRST = 2
"""The first level with a colour. If every character above 1 bit had one, half of an English text would be coloured."""

RAMP = ("#aeac93", "#b3a577", "#be9a59", "#cc8b3c", "#da7921", "#e66216", "#f04629", "#f51945")
"""Backgrounds of the levels 2 … 9, from grey to red, in OKLCH (Ottosson 2020): lightness 0.74 to 0.62, chroma 0.035 to
0.24, hue 105° to 20°. The lightness changes little, so the highest levels are prominent on dark and on light pages. A
ramp from light to dark, such as ColorBrewer's YlOrRd, makes the lowest levels prominent on a dark page.
"""

FOREGROUND = "#000000"  # its contrast with every background is above 5 (WCAG 2 requires 4.5)


def level_of(bits: float) -> int | None:
    """0 … 9, or None for NaN: a character that is not predicted."""
    return None if math.isnan(bits) else int(min(bits, LEVELS - 1))


def colours(level: int | None) -> tuple[str, str] | None:
    """(foreground, background) as #rrggbb, legible on any page. None stands for the page's own colours."""
    return None if level is None or level < FIRST else (FOREGROUND, RAMP[level - FIRST])
