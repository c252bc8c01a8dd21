"""Counts the words of each sentence of pages in Markdown, and of a notebook's Markdown cells; `--check` limits them.

python docs/measure_prose.py [--check] PAGE…

Prose is every paragraph and list item. Headings, tables, code blocks, equations and HTML are left out.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

MEDIAN = 18  # words; the median of a page stays below
LONGEST = 35  # words; no sentence has more
SENTENCE_END = re.compile(r"""(?:(?<=[.!?:])|(?<=[.!?:]["')\]]))\s+""")  # a quote or a bracket may close after the sign
REPLACED = {"code_inline": "code", "softbreak": " ", "hardbreak": " "}


def sentences(page: Path) -> list[str]:
    """Every sentence of a page, in its order; inline code and inline equations are one word each."""
    return [sentence for text in _paragraphs(page) for sentence in SENTENCE_END.split(text) if words(sentence)]


def words(sentence: str) -> int:
    """The number of words; a dash or another sign between spaces is none."""
    return sum(any(map(str.isalnum, word)) for word in sentence.split())


def problems(page: Path) -> list[str]:
    """One line for each sentence of a page that is too long, and one if the median is too high."""
    found = sentences(page)
    median = statistics.median(map(words, found)) if found else 0
    long = [f"{page}: {words(text)} words, at most {LONGEST}: {text}" for text in found if words(text) > LONGEST]
    return long + [f"{page}: the median sentence has {median:g} words, not under {MEDIAN}"] * (median >= MEDIAN)


def row(page: Path) -> str:
    """The figures of a page, as a line of a table."""
    counts = [words(sentence) for sentence in sentences(page)] or [0]
    return f"| {page} | {sum(counts):,} | {len(counts)} | {statistics.median(counts):g} | {max(counts)} |"


def _paragraphs(page: Path) -> Iterator[str]:
    """The text of every paragraph, those of list items included."""
    for before, token in pairwise(MarkdownIt("commonmark").enable("table").parse(_markdown(page))):
        if before.type == "paragraph_open" and not token.content.startswith("$$"):
            yield re.sub(r"\$[^$]+\$", "equation", "".join(map(_text, token.children or ())))


def _markdown(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def _text(token: Token) -> str:
    return token.content if token.type == "text" else REPLACED.get(token.type, "")


def main(arguments: list[str]) -> int:
    """Prints the table, or the problems; returns the exit status."""
    pages = [Path(name) for name in arguments if name != "--check"]
    if "--check" in arguments:
        found = [problem for page in pages for problem in problems(page)]
        print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
        return bool(found)
    print("| page | words | sentences | median | longest |", "|---|---|---|---|---|", *map(row, pages), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
