"""The plan: settings that fit the text, the speed of this machine and the budget in minutes.

Only settings that the user did not set are planned, and the plan takes those that the user set into account. Each
choice comes with its reason. The rules were fitted to the trials of `benchmarks/plan/`; LOG.md has their results.

Shapes: H hidden units.
"""

from __future__ import annotations

import lzma
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from charloom.architecture import Architecture
from charloom.config import ADAM, BUDGETS, PLANNED, Settings
from charloom.data.batches import Batch, Batches
from charloom.data.dataset import Dataset
from charloom.data.groups import NOTHING, GroupBatches
from charloom.data.ids import Ids, count_separators
from charloom.engines.engine import choose_engine, chosen_engine
from charloom.engines.shared import open_for
from charloom.training.events import Planned, PlannedChoice

if TYPE_CHECKING:
    from charloom.engines.torch.processes import Processes

SIZES = (48, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024)
TIMED = (64, 128, 256, 512, 1024)
"""Sizes that are timed. The throughput of the others is interpolated."""

SECONDS, SLOW, MOST = 0.3, 0.5, 0.03
"""Seconds that one size is timed; seconds of a step that is too slow; and the part of the budget that all sizes may
take. If a step takes longer than SLOW, or all steps so far took longer than MOST of the budget, no larger size is
timed. The first step of each size does not count.
"""

PER_PARAMETER = 4.0
"""Smallest number of tokens that a network reads for each of its parameters. Below it, a smaller network is better."""

TIMED_DROPS = 0.3
"""Dropout and weight drop while a size is timed."""

FASTEST, FASTEST_AT = {"capped lstm": 0.022, "lstm": 0.016, "gru": 0.006, "rnn": 0.006}, 256
"""The highest learning rate of each cell, and the number of units for which it holds. Those of the LSTM also
hold in 24,000 steps (LOG.md, "a higher rate, no mean of gradients, a capped input gate"). Those of GRU and RNN are
three quarters of the best one, because longer runs fail there (LOG.md, "how fast each cell may learn").
"""

BETA1 = {"lstm": 0.0, "gru": 0.9, "rnn": 0.9}
"""Adam's decay of the mean gradient. 0 was tried for the LSTM alone (the same entry of LOG.md)."""

DECAY, DECAY_EPOCHS = (0.03, 0.1), (1.0, 3.0)
"""Weight decay, and how often the text is read; between the two points, linear in the logarithm of the epochs (LOG.md,
"weight decay", and "weight decay of a text that is hardly read twice").
"""

SHARE = 0.75
"""The part of the measured throughput that the plan expects. Validation, samples and checkpoints take 0.07. A machine
that is shared, or gets hot, is slower for minutes than in the moment of the measurement. Too much dropout, or too large
a network, raises the loss more than the reverse.
"""

CANDIDATES = 16
"""Number of batches from which one is chosen for the timing."""

SAMPLE = 2**20
"""Number of tokens at the beginning of the text from which `repeated` and `bits` are computed."""

EPOCHS = (1.0, 4.0, 16.0, 40.0, 100.0)
DROPOUT = (0.0, 0.1, 0.3, 0.5, 0.6)
WEIGHT_DROP = (0.0, 0.0, 0.2, 0.4, 0.5)
"""Dropout and weight drop, by how often the text is read; between the points, linear in the logarithm of the epochs."""

EPOCHS_AT, LARGER, SMALLER = 384, 0.7, 2.0
"""EPOCHS hold for EPOCHS_AT units. A larger network memorises earlier. Its epochs are multiplied by (units / EPOCHS_AT)
to the power LARGER. A smaller network memorises later: the power is SMALLER.
"""


USUAL = {
    "cell": "better than a GRU if the text is read often, as good if not",
    "layers": "one wide layer is as good as two layers of the same cost, or better",
    "batch_size": "larger batches read more text in the time, but in fewer steps, and end with a higher loss",
    "seq_length": "longer steps read more text in the time, but end with a higher loss",
    "schedule": "a constant rate ends with a loss that is 1 to 1.5% higher",
}
"""Settings whose defaults the plan keeps, and why. Each gave the lowest loss in equal time, the LSTM in equal steps
(docs/results.md; LOG.md, "LSTM or GRU", "one layer or two", "larger batches and longer steps in a minute").
"""


