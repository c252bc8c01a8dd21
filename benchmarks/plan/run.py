"""Runs the trials that the plan's rules were fitted to, and shows what they gave.

    python benchmarks/plan/run.py            those of trials.txt that results.jsonl does not have yet; hours
    python benchmarks/plan/run.py --show     the table alone

A line of trials.txt is a name, a corpus (of `charloom corpora`) and flags of `charloom train`. Budgets are in steps, so
a trial gives the same on a busy machine. A result is appended as it comes, so what was interrupted goes on with the
next trial. Losses are nats per character: of the best weights over the whole validation split, and of training at the
end.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"


def main() -> None:
    """Runs what is missing, then shows all."""
    done = {result["name"]: result for result in map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines())}
    for line in (HERE / "trials.txt").read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, corpus, *flags = shlex.split(line)
        if name not in done and "--show" not in sys.argv:
            done[name] = trial(name, corpus, flags)
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[name]) + "\n")
        if name in done:
            show(done[name])


def trial(name: str, corpus: str, flags: list[str]) -> dict[str, Any]:
    """One training, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "charloom", "train", corpus, "--out", f"{folder}/run", "--json", *flags]
        lines = subprocess.run([*command, "--sample-length", "0"], capture_output=True, text=True, check=True).stdout
    events = [json.loads(line) for line in lines.splitlines()]
    finished, validations = events[-1], [event for event in events if event["event"] == "validation"]
    return {
        "name": name,
        "corpus": corpus,
        "flags": shlex.join(flags),
        "validation_nats": finished["validation_nats"],
        "train_nats": validations[-1]["train_nats"],
        "best_step": finished["best_step"],
        "steps": finished["step"],
    }


def show(result: dict[str, Any]) -> None:
    """A row."""
    losses = f"{result['validation_nats']:.4f}  train {result['train_nats']:.4f}"
    when = f"best at {result['best_step']:,} of {result['steps']:,}"
    print(f"{result['name']:<14} {result['corpus']:<17} {losses}  {when}  {result['flags']}")


if __name__ == "__main__":
    main()
