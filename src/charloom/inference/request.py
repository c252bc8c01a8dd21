"""What is asked of a model: the values that a scheduler takes.

A request names all that its text depends on, so the same request gives the same text, whatever else is generated.
"""

from __future__ import annotations

from dataclasses import dataclass

from charloom.cells import Integers
from charloom.inference.sampling import Sampling
from charloom.inference.stop_strings import StopStrings

NO_STOP = StopStrings(())


@dataclass(frozen=True, eq=False)
class Request:
    """One text to generate.

    Args:
        prompt_T: ids that are read before the first token; without any, the first token is drawn evenly from all.
        sampling: how each token is chosen.
        seed, index: of the random stream.
        length: characters after which the text ends; None for no such end.
        records: whole records after which it ends; None for no such end.
        stop: strings before which it ends.
        separator_text: what stands between two records; its characters count.
        logprobs: how many log-probabilities to give for each token beside its own; None for none at all.
    """

    prompt_T: Integers
    sampling: Sampling
    seed: int
    index: int = 0
    length: int | None = None
    records: int | None = None
    stop: StopStrings = NO_STOP
    separator_text: str = "\n"
    logprobs: int | None = None
