"""All that needs a CUDA device: the tests, the speed of training beside a bare PyTorch loop, and minutes of training.

    python benchmarks/gpu.py                          tests, speed, and one minute of tiny-shakespeare
    python benchmarks/gpu.py --minutes 5 training     five minutes of tiny-shakespeare
    python benchmarks/gpu.py --text FILE              with this file, where tiny-shakespeare cannot be downloaded

The first command is meant to end within six minutes, so five minutes of training are a command of their own. Each part
prints how long it took. Without a CUDA device the program prints one line and measures nothing.

The bare loop is `pytorch` of `benchmarks/training.py`: eager, fused AdamW, bf16 by autocast, no CUDA graph. charloom is
called as by its trainer. Both have the same sizes and random ids, and read the loss of each step. They take turns in
one process. A speed is all tokens of a turn divided by its time, up to the end of all work on the device. A ratio is
the median of the ratios of the rounds. Dropout is 0.3 in the last row, else 0.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn
from training import charloom_engine, name_of, pytorch

# cell, layers, hidden, batch, steps, embedding; dropout; the target of the ratio, 0 for none
ROWS = [
    (("lstm", 1, 256, 32, 64, 64), 0.0, 1.5),
    (("lstm", 2, 512, 128, 100, 64), 0.0, 0.0),
    (("lstm", 3, 1024, 256, 100, 64), 0.0, 1.0),
    (("lstm", 2, 512, 128, 100, 64), 0.3, 0.0),
]
ROUNDS, SECONDS = 5, 1.5
TESTS = Path(__file__).parents[1] / "tests" / "engines" / "torch" / "test_gpu.py"


def main() -> None:
    """Runs the parts that are asked for; fails if a test or a target fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="of tests, speed and training  [all]")
    parser.add_argument("--minutes", type=float, default=1.0, help="length of the training")
    parser.add_argument("--text", default="tiny-shakespeare", help="its text: a file, or the name of a corpus")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[], bool]] = {
        "tests": tests,
        "speed": speed,
        "training": lambda: training(arguments.text, arguments.minutes),
    }
    if unknown := set(arguments.parts) - parts.keys():
        parser.error(f"a part must be one of {', '.join(parts)}; got {', '.join(sorted(unknown))}")
    if not torch.cuda.is_available():
        print("no CUDA device: benchmarks/gpu.py was not run")
        return
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    failed = [name for name in arguments.parts or parts if not timed(name, parts[name])]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def timed(name: str, part: Callable[[], bool]) -> bool:
    """Runs a part, prints how long it took, and returns whether it succeeded."""
    print(f"\n== {name}", flush=True)
    start = time.perf_counter()
    succeeded = part()
    print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    return succeeded


def tests() -> bool:
    """The tests marked `gpu`."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--durations", "5", str(TESTS)]
    return subprocess.run(command, cwd=TESTS.parents[3], check=False).returncode == 0


def speed() -> bool:
    """Prints characters/s and ratios; returns whether all targets are reached."""
    print(f"under bf16 autocast, cuDNN's LSTM returns {autocast_dtype()}; medians of {ROUNDS} turns")
    reached = [compare(*row) for row in ROWS]
    return all(reached)


def autocast_dtype() -> torch.dtype:
    """The number format that PyTorch's autocast takes for cuDNN's layers if bf16 is asked for."""
    layer = nn.LSTM(1, 1, device="cuda")
    with torch.autocast("cuda", torch.bfloat16), torch.no_grad():
        out_TBH, _ = layer(torch.zeros(1, 1, 1, device="cuda"))
    return out_TBH.dtype  # type: ignore[no-any-return]


def compare(sizes: tuple[str, int, int, int, int, int], dropout: float, least: float) -> bool:
    """Prints both speeds and their ratio for one network; returns whether it reaches its target."""
    ours = charloom_engine(*sizes, "bf16", engine="torch", device="cuda", dropout=dropout)
    bare = pytorch(*sizes, "bf16", device="cuda", dropout=dropout)
    tokens = sizes[3] * sizes[4]
    rounds = [(tokens * turn(ours), tokens * turn(bare)) for _ in range(1 + ROUNDS)][1:]  # the first one warms up
    speeds = [median(column) for column in zip(*rounds, strict=True)]
    ratio = median(mine / other for mine, other in rounds)
    target = f" (at least {least:g}: {'reached' if ratio >= least else 'NOT reached'})" if least else ""
    print(
        f"{name_of(sizes)}, dropout {dropout:g}: charloom {speeds[0]:,.0f} characters/s, bare PyTorch loop "
        f"{speeds[1]:,.0f}, ratio {ratio:.2f}{target}",
        flush=True,
    )
    return ratio >= least


def turn(step: Callable[[], None]) -> float:
    """Steps per second, in a turn of `SECONDS`."""
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        step()
        steps += 1
    torch.cuda.synchronize()
    return steps / (time.perf_counter() - start)


def training(text: str, minutes: float) -> bool:
    """`charloom train` for some minutes; its last lines have the loss over the whole validation split."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "charloom", "train", text, "--device", "cuda", "--minutes", str(minutes)]
        return subprocess.run([*command, "--out", str(Path(folder) / "run")], check=False).returncode == 0


if __name__ == "__main__":
    main()
