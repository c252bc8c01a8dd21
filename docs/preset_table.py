"""The settings of a preset as a table, which `make docs` puts into the page of its lesson."""

from __future__ import annotations

import re

from charloom.presets import FOLDER


def table(name: str) -> str:
    """Setting, value and reason of every line of a preset, as Markdown."""
    text = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    lines = re.findall(r"^(\w+) = (.+?) +# (.+)$", text, re.MULTILINE)
    rows = (f"| `{setting}` | `{value}` | {reason} |\n" for setting, value, reason in lines)
    return "| setting | value | reason |\n| --- | --- | --- |\n" + "".join(rows)