@dataclass(frozen=True)
class CorpusStatistics:
    """The statistics of the training split that the plan uses.

    tokens: their number; distinct: the vocabulary size; records: their number, 0 if the split is one text; repeated:
    share of the tokens in lines that are a copy of an earlier line, 0 to 1; bits: per token, as xz compresses the
    split.
    """

    tokens: int
    distinct: int
    records: int
    repeated: float
    bits: float

    def readings(self, tokens: float) -> float:
        """How often a run of this many tokens reads the text; repeated lines of the text count once."""
        return tokens / max(1.0, self.tokens * (1 - self.repeated))


def corpus_statistics(dataset: Dataset, batches: Batches) -> CorpusStatistics:
    """The statistics of the training split; `batches` is its layout. Two of them are of the first `SAMPLE` tokens."""
    ids = dataset.ids("train")
    sample = np.ascontiguousarray(ids.view()[:SAMPLE])
    packed = len(lzma.compress(sample.tobytes(), preset=6)) - len(lzma.compress(b""))  # without the container
    bits = 8 * packed / max(1, len(sample))
    records = _records(ids, dataset.vocabulary.separator_id, batches)
    return CorpusStatistics(len(ids), dataset.vocabulary.size, records, _repeated(sample, dataset), bits)


def _records(ids: Ids, separator: int | None, batches: Batches) -> int:
    if isinstance(batches, GroupBatches):
        return batches.records  # its index has their number
    return 0 if separator is None else count_separators(ids, separator) - 1


def _repeated(sample: np.ndarray[Any, Any], dataset: Dataset) -> float:
    """The share of tokens in lines (or records) that are a copy of an earlier one, 0 to 1."""
    vocabulary = dataset.vocabulary
    newline = int(vocabulary.encode("\n")[0]) if vocabulary.kind == "bytes" or "\n" in vocabulary.characters else -1
    if vocabulary.separator_id is not None:
        newline = vocabulary.separator_id
    lines = [line.tobytes() for line in np.split(sample, np.flatnonzero(sample == newline) + 1)]
    seen: set[bytes] = set()
    repeated = 0
    for line in lines:
        repeated += len(line) if line in seen else 0
        seen.add(line)
    return repeated / max(1, sample.nbytes)


def why_no_plan(chosen: Collection[str], settings: Settings) -> str | None:
    """What a plan needs and does not have; None if there is something to plan.

    The rules hold for a budget in minutes, and a loss at every character of streams or of independent records.
    """
    training = settings.training
    if training.minutes is None:
        name = next(name for name in BUDGETS if getattr(training, name) is not None)
        return f"`minutes` as the budget; got `{name}={getattr(training, name)}`"
    if training.batches != "streams" and not settings.text.independent:
        return f"`batches='streams'`, or independent records; got `batches={training.batches!r}`"
    if training.loss != "every":
        return f"`loss='every'`; got `loss={training.loss!r}`"
    if _able(training.optimizer).issubset(chosen):
        return "a setting that is not given, such as `hidden`; all that can be planned are given"
    return None


def _able(optimizer: str) -> set[str]:
    """Settings that can be planned: those of the update only for optimizers whose rules are known."""
    known = {"lr": ADAM, "beta1": ADAM, "weight_decay": ("adamw",)}
    return {name for name in PLANNED if optimizer in known.get(name, (optimizer,))}


