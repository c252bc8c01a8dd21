"""The colours of a heat map: bits of a character → level → colours. A terminal and a web page show the same.

A level is the bits, rounded down: 0 … 9, where 9 is 9 bits or more. So a level is also a digit, for where there are no
colours.
"""

from __future__ import annotations

import math

LEVELS = 10
FIRST = 2
"""The first level with a colour: with one for each character above 1 bit, half of an English text was coloured."""

RAMP = ("#aeac93", "#b3a577", "#be9a59", "#cc8b3c", "#da7921", "#e66216", "#f04629", "#f51945")
"""Backgrounds of the levels 2 … 9, from grey to red: in OKLCH (Ottosson 2020), lightness 0.74 to 0.62, chroma 0.035 to
0.24, hue 105° to 20°. As the lightness changes little, the last ones stand out on a dark page and on a light one. A
ramp from light to dark, such as ColorBrewer's YlOrRd, is the wrong way round on a dark page.
"""

FOREGROUND = "#000000"  # on all of them its contrast is above 5 (WCAG 2 asks for 4.5)


def level_of(bits: float) -> int | None:
    """0 … 9; None for NaN: a character that is not predicted."""
    return None if math.isnan(bits) else int(min(bits, LEVELS - 1))


def colours(level: int | None) -> tuple[str, str] | None:
    """(foreground, background) as #rrggbb, legible on any page; None for the colours that the page has anyway."""
    return None if level is None or level < FIRST else (FOREGROUND, RAMP[level - FIRST])
