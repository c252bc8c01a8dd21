"""Measures of texts and models, beside the loss."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Loop:
    """The end of a text that repeats itself: from character `start` on, with a period of `period` characters."""

    start: int
    period: int


def loop_at_end(text: str) -> Loop | None:
    """The loop at the end of a text: the earliest one with at least 2 periods and 20 characters."""
    found = [Loop(_periodic_from(text, period), period) for period in range(1, len(text) // 2 + 1)]
    long_enough = [loop for loop in found if len(text) - loop.start >= max(20, 2 * loop.period)]
    return min(long_enough, key=lambda loop: (loop.start, loop.period), default=None)


def _periodic_from(text: str, period: int) -> int:
    """The first position from which every character equals the character `period` positions later."""
    start = len(text) - period
    while start > 0 and text[start - 1] == text[start - 1 + period]:
        start -= 1
    return start


def longest_copy(generated: str, text: str) -> str:
    """The longest part of a generated text that is also in `text`, character by character."""
    best = ""
    for start in range(len(generated)):
        while start + len(best) < len(generated) and generated[start : start + len(best) + 1] in text:
            best = generated[start : start + len(best) + 1]
    return best
