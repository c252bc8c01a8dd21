"""Writes the tables of docs/results.md anew, each between its two marks, and its pictures, from results.jsonl.

python benchmarks/plan/page.py
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from prototypes import IDEAS
from run import HERE, results

DOCS = HERE.parents[1] / "docs"
Result = dict[str, Any]
PUBLISHED = 1.2917  # nats a character of anna-karenina: the PyTorch lesson's best
SITTING = "fp32"  # the plan's runs that are drawn, with the peers that ran beside them
NO_ROWS = 2  # lines of a table that has none
HIDDEN, LAYERS, CELLS = (64, 128, 256, 512), (1, 2, 3), ("lstm", "gru", "rnn")


def main() -> None:
    """Fills the page and draws."""
    found = results()
    page = DOCS / "results.md"
    page.write_text(filled(page.read_text(encoding="utf-8"), found), encoding="utf-8")
    draw(found)


def filled(text: str, found: Sequence[Result]) -> str:
    """The page with what stands between `<!-- name -->` and `<!-- end -->` made anew."""
    tables = {
        "minutes": lambda found: minutes(found, "minutes"),
        "fp32": lambda found: minutes(found, "fp32"),
        "lesson": lesson,
        "pictures": pictures,
        "text": comparisons,
        "settings": settings,
        "grid": grid,
        "depth": lambda found: plain(found, "depth"),
        "size": lambda found: plain(found, "size"),
        "cells": lambda found: plain(found, "cells"),
        "rates": lambda found: plain(found, "rates"),
        "small": lambda found: plain(found, "small"),
        "few": lambda found: plain(found, "few"),
        "ablation": lambda found: plain(found, "ablation"),
        "decay": lambda found: plain(found, "decay"),
        "prototypes": prototypes,
    }
    for name, table in tables.items():
        marks = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        lines = list(table(found))
        body = "".join(f"{line}\n" for line in lines) if len(lines) > NO_ROWS else "Not run yet.\n"
        place = re.search(marks, text, re.DOTALL)
        assert place, f"docs/results.md has no place for {name}"
        text = text[: place.start()] + place[1] + body + place[2] + text[place.end() :]
    return text


def minutes(found: Sequence[Result], name: str) -> Iterable[str]:
    """What the plan gives in so many minutes."""
    yield from head("text", "minutes", "chosen", "passes", "nats per char", "bits", "windows of 256", "learning on")
    for result in of(found, name):
        planned, read = result["planned"], result["eval"]
        nats = read["nats_per_char"]
        yield row(
            result["corpus"],
            option(result, "minutes"),
            f"{planned['hidden']} units, dropout {planned['dropout']:g}, weight drop {planned['weight_drop']:g}, "
            f"rate {planned['lr']:g}, weight decay {planned.get('weight_decay', 0.01):g}",
            result["epochs"],
            f"**{nats:.4f}**",
            f"{nats / math.log(2):.3f}",
            f"{read['windows_nats_per_char']:.4f}",
            f"{read['dynamic_nats_per_char']:.4f}",
        )


def lesson(found: Sequence[Result]) -> Iterable[str]:
    """How long it takes to the PyTorch lesson's best, in each sitting."""
    yield from head("in", "settings", "seconds", "lowest on the curve", f"below {PUBLISHED} after")
    ran = [*of(found, SITTING, "anna-karenina"), *of(found, "minutes", "anna-karenina"), *of(found, "lesson")]
    for result in sorted(ran, key=beside, reverse=True):
        curve = result["curve"]
        below = next((f"{seconds:.0f} s" for seconds, nats in curve if nats < PUBLISHED), "never")
        lowest = f"{min(nats for _, nats in curve):.4f}"
        precision = "float32" if beside(result) else "bfloat16, AMX"
        yield row(precision, f"`{result['flags']}`", f"{curve[-1][0]:.0f}", lowest, below)


def pictures(found: Sequence[Result]) -> Iterable[str]:
    """Those that `draw` makes."""
    for corpus in drawn(found):
        yield from ("", f"![Loss against time on {corpus}](results-{corpus}.svg)", "")


def drawn(found: Sequence[Result]) -> list[str]:
    """The texts whose curves there are."""
    return list(dict.fromkeys(result["corpus"] for result in of(found, SITTING)))


def beside(result: Result) -> bool:
    """Whether it ran in the sitting that is drawn."""
    return result["name"] == "nanogpt" or "--precision fp32" in result["flags"]


def comparisons(found: Sequence[Result]) -> Iterable[str]:
    """The plan beside the best by hand."""
    yield from head("text", "planned", "nats per token", "best of the others", "nats per token", "the plan's is")
    for corpus in corpora(found):
        tried = of(found, "text", corpus)
        others = [result for result in tried if "--hidden" in result["flags"]]
        plan = next((result for result in tried if result not in others), None)
        if plan is None or not others:
            continue
        best = min(others, key=nats_of)
        yield row(
            corpus,
            f"`{by_hand(plan)}`",
            f"**{nats_of(plan):.4f}**",
            f"`{by_hand(best)}` ({len(others)} tried)",
            f"{nats_of(best):.4f}",
            f"{nats_of(plan) / nats_of(best) - 1:+.1%}",
        )


