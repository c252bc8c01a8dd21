"""The tables and plots of docs/results.md, from results.jsonl.

    make docs                           puts the tables into the page
    python benchmarks/plan/page.py      draws the plots

Losses are nats per token, or nats/char if the tokens of the text are characters.
"""

from __future__ import annotations

import functools
import math
import shlex
from collections.abc import Sequence
from itertools import chain
from typing import Any

from prototypes import IDEAS
from run import HERE, results

DOCS = HERE.parents[1] / "docs"
Result = dict[str, Any]
PUBLISHED = 1.2917  # nats/char of anna-karenina: the lowest loss in the PyTorch lesson's saved output
DRAWN = "fp32"  # the trials in the plots, beside the peers of the same session
HIDDEN, LAYERS, CELLS = (64, 128, 256, 512), (1, 2, 3), ("lstm", "gru", "rnn")
PLAN = ("hidden", "dropout", "weight_drop", "lr", "weight_decay")
BY_HAND = ("layers", "hidden", "dropout", "weight-drop", "lr", "batch-size", "weight-decay")
PEERS = {"lesson": "the PyTorch lesson's settings, in PyTorch", "nanogpt": "nanoGPT's settings for a CPU"}


def plan(name: str) -> str:
    """The plan's choices for each text and budget, and the number of epochs."""
    rows = []
    for result in of(name):
        chosen = {"weight_decay": 0.01} | result["planned"]  # earlier plans used charloom's default, 0.01
        values = (f"{chosen[setting]:g}" for setting in PLAN)
        rows.append((result["corpus"], options(result)["minutes"], *values, result["epochs"]))
    heads = ("text", "minutes", "units", "dropout", "weight drop", "learning rate", "weight decay", "epochs")
    return table(heads, rows)


def losses(name: str) -> str:
    """The loss of each text and budget, by three protocols."""
    rows = []
    for result in of(name):
        score = result["eval"]
        nats, *others = (score[f"{protocol}nats_per_char"] for protocol in ("", "windows_", "dynamic_"))
        bits = f"{nats / math.log(2):.3f}"
        others = [f"{other:.4f}" for other in others]
        rows.append((result["corpus"], options(result)["minutes"], f"**{nats:.4f}**", bits, *others))
    return table(("text", "minutes", "nats/char", "bits/char", "windows of 256, nats/char", "dynamic, nats/char"), rows)


def lesson() -> str:
    """The time until the loss is below the PyTorch lesson's, for the plan and for the lesson's settings."""
    ran = [*of(DRAWN, "anna-karenina"), *of("minutes", "anna-karenina"), *of("lesson")]
    rows = []
    for result in sorted(ran, key=in_drawn_session, reverse=True):
        curve = result["curve"]
        below = next((f"{seconds:.0f}" for seconds, nats in curve if nats < PUBLISHED), "never")
        processor = "without AMX, fp32" if in_drawn_session(result) else "with AMX, bf16"
        lowest = f"{min(nats for _, nats in curve):.4f}"
        rows.append((processor, code(result["flags"]), f"{curve[-1][0]:.0f}", lowest, below))
    return table(("processor", "options", "trained, s", "lowest nats/char", f"below {PUBLISHED} after, s"), rows)


def comparisons() -> str:
    """The plan compared with the best settings chosen by hand, for each text."""
    rows = []
    for corpus in corpora():
        by_hand = [result for result in of("text", corpus) if "hidden" in options(result)]
        planned = next(result for result in of("text", corpus) if result not in by_hand)
        best = min(by_hand, key=nats_of)
        change = f"{nats_of(planned) / nats_of(best) - 1:+.1%}"
        rows.append((corpus, "the plan", *settings_of(planned), f"**{nats_of(planned):.4f}**", change))
        rows.append((corpus, "by hand", *settings_of(best), f"{nats_of(best):.4f}", ""))
    return table(("text", "settings", *map(flag, BY_HAND), "nats/token", "plan compared with by hand"), rows)


def settings() -> str:
    """The loss of all settings chosen by hand, and of the plan, for each text."""
    rows = []
    for result in of("text", corpora()[0]):
        same = {other["corpus"]: nats_of(other) for other in of("text") if other["flags"] == result["flags"]}
        by_hand = "hidden" in options(result)
        chosen = settings_of(result) if by_hand else [""] * len(BY_HAND)
        rows.append(("by hand" if by_hand else "the plan", *chosen, *(f"{same[corpus]:.4f}" for corpus in corpora())))
    return table(("settings", *map(flag, BY_HAND), *corpora()), rows)


