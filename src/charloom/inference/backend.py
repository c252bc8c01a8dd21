"""Who writes a text's tokens: the kernels where they fit, else NumPy; the same text either way, but for rounding.

A writer holds a network and nothing else. Where a text stands is a value: the tokens that are read next, the state
before them, and which random numbers come next. So a text is the same alone, in a batch, in one go or in pieces.

Shapes: B texts side by side, S steps, T tokens of a prompt.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from charloom import kernels
from charloom.errors import ModelError, SettingsError
from charloom.inference.layers import Floats
from charloom.inference.native_backend import NativeWriter, fits
from charloom.inference.network import Integers, Network, State
from charloom.inference.sampling import Ids, Sampling, choose, uniform_rows

Precision = Literal["auto", "fp32", "bf16", "int8"]

AUTO: Precision = "fp32"
"""What `auto` writes with: the model itself, to the last bit that matters.

A seed then means the same text with and without kernels, on every processor and in every version, and what a model
writes is what its score was measured with. bfloat16 and 8 bits change bits per character by less than 0.0005 and 0.002
(benchmarks/precision.py), which nobody can read off a text, but they part from it within a few hundred characters.
"""


@dataclass(frozen=True)
class Rules:
    """How tokens are chosen: `never` these ids, and never `separator` after itself."""

    sampling: Sampling
    never: tuple[int, ...] = ()
    separator: int | None = None


@dataclass(frozen=True)
class Numbers:
    """Which random numbers come next: those from `position` on of each of these sequences of a seed."""

    seed: int
    sequences: tuple[int, ...]
    position: int = 0


class Writer(Protocol):
    """What writes: `NumpyWriter` and its fast twin, `charloom.inference.native_backend.NativeWriter`."""

    def limited(self, threads: int | None) -> Writer:
        """The same writer on at most so many threads; None is all cores."""

    def read(self, ids_T: Integers, state: State) -> State:
        """The state of one text after these tokens."""

    def logits(self, ids_BS: Integers, state: State) -> tuple[Floats, State]:
        """logits_BSV after each of these tokens, and the state after the last."""

    def write(
        self, ids_B: Integers, state: State, rules: Rules, numbers: Numbers, steps: int, seconds: float
    ) -> tuple[Ids, State]:
        """The tokens that follow.

        Args:
            ids_B: the token each text reads first.
            state: before it.
            rules: how to choose.
            numbers: a sequence a text.
            steps: at most so many tokens a text.
            seconds: end after so long, but not before the first.

        Returns:
            ids_BS, of which the last are the next to be read, and the state before those.

        Raises:
            ModelError: if not even the first of a text can be chosen: the network's output is not finite.
        """


class NumpyWriter:
    """The plain twin: a step of the network, then a choice."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def limited(self, threads: int | None) -> NumpyWriter:
        """Itself: it has one thread."""
        return self

    def read(self, ids_T: Integers, state: State) -> State:
        """See `Writer.read`."""
        return self._network.read(ids_T[None], state)

    def logits(self, ids_BS: Integers, state: State) -> tuple[Floats, State]:
        """See `Writer.logits`."""
        return self._network.sequence(ids_BS, state)

    def write(
        self, ids_B: Integers, state: State, rules: Rules, numbers: Numbers, steps: int, seconds: float
    ) -> tuple[Ids, State]:
        """See `Writer.write`."""
        end = time.monotonic() + seconds
        chosen: list[Ids] = []
        uniforms = uniform_rows(numbers.seed, numbers.sequences, numbers.position)
        for _, uniform_B in zip(range(steps), uniforms, strict=False):
            logits_BV, after = self._network.step(ids_B, state)
            if rules.separator is not None:
                logits_BV[ids_B == rules.separator, rules.separator] = -np.inf
            try:
                ids_B, state = choose(logits_BV, uniform_B, rules.sampling, rules.never), after
            except ModelError:
                if not chosen:
                    raise
                break  # what there is comes first; the next call meets it again
            chosen.append(ids_B)
            if time.monotonic() >= end:
                break
        return np.stack(chosen, axis=1), state


def writer(network: Network, precision: Precision) -> Writer:
    """The fastest that writes this network in this precision.

    Raises:
        SettingsError: for a precision that only the kernels have, where they are missing or cannot take this network.
    """
    native = kernels.chosen()
    if precision == "auto":
        precision = AUTO
    if precision == "int8" and network.architecture.nonlinearity == "relu" and network.architecture.cell == "rnn":
        raise SettingsError("precision must be fp32 or bf16 for a relu network, whose values have no bound; got int8")
    if native.module is not None and fits(network):
        return NativeWriter(native.module, network, precision, tiles=native.tiles)
    if precision != "fp32":
        why = native.reason if native.module is None else "this network is not of finite float32 numbers"
        raise SettingsError(f"precision must be fp32 where the kernels do not write ({why}); got {precision}")
    return NumpyWriter(network)