def settings(found: Sequence[Result]) -> Iterable[str]:
    """Each setting by hand with each text."""
    names = corpora(found)
    yield from head("settings", *names)
    for result in of(found, "text", names[0] if names else None):
        same = [other for other in of(found, "text") if other["flags"] == result["flags"]]
        losses = [next((f"{nats_of(o):.4f}" for o in same if o["corpus"] == name), "") for name in names]
        yield row(f"`{by_hand(result)}`" if "--hidden" in result["flags"] else "**nothing given**", *losses)


def grid(found: Sequence[Result]) -> Iterable[str]:
    """Cells, depth and width."""
    yield from head("cell", "layers", *(f"{hidden} units" for hidden in HIDDEN))
    for cell in CELLS if of(found, "grid") else ():
        for layers in LAYERS:
            wanted = {"cell": cell, "layers": str(layers)}
            fits = [r for r in of(found, "grid") if all(option(r, name) == value for name, value in wanted.items())]
            by_size = {option(result, "hidden"): f"{nats_of(result):.4f}" for result in fits}
            yield row(cell.upper(), layers, *(by_size.get(str(hidden), "") for hidden in HIDDEN))


def plain(found: Sequence[Result], name: str) -> Iterable[str]:
    """All results of a name, a line each."""
    yield from head("text", "settings", "steps", "nats per token", "of training, at the end")
    for result in of(found, name):
        losses = (f"{nats_of(result):.4f}", f"{result['train_nats']:.4f}")
        yield row(result["corpus"], f"`{result['flags']}`", f"{result['steps']:,}", *losses)


def prototypes(found: Sequence[Result]) -> Iterable[str]:
    """Ideas that were tried in PyTorch, and what they change."""
    settings = list(dict.fromkeys((r["corpus"], without(r["flags"], "idea")) for r in of(found, "prototypes")))
    yield from head("idea", "", *(f"{corpus}, `{flags}`" for corpus, flags in settings))
    for idea, meaning in IDEAS.items():
        tried = [r for r in of(found, "prototypes") if r["idea"] == idea]
        losses = {(r["corpus"], without(r["flags"], "idea")): f"{nats_of(r):.4f}" for r in tried}
        if tried:
            yield row(idea, meaning, *(losses.get(setting, "") for setting in settings))


def of(found: Sequence[Result], name: str, corpus: str | None = None) -> list[Result]:
    """The results of a name, and of a text."""
    return [result for result in found if result["name"] == name and corpus in (None, result["corpus"])]


def corpora(found: Sequence[Result]) -> list[str]:
    """The texts on which plan and hand were compared."""
    return list(dict.fromkeys(result["corpus"] for result in of(found, "text")))


def option(result: Result, name: str) -> str:
    """What a flag was given."""
    words = shlex.split(result["flags"])
    return words[words.index(f"--{name}") + 1]


def without(flags: str, name: str) -> str:
    """The flags less this one."""
    return re.sub(rf" ?--{name} \S+", "", flags).strip()


def by_hand(result: Result) -> str:
    """The flags less what all of them have."""
    return without(without(result["train_as"].replace(" --dropout-mask locked", ""), "steps"), "minutes")


def nats_of(result: Result) -> float:
    """Per token."""
    return float(result["validation_nats"])


def head(*names: str) -> list[str]:
    """The first two lines of a table."""
    return [row(*names), "|---" * len(names) + "|"]


def row(*cells: object) -> str:
    """A line of a table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def draw(found: Sequence[Result]) -> None:
    """Loss against time: the plan's runs and what others have, in one sitting."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "charloom"  # the same picture from the same figures, byte for byte
    from matplotlib import pyplot

    peers = {"lesson": "the PyTorch lesson's settings, in PyTorch", "nanogpt": "nanoGPT's settings for a CPU"}
    for corpus in drawn(found):
        figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
        for result in of(found, SITTING, corpus):
            label = f"charloom train --minutes {option(result, 'minutes')}"
            axes.plot(*zip(*result["curve"], strict=True), marker=".", label=label)
        for name, label in peers.items():
            for result in filter(beside, of(found, name, corpus)):
                axes.plot(*zip(*result["curve"], strict=True), "k--", marker=".", label=label)
        axes.set(xscale="log", xlabel="seconds", ylabel="nats per character of the validation split")
        axes.set_title(f"{corpus}, two cores, float32")
        axes.set_ylim(top=2.2)
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(DOCS / f"results-{corpus}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
