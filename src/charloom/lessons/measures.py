"""What lessons measure of texts and of models, beside the loss."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Loop:
    """A text's end that repeats itself: from character `start` on, every `period` characters."""

    start: int
    period: int


def loop_at_end(text: str) -> Loop | None:
    """The loop that a text ends in: the one that begins first; at least twice round and 20 characters."""
    found = [Loop(_periodic_from(text, period), period) for period in range(1, len(text) // 2 + 1)]
    long_enough = [loop for loop in found if len(text) - loop.start >= max(20, 2 * loop.period)]
    return min(long_enough, key=lambda loop: (loop.start, loop.period), default=None)


def _periodic_from(text: str, period: int) -> int:
    """Where the part begins in which every character equals the one `period` later."""
    start = len(text) - period
    while start > 0 and text[start - 1] == text[start - 1 + period]:
        start -= 1
    return start


def longest_copy(generated: str, text: str) -> str:
    """The longest part of a generated text that stands in the text word for word."""
    best = ""
    for start in range(len(generated)):
        while start + len(best) < len(generated) and generated[start : start + len(best) + 1] in text:
            best = generated[start : start + len(best) + 1]
    return best
