"""How long running sequences wait while a long prompt is read.

SEQUENCES generate without an end. Then a long prompt is submitted. The output has the longest and the median time
between two outputs of a running sequence, before the prompt and while it is read; the time of one chunk, which is
READ_SECONDS of the prompt and CHUNK_SECONDS of the sequences; and the time to read the whole prompt without them.

    python benchmarks/scheduling.py [characters of the prompt, 100000]
"""

from __future__ import annotations

import os
import statistics
import sys
import time

from generation import VOCABULARY, architecture, parameters

from charloom import kernels
from charloom.checkpoint import ModelFolder
from charloom.data.vocabulary import Vocabulary
from charloom.inference.scheduler import CHUNK_SECONDS, READ_SECONDS, Scheduler
from charloom.inference.sequence import Sequence
from charloom.model import Model

SHAPES = ((2, 128), (2, 512))
SEQUENCES = 8
SECONDS = 3.0
LONGEST = 10**12  # characters: sequences do not reach it


def waits(scheduler: Scheduler, running: list[Sequence], late: Sequence | None) -> list[float]:
    """Seconds between two outputs of each running sequence: until the late one has its first output, or for SECONDS."""
    last = dict.fromkeys(running, time.perf_counter())
    end, found = time.perf_counter() + SECONDS, []
    while late is not None or time.perf_counter() < end:
        outputs = scheduler.update()
        now = time.perf_counter()
        for output in outputs:
            if output.sequence is late:
                late, end = None, now
            elif output.text:
                found.append(now - last[output.sequence])
                last[output.sequence] = now
    return found


def measure(layers: int, hidden: int, characters: int) -> None:
    """Prints the waiting times of one network."""
    made = architecture(layers, hidden)
    letters = tuple(map(chr, range(64, 64 + VOCABULARY)))
    model = Model(ModelFolder(made, Vocabulary("characters", letters), parameters(made)))
    prompt = "ItWasTheBestOfTimes" * (characters // 19 + 1)
    request = model.request(prompt[:characters], 1, seed=0)
    started = time.perf_counter()
    for _ in model.run([request]):
        pass
    alone = time.perf_counter() - started
    scheduler = model.scheduler()
    running = [scheduler.submit(model.request("a", LONGEST, seed=index)) for index in range(SEQUENCES)]
    scheduler.update()
    before = waits(scheduler, running, None)
    while_read = waits(scheduler, running, scheduler.submit(request))
    print(f"LSTM {layers} x {hidden}, {SEQUENCES} running sequences, a prompt of {characters:,} characters")
    print(f"  the prompt by itself: {alone:.2f} s")
    for name, found in (("before the prompt", before), ("while it is read", while_read)):
        longest, middle = 1000 * max(found), 1000 * statistics.median(found)
        print(f"  {name:18} longest wait {longest:5.0f} ms, median {middle:4.0f} ms, of {len(found):,}")


def main() -> None:
    """Measures each network."""
    characters = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    load = f"; load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"kernels {kernels.chosen().name}, {kernels.cores()} cores{load}")
    print(f"a chunk: {1000 * READ_SECONDS:.0f} ms of the prompt, {1000 * CHUNK_SECONDS:.0f} ms of the sequences")
    for shape in SHAPES:
        measure(*shape, characters)


if __name__ == "__main__":
    main()