def settings_of(result: Result) -> list[str]:
    """The values that a network was trained with, in the order of BY_HAND; empty for charloom's default."""
    given = options(result, "train_as")
    return [given.get(name, "") for name in BY_HAND]


def grid() -> str:
    """The losses by cell, depth and width."""
    found = {tuple(options(r)[name] for name in ("cell", "layers", "hidden")): nats_of(r) for r in of("grid")}
    rows = [
        (cell.upper(), layers, *(f"{found[cell, str(layers), str(hidden)]:.4f}" for hidden in HIDDEN))
        for cell in CELLS
        for layers in LAYERS
    ]
    return table(("cell", "layers", *(f"{hidden} units" for hidden in HIDDEN)), rows)


def trials(name: str) -> str:
    """All results of a name: first the options that they share, then a row for each with its other options."""
    given = [options(result) for result in of(name)]
    shared = {option: value for option, value in given[0].items() if all(o.get(option) == value for o in given)}
    others = [option for option in dict.fromkeys(chain(*given)) if option not in {*shared, "steps"}]
    rows = [
        (result["corpus"], *(its.get(option, "") for option in others), f"{result['steps']:,}", nats, trained)
        for result, its in zip(of(name), given, strict=True)
        for nats, trained in [(f"{nats_of(result):.4f}", f"{result['train_nats']:.4f}")]
    ]
    common = " ".join(f"--{option} {value}" for option, value in shared.items())
    heads = ("text", *map(flag, others), "steps", "validation, nats/token", "training at the end, nats/token")
    return (f"Options of every row: {code(common)}\n\n" if common else "") + table(heads, rows)


def prototypes() -> str:
    """The loss of each idea that was tried in PyTorch."""
    columns = list(dict.fromkeys(column_of(result) for result in of("prototypes")))
    found = {(result["idea"], column_of(result)): f"{nats_of(result):.4f}" for result in of("prototypes")}
    rows = [(idea, meaning, *(found.get((idea, at), "") for at in columns)) for idea, meaning in IDEAS.items()]
    return table(("idea", "what it is", *map(code, columns)), rows)


def column_of(result: Result) -> str:
    """The options of a prototype without its idea."""
    return " ".join(f"--{name} {value}" for name, value in options(result).items() if name != "idea")


def of(name: str, corpus: str | None = None) -> list[Result]:
    """The results of a name and, if given, of a text."""
    return [result for result in _results() if result["name"] == name and corpus in (None, result["corpus"])]


@functools.cache
def _results() -> Sequence[Result]:
    return results()


def corpora() -> list[str]:
    """The texts for which the plan and settings chosen by hand were compared."""
    return list(dict.fromkeys(result["corpus"] for result in of("text")))


def in_drawn_session(result: Result) -> bool:
    """Whether the result is from the session in the plots."""
    return result["name"] == "nanogpt" or "--precision fp32" in result["flags"]


def options(result: Result, key: str = "flags") -> dict[str, str]:
    """The names and values of the result's options."""
    words = shlex.split(result[key])
    return {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}


def nats_of(result: Result) -> float:
    """The result's loss in nats per token."""
    return float(result["validation_nats"])


def code(text: str) -> str:
    """Text as inline code."""
    return f"`{text}`"


def flag(name: str) -> str:
    """The name of an option as inline code."""
    return code(f"--{name}")


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown, with a newline at its end."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def draw() -> None:
    """Draws loss against time for each text: the plan's runs, and the peers of the same session."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "charloom"  # the same numbers give the same picture, byte for byte
    from matplotlib import pyplot

    for corpus in dict.fromkeys(result["corpus"] for result in of(DRAWN)):
        figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
        for result in of(DRAWN, corpus):
            label = f"charloom train --minutes {options(result)['minutes']}"
            axes.plot(*zip(*result["curve"], strict=True), marker=".", label=label)
        for name, label in PEERS.items():
            for result in filter(in_drawn_session, of(name, corpus)):
                axes.plot(*zip(*result["curve"], strict=True), "k--", marker=".", label=label)
        axes.set(xscale="log", xlabel="seconds", ylabel="validation loss, nats/char")
        axes.set_title(f"{corpus}, two cores without AMX, float32")
        axes.set_ylim(top=2.2)
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(DOCS / f"results-{corpus}.svg", metadata={"Date": None})


if __name__ == "__main__":
    draw()
