"""The verdict on a run: diverged, stalled, under-fitted, well fitted or over-fitted, and which change would help most.

It looks at the training loss first: did it rise, and is it lower than the losses of two guesses without context? Only
then it compares two losses of the best weights, on training text and on held-out text, and the validation losses before
and after the best one. All losses are in nats per token.
"""

from __future__ import annotations

from dataclasses import dataclass

from charloom.evaluation.baselines import Guesses
from charloom.training.curve import RISEN, Curve

NARROW, WIDE = 0.08, 0.25
"""Gaps between the losses on training text and held-out text, as parts of the loss on held-out text; set by eye.
Planned runs on tiny-shakespeare had 17 to 20%, half an hour of Anna Karenina 20%, the text of the demo 35%.
"""

LEARNT = 0.01
"""Nats per token. Below this loss, gaps and rises are too small to be compared."""

MANY, FEW = 16.0, 1.0
"""Tokens read for each parameter: four times what a plan needs, and a quarter of it. With more than MANY, a larger
network would have learned more in the same time; with fewer than FEW, a smaller one.
"""

WORSE_THAN_UNIFORM = 1.5
"""A multiple of the loss of a uniform guess. Initial weights have about 1; a learning rate of 30 gave 18."""

HARDLY = 0.95
"""A part of the loss of a guess by frequency. Above it, the network learned little beyond the frequencies. SGD with
a learning rate of 5 stalled at 0.965 on tiny-shakespeare; a network that learns is below 0.7 after a minute.
"""


SMALLER = "A smaller `lr` would help most"


@dataclass(frozen=True)
class Outcome:
    """The result of a run; losses in nats per token.

    curve: of the whole run, not empty; seen: loss of the best weights on training text, without dropout; unseen: the
    same on the validation split; unit: the name of a token, `char` or `byte`; read: tokens read for each parameter,
    where a token that is read twice counts twice; guesses: on the training text.
    """

    curve: Curve
    seen: float
    unseen: float
    unit: str
    read: float
    guesses: Guesses

    @property
    def exploded(self) -> bool:
        """Whether the training loss was well above that of initial weights, after the first point."""
        return max(self.curve.training[1:], default=0.0) > WORSE_THAN_UNIFORM * self.guesses.uniform

    @property
    def useless(self) -> bool:
        """Whether the best weights of a run that exploded are worse than a guess by frequency."""
        return self.exploded and self.seen > self.guesses.frequency + LEARNT


def verdict(outcome: Outcome) -> str:
    """The verdict in one or two sentences."""
    seen, unseen, unit = outcome.seen, outcome.unseen, outcome.unit
    figures = f"{seen:.3f} nats/{unit} on the training text, {unseen:.3f} on the validation text"
    if unseen < LEARNT:
        return f"nothing is left to learn: {figures}"
    return _of_training(outcome, figures) or _of_both(outcome, figures)


def _of_training(outcome: Outcome, figures: str) -> str | None:
    """The verdict by the training loss if the network did not learn, or None."""
    curve, unit = outcome.curve, outcome.unit
    if outcome.exploded:
        rose = f"training loss rose to {max(curve.training[1:]):.4g} nats/{unit}"
        return f"diverged: {rose}, a uniform guess gives {outcome.guesses.uniform:.3f} ({figures}). {SMALLER}"
    if curve.risen > RISEN and curve.training_rose:
        rose = f"training loss rose from {curve.training[curve.best]:.3f} to {curve.training[-1]:.3f} nats/{unit}"
        return f"diverged: {rose} after step {curve.steps[curve.best]:,} ({figures}). {SMALLER}"
    if outcome.seen > HARDLY * outcome.guesses.frequency:
        tokens = "bytes" if unit == "byte" else "characters"
        baseline = f"the baseline, a guess by the frequencies of the {tokens} alone, has"
        alone = f"{figures}; {baseline} {outcome.guesses.frequency:.3f}"
        if curve.training_falls:
            return f"under-fitted: {alone}. More minutes would help most, or a larger `lr`"
        return f"stalled: {alone}. {SMALLER}"
    return None


def _of_both(outcome: Outcome, figures: str) -> str:
    """The verdict by the losses on training text and held-out text, if the network learned."""
    curve, read = outcome.curve, outcome.read
    if curve.risen > RISEN:
        when = f"validation was best at step {curve.steps[curve.best]:,} of {curve.steps[-1]:,}"
        return (
            f"over-fitted: {when}, and the validation loss then rose by {curve.risen:.0%} ({figures}). "
            "More text would help most; otherwise a larger `weight_drop` and `dropout`, or a shorter run"
        )
    gap = 1 - outcome.seen / outcome.unseen
    if gap < WIDE and read > MANY:
        fitted = "under-fitted" if gap < NARROW else "well fitted"
        return f"{fitted}; the network is small: {figures}. A larger `hidden` would help most"
    if gap < NARROW and read < FEW:
        return f"under-fitted: {figures}. More minutes would help most, or a smaller `hidden` in the same minutes"
    if gap < NARROW:
        return f"under-fitted: {figures}. More minutes, together with a larger network, would help most"
    if gap < WIDE:
        return f"well fitted: {figures}. More minutes or more text would still help"
    return (
        f"fitted as well as this text allows: {figures}. More text would help most. More `minutes` help only in a new "
        "run with a larger `weight_drop` and `dropout`; leave both out, and the plan chooses them"
    )