def plan(
    chosen: Collection[str],
    settings: Settings,
    dataset: Dataset,
    batches: Batches,
    processes: Processes | None = None,
) -> tuple[Planned, Settings]:
    """The planned choices, each with its reason, in the order of the settings; and the settings with the plan.

    Args:
        chosen: the flat names of the settings that the user set.
        settings: these, and defaults for all others; the budget is in minutes.
        dataset: the text.
        batches: its training layout, which the plan does not change.
        processes: those that will train together; the timed steps are theirs. None if one process trains.
    """
    minutes, text = settings.training.minutes, corpus_statistics(dataset, batches)
    assert minutes is not None
    sizes = (settings.model.hidden,) if "hidden" in chosen else TIMED
    gate = _input_gate(settings)
    settings = settings.replaced({choice.setting: choice.value for choice in gate if choice.setting not in chosen})
    throughput = ThroughputEstimate(settings, text, sizes, _typical(batches), processes)
    size = _size(settings, text, throughput)
    epochs = text.readings(throughput.tokens(size.value))
    choices = [size, *gate, *_dropout(text, epochs, size.value), *_rate(settings, size.value), _decay(epochs)]
    flat = settings.flat
    choices += [PlannedChoice(name, flat[name], reason) for name, reason in USUAL.items()]
    left = (_able(settings.training.optimizer) | USUAL.keys()) - set(chosen)
    free = tuple(sorted((c for c in choices if c.setting in left), key=lambda c: list(flat).index(c.setting)))
    found = Planned(minutes, text.tokens, text.distinct, text.records, text.repeated, text.bits, free)
    return found, settings.replaced({choice.setting: choice.value for choice in free})


def _typical(batches: Batches) -> Batch:
    """A batch for the timing: of the first few, the one with the most targets, because some may have odd records."""
    few = (batches.batch(0, index) for index in range(min(CANDIDATES, len(batches))))
    return max(few, key=lambda batch: int((batch[1] != NOTHING).sum()))


class ThroughputEstimate:
    """How many tokens this machine, or all of them, read in the budget, for each H. Some sizes are timed, the others
    interpolated.
    """

    def __init__(
        self,
        settings: Settings,
        text: CorpusStatistics,
        sizes: Sequence[int],
        batch: Batch,
        processes: Processes | None,
    ) -> None:
        training = settings.training
        assert training.minutes is not None
        self._seconds = 60 * training.minutes * SHARE
        a_step = int((batch[1] != NOTHING).sum())
        self._most = min((training.steps or math.inf) * a_step, (training.epochs or math.inf) * text.tokens)
        self.given = len(sizes) == 1
        self.timed = f"with {processes.count} processes" if processes else "on this machine"
        self.too_large: float = math.inf
        self._sizes: list[int] = []
        self._rates: list[float] = []
        spent, budget = 0.0, MOST * self._seconds
        for size in sizes:
            try:
                steps = _timed(settings, text.distinct, size, batch, min(SECONDS, budget / len(sizes)), processes)
            except MemoryError:
                if not self._sizes or processes:  # the others wait for the rest of the step
                    raise
                self.too_large = size
                break
            step, spent = median(steps[1:]), spent + sum(steps[1:])
            self._sizes.append(size)
            self._rates.append(a_step / step)
            if step > SLOW or spent > budget:
                break

    def rate(self, hidden: int) -> float:
        """Tokens/s: between two timed sizes a power of H, above the last 1/H², because products dominate there."""
        inside = np.interp(math.log(hidden), np.log(self._sizes), np.log(self._rates))
        return math.exp(inside) / max(1.0, hidden / self._sizes[-1]) ** 2

    def tokens(self, hidden: int) -> float:
        """Tokens in the budget, or in the steps or epochs of the settings if they end earlier."""
        return min(self.rate(hidden) * self._seconds, self._most)

    def capped(self, hidden: int) -> bool:
        """Whether the steps or epochs of the settings end before the minutes."""
        return self.rate(hidden) * self._seconds > self._most


def _timed(
    settings: Settings, distinct: int, hidden: int, batch: Batch, seconds: float, processes: Processes | None
) -> list[float]:
    """Seconds of each step on the batch, two steps or more; the first is slower, because the caches are cold."""
    made = Architecture.of(settings.model.model_copy(update={"hidden": hidden}), distinct)
    training = settings.training.model_copy(
        update={"dropout": TIMED_DROPS, "weight_drop": TIMED_DROPS, "dropout_mask": "locked"}
    )
    engine = open_for(processes, choose_engine(training, made.cell), made, training)
    random = np.random.default_rng(0)
    engine.load({name: random.normal(0, 0.05, shape).astype(np.float32) for name, shape in made.shapes.items()})
    state, steps = None, list[float]()
    while len(steps) < 2 or (sum(steps) < seconds and steps[-1] < SLOW):
        start = time.perf_counter()
        _, _, state = engine.step(*batch, state, 1e-3)
        steps.append(time.perf_counter() - start)
    return steps


