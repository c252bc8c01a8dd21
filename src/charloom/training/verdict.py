"""What became of a run, in plain words: learnt too little, by heart, or as much as there was, and what would help most.

It looks at the training loss first, in nats a token: did it rise, and is it lower than that of two guesses
without context? Only then it compares the loss of the best weights on the text that they learnt from with that on text
that they never saw, and the best validation with those after it.
"""

from __future__ import annotations

from dataclasses import dataclass

from charloom.training.curve import RISEN, Curve

NARROW, WIDE = 0.08, 0.25
"""Gaps between seen and unseen text, as parts of the loss on unseen text; set by eye. Planned runs on tiny-shakespeare
had 17 to 20%, half an hour of Anna Karenina 20%, the demo's text 35%.
"""

LEARNT = 0.01
"""Nats a token: with fewer there is nothing left that a gap or a rise could be compared with."""

MANY, FEW = 16.0, 1.0
"""Tokens read for each parameter: four times what a plan wants of them, and a quarter. With more a larger network
would have learnt more in the same time, with fewer a smaller one.
"""

WORSE_THAN_UNIFORM = 1.5
"""Times the loss of a uniform guess. Fresh weights have about once that; a learning rate of 30 took it to 18 times."""

HARDLY = 0.95
"""Of the loss of a guess by frequency: with more, hardly anything was learnt but the frequencies. SGD with a learning
rate of 5 stalled at 0.965 on tiny-shakespeare; a network that learns is below 0.7 after a minute.
"""


SMALLER = "A smaller --lr would help most"


@dataclass(frozen=True)
class Guesses:
    """Losses of guesses without context: every token alike, or by its frequency in the training text."""

    uniform: float
    frequency: float


@dataclass(frozen=True)
class Outcome:
    """What a run came to; losses in nats a token.

    curve: of the whole run; not empty; seen: the best weights on text that they learnt from, nothing dropped; unseen:
    the same on the validation split; unit: what a token is, `char` or `byte`; read: tokens that it learnt from for
    each of its parameters, one read twice counting twice; guesses: on the training text.
    """

    curve: Curve
    seen: float
    unseen: float
    unit: str
    read: float
    guesses: Guesses

    @property
    def exploded(self) -> bool:
        """Whether the training loss was far above that of fresh weights; at first it may be, when fine-tuning."""
        return max(self.curve.training[1:], default=0.0) > WORSE_THAN_UNIFORM * self.guesses.uniform

    @property
    def useless(self) -> bool:
        """Whether nothing is left of a run that exploded: not even the frequencies of the tokens."""
        return self.exploded and self.seen > self.guesses.frequency + LEARNT


def verdict(outcome: Outcome) -> str:
    """One or two sentences."""
    seen, unseen, unit = outcome.seen, outcome.unseen, outcome.unit
    figures = f"{seen:.3f} nats/{unit} on text that it learnt from, {unseen:.3f} on text that it never saw"
    if unseen < LEARNT:
        return f"nothing is left to learn: {figures}"
    return _of_training(outcome, figures) or _of_both(outcome, figures)


def _of_training(outcome: Outcome, figures: str) -> str | None:
    """What the training loss says, where the network did not learn."""
    curve, unit = outcome.curve, outcome.unit
    if outcome.exploded:
        rose = f"training loss rose to {max(curve.training[1:]):.4g} nats/{unit}"
        return f"diverged: {rose}, a uniform guess has {outcome.guesses.uniform:.3f} ({figures}). {SMALLER}"
    if curve.risen > RISEN and curve.training_rose:
        rose = f"training loss rose from {curve.training[curve.best]:.3f} to {curve.training[-1]:.3f} nats/{unit}"
        return f"diverged: {rose} after step {curve.steps[curve.best]:,} ({figures}). {SMALLER}"
    if outcome.seen > HARDLY * outcome.guesses.frequency:
        alone = f"{figures}; the frequencies of its {unit}s alone give {outcome.guesses.frequency:.3f}"
        if curve.training_falls:
            return f"under-fitted: {alone}. More minutes would help most, or a larger --lr"
        return f"stalled: {alone}. {SMALLER}"
    return None


def _of_both(outcome: Outcome, figures: str) -> str:
    """What seen and unseen text say together, where the network learnt."""
    curve, read = outcome.curve, outcome.read
    if curve.risen > RISEN:
        when = f"validation was best at step {curve.steps[curve.best]:,} of {curve.steps[-1]:,}"
        return (
            f"over-fitted: {when}, and unseen text became {curve.risen:.0%} worse from there ({figures}). "
            "More text would help most; else more --weight-drop and --dropout, or a shorter run"
        )
    gap = 1 - outcome.seen / outcome.unseen
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
