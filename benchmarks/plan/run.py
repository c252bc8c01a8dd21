"""Runs the trials that the plan's rules were fitted to and that docs/results.md shows.

    python benchmarks/plan/run.py [NAME...]           those of trials.txt, or of these names, that results.jsonl lacks
    python benchmarks/plan/run.py --show [NAME...]    what there is, without running any

A line of trials.txt is a name, a corpus (of `charloom corpora`) and flags of `charloom train`; `{a,b}` stands for one
trial with a and one with b. A result is appended as it comes, so what was interrupted goes on with the next trial.
Budgets in steps give the same on a busy machine; those in minutes want both cores for themselves, but for the names in
`PACED`. Losses are nats per symbol: of the best weights over the whole validation split, and of training at the end.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from pace import steps_in_time

from charloom.config import PLANNED

HERE = Path(__file__).parent
RESULTS, PACES = HERE / "results.jsonl", HERE / "pace.jsonl"
OTHERWISE = {"minutes": ["--protocol", "windows:256", "--dynamic"]}
"""Names whose models `charloom eval` reads, too, and how."""

PACED = {"text", "grid", "depth", "ablation"}
"""Names whose trials get as many steps as their minutes hold by `pace.py`; those are kept in pace.jsonl."""

ALIKE, ATTEMPTS = 1.15, 20
"""Moments whose speeds lie no further apart are alike; so many are waited for."""

PROGRAMS = {"prototypes", "nanogpt"}
"""Names of the programs beside this one that train in charloom's place; flags are theirs."""


def main() -> None:
    """Runs what is missing, and shows it with the rest."""
    only, names = "--show" in sys.argv, [argument for argument in sys.argv[1:] if argument != "--show"]
    done = {key(result): result for result in results()}
    for name, corpus, flags in trials():
        if name not in (names or [name]):
            continue
        if (name, corpus, flags) not in done and not only:
            train_as = in_steps(name, corpus, flags) if name in PACED else flags
            result = done[name, corpus, flags] = trial(name, corpus, flags, train_as)
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
        if result := done.get((name, corpus, flags), {}):
            losses = f"{result['validation_nats']:.4f}  train {result['train_nats']:.4f}"
            when = f"best at {result['best_step']:,} of {result['steps']:,}  " if "best_step" in result else ""
            print(f"{name:<10} {corpus:<17} {losses}  {when}{flags}", flush=True)


def trials() -> Iterator[tuple[str, str, str]]:
    """Name, corpus and flags of every trial."""
    for line in (HERE / "trials.txt").read_text(encoding="utf-8").splitlines():
        parts = re.split(r"\{(.*?)\}", line)
        for choice in itertools.product(*(part.split(",") for part in parts[1::2])):
            plain = "".join(itertools.chain(*zip(parts[::2], (*choice, ""), strict=True)))
            if words := shlex.split(plain, comments=True):
                yield words[0], words[1], shlex.join(words[2:])


def results() -> list[dict[str, Any]]:
    """What there is so far, in the order of the trials, whichever ended first."""
    order = {which: place for place, which in enumerate(trials())}
    found = map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines())
    return sorted(found, key=lambda result: order.get(key(result), len(order)))


def key(result: dict[str, Any]) -> tuple[str, str, str]:
    """What tells a trial from the others."""
    return result["name"], result["corpus"], result["flags"]


def in_steps(name: str, corpus: str, flags: str) -> str:
    """The flags with the plan's choices, and steps for the minutes; all of a name and text are timed together.

    Where some of them have been timed before, the others are fitted in between them.
    """
    lines = PACES.read_text(encoding="utf-8").splitlines()
    timed = {found["flags"]: found for found in map(json.loads, lines) if key(found)[:2] == (name, corpus)}
    if flags in timed:
        return str(timed[flags]["train_as"])
    together = [each for *which, each in trials() if which == [name, corpus]]
    for _ in range(ATTEMPTS):  # a plan is for a machine as fast as the one that the others were timed on
        full, distinct = planned(corpus, together)
        steps = dict(zip(together, steps_in_time(full, distinct), strict=True))
        then_to_now = median([timed[each]["steps"] / steps[each] for each in timed] or [1.0])
        print(f"{corpus}: as fast as when timed first, times {1 / then_to_now:.2f}", file=sys.stderr, flush=True)
        if 1 / ALIKE < then_to_now < ALIKE:
            break
    else:
        sys.exit(f"{PACES} holds what {corpus} had on a faster or slower machine; without its lines all is timed anew")
    with PACES.open("a", encoding="utf-8") as file:
        for each, all_flags in zip(together, full, strict=True):
            if each not in timed:
                found = {"name": name, "corpus": corpus, "flags": each, "steps": round(then_to_now * steps[each])}
                found["train_as"] = re.sub(r"--minutes \S+", f"--steps {found['steps']}", all_flags)
                file.write(json.dumps(found) + "\n")
    return in_steps(name, corpus, flags)


def planned(corpus: str, together: list[str]) -> tuple[list[str], int]:
    """The flags with the plan's choices where settings are not given, and how many symbols are distinct."""
    distinct = charloom("train", corpus, "--minutes", "1", "--plan-only")[-1]["distinct"]
    full = list[str]()
    for flags in together:
        choices = list[str]()
        if "--lr" not in flags:
            event = charloom("train", corpus, *shlex.split(flags), "--plan-only")[-1]
            chosen = [choice for choice in event["choices"] if choice["setting"] in PLANNED]
            choices = [f"--{choice['setting']} {choice['value']}".replace("_", "-") for choice in chosen]
        full.append(" ".join([flags, *choices]))
    return full, distinct


def trial(name: str, corpus: str, flags: str, train_as: str) -> dict[str, Any]:
    """One training, in a folder that is thrown away."""
    if name in PROGRAMS:
        command = [sys.executable, str(HERE / f"{name}.py"), corpus, *shlex.split(flags)]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return {"name": name, "corpus": corpus, "flags": flags, **json.loads(ended.stdout.splitlines()[-1])}
    with tempfile.TemporaryDirectory() as folder:
        events = charloom("train", corpus, "--out", f"{folder}/run", "--sample-length", "0", *shlex.split(train_as))
        otherwise = charloom("eval", f"{folder}/run", *OTHERWISE[name])[0] if name in OTHERWISE else None
    return result_of(name, corpus, flags, events, otherwise) | ({} if train_as == flags else {"train_as": train_as})


def charloom(*arguments: str) -> list[dict[str, Any]]:
    """What a command tells with --json."""
    command = [sys.executable, "-m", "charloom", *arguments, "--json"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in ended.stdout.splitlines()]


def result_of(
    name: str, corpus: str, flags: str, events: list[dict[str, Any]], otherwise: dict[str, Any] | None
) -> dict[str, Any]:
    """What is kept of a training: curve is seconds and loss of each validation."""
    finished, planned = events[-1], [event for event in events if event["event"] == "planned"]
    validations = [event for event in events if event["event"] == "validation"]
    result = {
        "name": name,
        "corpus": corpus,
        "flags": flags,
        "validation_nats": finished["validation_nats"],
        "train_nats": validations[-1]["train_nats"],
        "seen_nats": finished["seen_nats"],
        "best_step": finished["best_step"],
        "steps": finished["step"],
        "epochs": finished["epoch"],
        "curve": [[round(v["seconds"], 1), round(v["validation_nats"], 4)] for v in validations],
        "planned": {choice["setting"]: choice["value"] for event in planned for choice in event["choices"]},
    }
    return result if otherwise is None else result | {"eval": otherwise}


if __name__ == "__main__":
    main()
