"""The pages have short sentences, by the count of docs/measure_prose.py."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
# LOG.md is not listed: its entries do not change, and earlier ones have longer sentences.
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.ipynb")),
]
PAGE = """\
# A heading is no sentence

One two three. "Four five!" And `six = 6 + 6 + 6` seven:
- eight nine
  ten. Eleven

| a table | is no sentence |
|---|---|
| a cell | nor is this |

```
code. is. none.
```
$$
x = y. z
$$

<!-- a comment. -->

A [link of words](https://example.org/a.b) and $a + b$.
"""


@pytest.fixture
def measure_prose(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("measure_prose")


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_sentences_are_short(measure_prose: ModuleType, page: Path) -> None:
    """Catches a sentence that is too long; the message quotes it."""
    assert measure_prose.problems(page) == []


def test_only_prose_is_counted(measure_prose: ModuleType, tmp_path: Path) -> None:
    """Catches a table, code, an equation or a comment that is counted, and a list item or a quote that is not."""
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    counts = [measure_prose.words(sentence) for sentence in measure_prose.sentences(page)]
    assert counts == [3, 2, 3, 3, 1, 6]
    notebook = tmp_path / "page.ipynb"
    cells = [{"cell_type": "markdown", "source": [PAGE]}, {"cell_type": "code", "source": ["x"]}]
    notebook.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert measure_prose.sentences(notebook) == measure_prose.sentences(page)


@pytest.mark.parametrize(
    ("sentence", "found"), [("word " * 36, 2), ("word " * 35, 1), ("word " * 18, 1), ("w " * 17 + "=", 0)]
)
def test_what_is_too_long(measure_prose: ModuleType, tmp_path: Path, sentence: str, found: int) -> None:
    """Catches a limit that is one word too high; the longer sentences also raise the median."""
    page = tmp_path / "page.md"
    page.write_text(sentence, encoding="utf-8")
    assert len(measure_prose.problems(page)) == found
    assert measure_prose.main(["--check", str(page)]) == bool(found)
