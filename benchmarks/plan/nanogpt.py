"""nanoGPT with the settings of its README for a CPU, to compare with charloom. It is fetched, run and deleted.

    python benchmarks/plan/nanogpt.py tiny-shakespeare [flags of its train.py]

The losses are nanoGPT's own estimate: 20 batches of random windows. Seconds are measured outside it, from the first
step on. The last line of the output is a JSON object. Needs git and the network, or a clone that git is configured to
use (`url.<clone>.insteadOf`).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from charloom.data.corpus import open_corpus

REPOSITORY = "https://github.com/karpathy/nanoGPT"
COMMIT = "3adf61e154c3fe3fca428ad6bc3818b27a3b8291"
CPU = """
--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 --batch_size=12 --n_layer=4 --n_head=4
--n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0
"""


def main() -> None:
    """Fetches, prepares, trains."""
    corpus, *flags = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, folder], check=True)
        subprocess.run(["git", "-C", folder, "checkout", "--quiet", COMMIT], check=True)
        (place / "data/shakespeare_char/input.txt").write_text(open_corpus(corpus).text(), encoding="utf-8")
        prepare = [sys.executable, "data/shakespeare_char/prepare.py"]
        subprocess.run(prepare, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        command = [sys.executable, "-u", "train.py", "config/train_shakespeare_char.py", *CPU.split(), *flags]
        training = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        assert training.stdout
        begun, curve = None, list[list[float]]()
        for line in training.stdout:
            if line.startswith("iter 0:"):
                begun = time.monotonic()
            elif begun and (found := re.match(r"step (\d+): train loss (\S+), val loss (\S+)", line)):
                curve.append([round(time.monotonic() - begun, 1), float(found[3])])
                steps, train_nats = int(found[1]), float(found[2])
        if training.wait():
            sys.exit(training.returncode)
    best = min(nats for _, nats in curve)
    print(json.dumps({"validation_nats": best, "train_nats": train_nats, "steps": steps, "curve": curve}))


if __name__ == "__main__":
    main()
