"""What the trainer costs: characters/s of `charloom train` ÷ those of a bare PyTorch loop.

Both train the same LSTM on the same streams in the same precision with the same optimizer, in turns, in one process;
five rounds, medians. Validation and samples are work that the bare loop does not do, so they are switched off here.

    python benchmarks/trainer_overhead.py [rounds]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from charloom.engines.engine import check_engine
from charloom.training.start import start

CASES = {128: 400, 512: 50}  # hidden units: steps a round, some seconds on two cores
NEVER = 1_000_000_000
B, T = 32, 64
WORDS = "the of and to a in that it is was he for on are with as his they be at one have this from".split()  # noqa: SIM905


def text() -> str:
    """A million characters of words in a fixed pseudo-random order."""
    return " ".join(WORDS[(i * i * 7919 + i // 3) % len(WORDS)] for i in range(260_000))


def with_charloom(path: Path, hidden: int, steps: int) -> float:
    """Characters/s of a whole run, from its first step to its last."""
    settings = {
        "hidden": hidden,
        "dropout": 0,
        "steps": steps,
        "batch_size": B,
        "seq_length": T,
        "split": "100/0/0",
        "validate_every": NEVER,
        "checkpoint_every": NEVER,
    }
    with tempfile.TemporaryDirectory() as folder:
        finished = start([str(path)], settings, Path(folder) / "run", None, lambda _: None, lambda: False)
    return steps * B * T / finished.seconds


def bare_loop(path: Path, hidden: int, steps: int) -> float:
    """Characters/s of the shortest loop that trains the same."""
    import torch
    from torch import nn

    from charloom.engines.torch.device import choose_precision

    content = path.read_text(encoding="utf-8")
    characters = sorted(set(content))
    index = {character: i for i, character in enumerate(characters)}
    ids = torch.tensor([index[character] for character in content])
    length = (len(ids) - 1) // B
    inputs, targets = ids[: B * length].view(B, length), ids[1 : B * length + 1].view(B, length)
    embedding, rnn, head = (
        nn.Embedding(len(characters), 64),
        nn.LSTM(64, hidden, batch_first=True),
        nn.Linear(hidden, len(characters)),
    )
    parameters = [*embedding.parameters(), *rnn.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, 0.01, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    precision = choose_precision("auto", torch.device("cpu"), "lstm")
    state = None
    began = time.perf_counter()
    for step in range(steps):
        at = step * T % (length - T)
        with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
            out, (h, c) = rnn(embedding(inputs[:, at : at + T]), state)
            logits = head(out)
        state = (h.detach().float(), c.detach().float())
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), targets[:, at : at + T].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        loss.item()
    return steps * B * T / (time.perf_counter() - began)


def main() -> None:
    """Prints a line a size."""
    from charloom.config import TrainingSettings

    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    check_engine(TrainingSettings())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(text(), encoding="utf-8")
        for hidden, steps in CASES.items():
            runs: dict[str, Callable[[Path, int, int], float]] = {"charloom": with_charloom, "bare": bare_loop}
            speeds: dict[str, list[float]] = {name: [] for name in runs}
            for turn in range(rounds + 1):  # the first warms up
                for name, run in runs.items():
                    speed = run(path, hidden, steps)
                    if turn:
                        speeds[name].append(speed)
            ratios = [ours / bare for ours, bare in zip(*speeds.values(), strict=True)]
            ours, bare = (statistics.median(values) for values in speeds.values())
            print(
                f"hidden {hidden}: charloom {ours:,.0f} chars/s, bare PyTorch loop {bare:,.0f} chars/s, "
                f"ratio {statistics.median(ratios):.3f} (median of {rounds}; {min(ratios):.3f} to {max(ratios):.3f})"
            )


if __name__ == "__main__":
    main()