def _size(settings: Settings, text: CorpusStatistics, throughput: ThroughputEstimate) -> PlannedChoice:
    """The largest network that reads `PER_PARAMETER` tokens or more for each parameter in the budget."""
    hidden = settings.model.hidden
    if not throughput.given:
        able = [
            size
            for size in SIZES
            if size < throughput.too_large
            and throughput.tokens(size) >= PER_PARAMETER * _parameters(settings, text, size)
        ]
        hidden = max(able, default=SIZES[0])
    tokens, parameters = throughput.tokens(hidden), _parameters(settings, text, hidden)
    counted = "the number asked for" if throughput.capped(hidden) else f"with {SHARE:.0%} of that"
    return PlannedChoice(
        "hidden",
        hidden,
        f"{throughput.rate(hidden):,.0f} tokens/s, as timed {throughput.timed}; {counted}, "
        f"{tokens / 1e6:,.1f} million tokens: {tokens / parameters:.1f} for each of {parameters:,} parameters",
    )


def _parameters(settings: Settings, text: CorpusStatistics, hidden: int) -> int:
    return Architecture.of(settings.model.model_copy(update={"hidden": hidden}), text.distinct).size


def _input_gate(settings: Settings) -> list[PlannedChoice]:
    """The input gate of an LSTM; nothing for other cells."""
    if settings.model.cell != "lstm":
        return []
    if chosen_engine(settings.training) == "torch":
        return [PlannedChoice("input_gate", "free", "PyTorch has no fast LSTM with capped input gates")]
    return [PlannedChoice("input_gate", "capped", "ends with a lower loss; `free` is the LSTM of other programs")]


def _dropout(text: CorpusStatistics, epochs: float, hidden: int) -> list[PlannedChoice]:
    """Dropout, weight drop and masks: they drop more if the text is read more often, or the network is larger."""
    size = hidden / EPOCHS_AT
    counted = math.log(epochs) + (LARGER if size > 1 else SMALLER) * math.log(size)
    units, weights = (round(float(np.interp(counted, np.log(EPOCHS), shares)), 2) for shares in (DROPOUT, WEIGHT_DROP))
    often = f"the text is read {epochs:,.{int(epochs < 100)}f} times, with {hidden} units"
    if text.repeated > 0.01:
        often += f", counting its repeated lines ({text.repeated:.0%}) once"
    return [
        PlannedChoice("dropout", units, f"part of the units; {often}"),
        PlannedChoice("weight_drop", weights, f"part of the recurrent weights; {often}"),
        PlannedChoice("dropout_mask", "locked", "as good as fresh masks, and faster"),
    ]


def _rate(settings: Settings, hidden: int) -> list[PlannedChoice]:
    """The learning rate, and the mean of gradients that Adam applies it to."""
    cell, capped = settings.model.cell, settings.model.input_gate == "capped"
    highest, beta1 = FASTEST["capped lstm" if cell == "lstm" and capped else cell], BETA1[cell]
    rate = min(highest, round(highest * math.sqrt(FASTEST_AT / hidden), 4))
    mean = "without a mean of its gradients an LSTM ends with a lower loss" if beta1 == 0 else "the usual value"
    return [
        PlannedChoice("lr", rate, f"{highest:g} for {FASTEST_AT} units; above, in proportion to 1/√units"),
        PlannedChoice("beta1", beta1, mean),
    ]


def _decay(epochs: float) -> PlannedChoice:
    """The weight decay."""
    decay = round(float(np.interp(math.log(epochs), np.log(DECAY_EPOCHS), DECAY)), 2)
    return PlannedChoice(
        "weight_decay",
        decay,
        f"{DECAY[1]:g} is best for most texts that are read at least {DECAY_EPOCHS[1]:g} times; otherwise smaller",
    )
