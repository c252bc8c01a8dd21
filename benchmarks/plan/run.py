"""Runs the trials for the rules of the plan and for docs/results.md.

    python benchmarks/plan/run.py [NAME...]           runs the trials, or those of these names, that have no result
    python benchmarks/plan/run.py --show [NAME...]    shows the results, without running a trial

A line of trials.txt has a name, a corpus (of `charloom corpora`) and flags of `charloom train`; `{a,b}` makes one trial
with a and one with b. Results are appended to results.jsonl, so an interrupted program continues with the next trial. A
budget in steps gives the same result on a busy machine. A budget in minutes needs both cores, except for the names in
`TIMED`. Losses are nats per token: of the best weights over the whole validation split, and of training at the end.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
from throughput import SHARE, flat, steps_in_time

from charloom.config import PLANNED
from charloom.training import planning
from charloom.training.events import Planned
from charloom.training.start import plan_only

HERE = Path(__file__).parent
RESULTS, THROUGHPUTS = HERE / "results.jsonl", HERE / "throughput.jsonl"
EVALUATED, OTHERWISE = {"minutes", "fp32"}, ("--protocol", "windows:256", "--dynamic")
"""Names whose models `charloom eval` reads too, and its flags."""

TIMED = {"text", "grid", "depth", "size", "ablation"}
"""Names whose trials run for a number of steps instead of minutes. `throughput.py` measures that number;
throughput.jsonl stores it.
"""

DROPOUT = "--dropout 0.3 --weight-drop 0.3 --dropout-mask locked"
"""Dropout for timing, like the plan's choice."""

PROGRAMS = {"prototypes", "nanogpt", "pytorch"}
"""Names of programs in this folder that train instead of charloom. The flags are theirs."""


def main() -> None:
    """Runs the missing trials, and shows all results."""
    only, names = "--show" in sys.argv, [argument for argument in sys.argv[1:] if argument != "--show"]
    done = {key(result): result for result in results()}
    for name, corpus, flags in trials():
        if name not in (names or [name]):
            continue
        if (name, corpus, flags) not in done and not only:
            train_as = in_steps(name, corpus, flags) if name in TIMED else flags
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
    """The results so far, in the order of the trials."""
    order = {which: place for place, which in enumerate(trials())}
    found = map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines())
    return sorted(found, key=lambda result: order.get(key(result), len(order)))


def key(result: dict[str, Any]) -> tuple[str, str, str]:
    """The values that identify a trial."""
    return result["name"], result["corpus"], result["flags"]


def in_steps(name: str, corpus: str, flags: str) -> str:
    """The flags with the plan's choices, and steps instead of minutes. Trials of a name and text are timed together.

    If some of them were timed before, the others are scaled to the speed of that time. The plan's choices are for a
    machine of that speed.
    """
    lines = [json.loads(line) for line in THROUGHPUTS.read_text(encoding="utf-8").splitlines()]
    timed = {found["flags"]: found for found in lines if key(found)[:2] == (name, corpus)}
    if flags in timed:
        return str(timed[flags]["train_as"])
    steps = {each: int(found["steps"]) for each, found in timed.items()}
    distinct = planned(corpus, "--minutes 1", lambda _: 1.0).distinct
    together = [each for *which, each in trials() if which == [name, corpus] and "--hidden" in each]
    if missing := [each for each in together if each not in steps]:
        now = steps_in_time([each if "--lr" in each else f"{each} {DROPOUT}" for each in together], distinct)
        now_of = dict(zip(together, now, strict=True))
        then_to_now = median([steps[each] / now_of[each] for each in together if each in steps] or [1.0])
        print(f"{corpus}: {1 / then_to_now:.2f} times as fast as when timed first", file=sys.stderr, flush=True)
        steps |= {each: round(then_to_now * now_of[each]) for each in missing}
    with THROUGHPUTS.open("a", encoding="utf-8") as file:
        for each in dict.fromkeys([*missing, flags]):
            count, choices = (steps[each], "") if "--lr" in each else chosen(corpus, each, steps)
            train_as = re.sub(r"--minutes \S+", f"--steps {count}", each) + choices
            found = {"name": name, "corpus": corpus, "flags": each, "steps": count, "train_as": train_as}
            file.write(json.dumps(found) + "\n")
    return in_steps(name, corpus, flags)


def chosen(corpus: str, flags: str, steps: dict[str, int]) -> tuple[int, str]:
    """Steps, and the plan's choices for these flags. `steps`: the numbers of steps that were measured, by flags."""
    asked = flat(flags)
    seconds = 60 * SHARE * float(asked["minutes"])
    alike = [flags] if flags in steps else [each for each in steps if usual(each)]
    by_size = {int(flat(each)["hidden"]): seconds / steps[each] for each in alike}

    def step(hidden: int) -> float:  # seconds; above the largest measured size, quadratic
        most = max(by_size)
        inside = np.interp(math.log(hidden), *np.log(sorted(by_size.items())).T)
        return math.exp(inside) * max(1.0, hidden / most) ** 2

    choices = [choice for choice in planned(corpus, flags, step).choices if choice.setting in PLANNED]
    settings = asked | {choice.setting: choice.value for choice in choices}
    said = "".join(f" --{choice.setting} {choice.value}".replace("_", "-") for choice in choices)
    return round(seconds / step(settings["hidden"])), said


def planned(corpus: str, flags: str, step: Callable[[int], float]) -> Planned:
    """The plan for a machine on which `step(hidden)` is the time of a step in seconds."""
    with patch.object(planning, "_timed", lambda _, __, hidden, *___: [step(hidden)] * 2):
        return plan_only([corpus], flat(flags), None, lambda _: None)


def usual(flags: str) -> bool:
    """Whether the flags leave the cell, layers, batch size and sequence length to the plan."""
    return not {"cell", "layers", "batch_size", "seq_length"} & flat(flags).keys()


def trial(name: str, corpus: str, flags: str, train_as: str) -> dict[str, Any]:
    """One trial, in a temporary folder."""
    if name in PROGRAMS:
        command = [sys.executable, str(HERE / f"{name}.py"), corpus, *shlex.split(flags)]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return {"name": name, "corpus": corpus, "flags": flags, **json.loads(ended.stdout.splitlines()[-1])}
    with tempfile.TemporaryDirectory() as folder:
        events = charloom("train", corpus, "--out", f"{folder}/run", "--sample-length", "0", *shlex.split(train_as))
        otherwise = charloom("eval", f"{folder}/run", *OTHERWISE)[0] if name in EVALUATED else None
    return result_of(name, corpus, flags, events, otherwise) | ({} if train_as == flags else {"train_as": train_as})


def charloom(*arguments: str) -> list[dict[str, Any]]:
    """The output of a command with --json."""
    command = [sys.executable, "-m", "charloom", *arguments, "--json"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in ended.stdout.splitlines()]


def result_of(
    name: str, corpus: str, flags: str, events: list[dict[str, Any]], otherwise: dict[str, Any] | None
) -> dict[str, Any]:
    """The result of a trial. curve: seconds and loss of each validation."""
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
