"""The overhead of the trainer: characters/s of `charloom train` divided by those of a bare PyTorch loop.

Both train the same LSTM on the same streams with the same precision and optimizer. They run in one process and take
turns: after each step, the trainer asks whether to stop, and then the bare loop makes a step. So a busy machine slows
both alike. A block's result is its median step; the ratio is the median over the blocks. The second ratio is that of
all time spent. It includes the trainer's report each second, and every delay of the machine. Validation and samples are
switched off, because the bare loop does not have them.

    python benchmarks/trainer_overhead.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from charloom.config import TrainingSettings
from charloom.engines.engine import choose_engine
from charloom.training.start import start

choose_engine(TrainingSettings(engine="torch"), "lstm")  # before PyTorch is imported, as charloom does

import torch  # noqa: E402
from torch import nn  # noqa: E402

from charloom.engines.torch.device import choose_precision  # noqa: E402

CASES = {128: 60, 512: 20}  # hidden units: steps in a block
BLOCKS = 7
WARM_UP = 10  # steps
NO_STEP = 1_000_000_000
B, T = 32, 64
WORDS = "the of and to a in that it is was he for on are with as his they be at one have this from".split()  # noqa: SIM905


def text() -> str:
    """A million characters of words in a fixed pseudo-random order."""
    return " ".join(WORDS[(i * i * 7919 + i // 3) % len(WORDS)] for i in range(260_000))


class BareLoop:
    """The shortest loop with the same training; `step` is one step of it."""

    def __init__(self, path: Path, hidden: int) -> None:
        content = path.read_text(encoding="utf-8")
        characters = sorted(set(content))
        index = {character: i for i, character in enumerate(characters)}
        ids = torch.tensor([index[character] for character in content])
        self.length = (len(ids) - 1) // B
        self.inputs, self.targets = (ids[at : at + B * self.length].view(B, self.length) for at in (0, 1))
        self.embedding = nn.Embedding(len(characters), 64)
        self.rnn = nn.LSTM(64, hidden, batch_first=True)
        self.head = nn.Linear(hidden, len(characters))
        self.parameters = [*self.embedding.parameters(), *self.rnn.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, 0.01, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        self.precision = (
            torch.bfloat16 if choose_precision("auto", torch.device("cpu"), "lstm") == "bf16" else torch.float32
        )
        self.state: tuple[torch.Tensor, torch.Tensor] | None = None
        self.steps = 0

    def step(self) -> None:
        """One step of training."""
        at = self.steps * T % (self.length - T)
        self.steps += 1
        with torch.autocast("cpu", self.precision, enabled=self.precision == torch.bfloat16):
            out, (h, c) = self.rnn(self.embedding(self.inputs[:, at : at + T]), self.state)
            logits = self.head(out)
        self.state = (h.detach().float(), c.detach().float())
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), self.targets[:, at : at + T].flatten())
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        loss.item()


class Turns:
    """The function that the trainer calls after each step. It times that step, then the bare loop's step."""

    def __init__(self, bare: BareLoop) -> None:
        self.bare = bare
        self.times: list[tuple[float, float]] = []
        self.began = time.perf_counter()

    def __call__(self) -> bool:
        """Never stops."""
        between = time.perf_counter()
        self.bare.step()
        now = time.perf_counter()
        self.times.append((between - self.began, now - between))
        self.began = now
        return False


def measure(path: Path, hidden: int, steps: int) -> None:
    """Prints the line for one size."""
    settings = {
        "hidden": hidden,
        "dropout": 0,
        "steps": WARM_UP + BLOCKS * steps,
        "batch_size": B,
        "seq_length": T,
        "split": "100/0/0",
        "engine": "torch",
        "validate_every": NO_STEP,
        "checkpoint_every": NO_STEP,
    }
    turns = Turns(BareLoop(path, hidden))
    with tempfile.TemporaryDirectory() as folder:
        start([str(path)], settings, Path(folder) / "run", None, lambda _: None, turns)
    blocks = [turns.times[at : at + steps] for at in range(WARM_UP, WARM_UP + BLOCKS * steps, steps)]
    medians = [tuple(map(statistics.median, zip(*block, strict=True))) for block in blocks]
    ratios = sorted(bare / ours for ours, bare in medians)
    ours, bare = (B * T / statistics.median(column) for column in zip(*medians, strict=True))
    total_ours, total_bare = map(sum, zip(*turns.times[WARM_UP:], strict=True))
    print(
        f"hidden {hidden}: charloom {ours:,.0f} chars/s, bare PyTorch loop {bare:,.0f} chars/s, "
        f"ratio {statistics.median(ratios):.3f} (median of {BLOCKS} blocks; {ratios[0]:.3f} to {ratios[-1]:.3f}); "
        f"of all time {total_bare / total_ours:.3f}",
        flush=True,
    )


def main() -> None:
    """Prints a line for each size."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(text(), encoding="utf-8")
        for hidden, steps in CASES.items():
            measure(path, hidden, steps)


if __name__ == "__main__":
    main()
