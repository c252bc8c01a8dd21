"""`charloom info`."""

from __future__ import annotations

import json
import math
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from charloom.cli.screen import shown, write

LABELS = {"kernels_because": "chosen because"}
"""Rows whose label is not their name in JSON."""

PACKAGES = ("numpy", "safetensors", "torch", "tensorboard")


@click.command(short_help="Show a model, or what this installation can do.")
@click.argument("model", required=False)
@click.option("--verbose", is_flag=True, help="also show why each other variant of the kernels is not used")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object, with all details")
def command(model: str | None, verbose: bool, as_json: bool) -> None:
    """Show the facts about MODEL; without MODEL, what this installation can do."""
    facts = _installation(verbose or as_json) if model is None else _model(model)
    if as_json:
        write(json.dumps(facts) + "\n")
        return
    nested = facts.pop("metadata", {}) | facts.pop("kernels_not_here", {})
    rows = facts | nested
    width = max(map(len, rows)) + 2
    for name, value in rows.items():
        write(f"{shown(LABELS.get(name, name)).replace('_', ' '):<{width}}{_readable(name, value)}\n")


def _readable(name: str, value: Any) -> str:
    """A fact for people: digits in groups, losses also in bits. An untrusted model may hold any value."""
    if name.endswith("_nats") and isinstance(value, float):
        return f"{value:.4f} nats ({value / math.log(2):.3f} bits)"
    return f"{value:,}" if isinstance(value, int) else " ".join(shown(str(value)).split())


def _model(path: str) -> dict[str, Any]:
    from charloom.checkpoint import facts, find_model, load_model

    folder = load_model(path)
    return {"folder": str(find_model(path)), **facts(folder), "metadata": folder.metadata}


def _installation(details: bool) -> dict[str, Any]:
    return {
        "charloom": version("charloom"),
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        **{name: _version(name) for name in PACKAGES},
        "trains_with": _trains_with(),
        **_kernels(details),
    }


def _trains_with() -> str:
    """The default engine of `charloom train`."""
    from charloom.config import TrainingSettings
    from charloom.engines.engine import chosen_engine

    engine = chosen_engine(TrainingSettings(steps=1))
    if engine == "torch":
        from charloom.engines.torch.device import describe

        return describe()
    if engine == "native":
        from charloom.engines.native import kernels_to_train, precision_of

        return f"the kernels, in {precision_of('auto', 'lstm', kernels_to_train())} for an lstm"
    return "NumPy; PyTorch is faster: pip install torch"


def _kernels(details: bool) -> dict[str, Any]:
    """The kernels in use (or none) with the reason, and the other kernels that run on this machine."""
    from charloom.kernels import VARIANTS, chosen, obstacle, runnable

    choice = chosen()
    facts: dict[str, Any] = {
        "kernels": choice.name,
        "kernels_because": choice.reason,
        "other_kernels": ", ".join(name for name in runnable() if name != choice.name) or "none",
    }
    missing = {name: why for name in VARIANTS if (why := obstacle(name))}
    return facts | {"kernels_not_here": missing} if details else facts


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
