"""What became of a run, in plain words: learnt too little, by heart, or as much as there was, and what would help most.

It rests on two comparisons of losses in nats a symbol: of the best weights on the text that they learnt from with the
text that they never saw, and of the best validation with those after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NARROW, WIDE = 0.08, 0.25
"""Gaps between seen and unseen text, as parts of the loss on unseen text; set by eye. Planned runs on tiny-shakespeare
had 17 to 20%, half an hour of Anna Karenina 20%, the demo's text 35%.
"""

LEARNT = 0.01
"""Nats a symbol: with fewer there is nothing left that a gap or a rise could be compared with."""

MANY, FEW = 16.0, 1.0
"""Symbols read for each parameter: four times what a plan wants of them, and a quarter. With more a larger network
would have learnt more in the same time, with fewer a smaller one.
"""

RISEN = 0.01
"""Of the loss: so much above the best is more than the noise from one validation to the next."""


@dataclass(frozen=True)
class Curve:
    """The course of a run: at which steps it was validated, and the loss found there."""

    steps: Sequence[int]
    nats: Sequence[float]

    @property
    def best(self) -> int:
        """Which validation was the best."""
        return min(range(len(self.nats)), key=self.nats.__getitem__)

    @property
    def risen(self) -> float:
        """How far the last one lies above the best, as a part of it."""
        best = self.nats[self.best]
        return self.nats[-1] / best - 1 if best else 0.0


def verdict(curve: Curve, seen: float, unseen: float, unit: str, read: float) -> str:
    """One or two sentences.

    Args:
        curve: of the whole run; not empty.
        seen: nats of the best weights on text that they learnt from, nothing dropped.
        unseen: the same on the validation split.
        unit: what a symbol is, `char` or `byte`.
        read: symbols that it learnt from for each of its parameters, one read twice counting twice.
    """
    figures = f"{seen:.3f} nats/{unit} on text that it learnt from, {unseen:.3f} on text that it never saw"
    if unseen < LEARNT:
        return f"nothing is left to learn: {figures}"
    if curve.risen > RISEN:
        when = f"validation was best at step {curve.steps[curve.best]:,} of {curve.steps[-1]:,}"
        return (
            f"over-fitted: {when}, and unseen text became {curve.risen:.0%} worse from there ({figures}). "
            "More text would help most; else more --weight-drop and --dropout, or a shorter run"
        )
    gap = 1 - seen / unseen
    if gap < WIDE and read > MANY:
        fitted = "under-fitted" if gap < NARROW else "well fitted"
        return f"{fitted}, for a network so small: {figures}. A larger one (--hidden) would help most"
    if gap < NARROW and read < FEW:
        return f"under-fitted: {figures}. More minutes would help most, or a smaller network (--hidden) in as many"
    if gap < NARROW:
        return f"under-fitted: {figures}. More minutes would help most, and with them a larger network"
    if gap < WIDE:
        return f"well fitted: {figures}. More minutes would still help, more text too"
    return (
        f"fitted as far as this text goes: {figures}. More text would help most; more minutes only with more "
        "--weight-drop and --dropout, as a plan would have it"
    )
