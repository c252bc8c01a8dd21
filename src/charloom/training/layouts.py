"""The batches of a run, for training and for measuring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from charloom.config import Settings
from charloom.data.batches import Batches, training_batches, validation_batches
from charloom.data.dataset import Dataset
from charloom.data.ids import Ids

STREAM = 200_000  # tokens; a longer split is measured in several streams, each from the zero state
MOST_STREAMS = 64
QUICK_VALIDATION = 200_000  # tokens; the standard error of their mean is below 0.005 nats


@dataclass(frozen=True)
class Layouts:
    """The layouts of a run; None where the split is empty.

    training: for the steps; quick: the validation split in many streams, of which each validation reads a part;
    whole, test: the validation and test splits from start to end; seen: the training split in many streams, of which
    the verdict reads a part. Independent records are in groups in each layout.
    """

    training: Batches
    quick: Batches | None
    whole: Batches | None
    test: Batches | None
    seen: Batches | None = None

    @classmethod
    def of(cls, dataset: Dataset, settings: Settings, notice: Callable[[str], None]) -> Layouts:
        """All layouts of a dataset.

        Raises:
            TextError: if there is nothing to predict.
        """
        validation, test = dataset.ids("validation"), dataset.ids("test")

        def measured(ids: Ids, streams: int) -> Batches | None:
            separator = dataset.vocabulary.separator_id
            return validation_batches(ids, separator, settings.training, settings.text.independent, streams)

        quick = measured(validation, MOST_STREAMS)
        return cls(
            training=training_layout(dataset, settings, notice),
            quick=quick,
            whole=quick if settings.text.independent else measured(validation, _streams(validation)),
            test=measured(test, _streams(test)),
            seen=measured(dataset.ids("train"), MOST_STREAMS),
        )


def training_layout(dataset: Dataset, settings: Settings, notice: Callable[[str], None]) -> Batches:
    """The batches for the training steps.

    Raises:
        TextError: if there is nothing to predict.
    """
    separator = dataset.vocabulary.separator_id
    return training_batches(dataset.ids("train"), separator, settings.training, settings.text.independent, notice)


def _streams(ids: Ids) -> int:
    return max(1, min(MOST_STREAMS, len(ids) // STREAM))
