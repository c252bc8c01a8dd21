"""A request for a text: the value that a scheduler takes.

A request contains everything that its text depends on. So the same request gives the same text, in any batch.
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
        prompt_T: ids that are read before the first token. If empty, the first token is drawn uniformly.
        sampling: how each token is chosen.
        seed, index: of the random stream.
        length: the text ends after this number of characters; None sets no limit.
        tokens: the text ends after this number of tokens, without the bytes of a character that is not complete; None
            sets no limit.
        records: the text ends after this number of whole records; None sets no limit.
        stop: the text ends before any of these strings.
        separator_text: the text between two records; its characters count.
        logprobs: the number of log-probabilities for each token beside its own; None for none.
        prompt_logprobs: the same for each token of the prompt but the first, which nothing predicts.
    """

    prompt_T: Integers
    sampling: Sampling
    seed: int
    index: int = 0
    length: int | None = None
    tokens: int | None = None
    records: int | None = None
    stop: StopStrings = NO_STOP
    separator_text: str = "\n"
    logprobs: int | None = None
    prompt_logprobs: int | None = None
