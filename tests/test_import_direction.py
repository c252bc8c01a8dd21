"""The walls of the house: each room imports only rooms below it, and frameworks stay in theirs.

Reads the source and imports nothing, so it sees imports inside functions and behind TYPE_CHECKING too. Without it, a
`generate` that needs torch, or a trainer that prints, would come in by one convenient line.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "charloom"

# From the roof to the ground. A new room gets its place here and in docs/architecture.md in one change.
ROOMS = [
    "cli",
    "lessons",
    "api",
    "training",
    "model",
    "evaluation",
    "inference",
    "importers",
    "checkpoint",
    "engines",
    "score",
    "data",
    "architecture",
    "presets",
    "config",
    "kernels",
    "files",
    "earlier",
    "errors",
]
# The house's front: `charloom` itself hands out the API, and `python -m charloom` runs the commands.
FRONT = {"": "api", "__main__": "cli"}
# A room that must not use another, though it lies below: training hands generate its weights as arrays, and a imported
# file becomes arrays.
WALLED = {"inference": {"engines"}, "model": {"engines"}, "importers": {"engines"}}
# Packages that may be used in a few places only, and what is used nowhere.
KEPT = {
    "torch": ("engines.torch", "importers.pytorch"),
    "h5py": ("importers.keras",),
    "keras": ("nowhere: its files are read without it",),
    "click": ("cli",),
    "rich": ("cli",),
    "pickle": ("nowhere: a model must load without running code",),
}


def dotted(path: Path, source: Path) -> str:
    """A file's name inside the package: `engines.torch.model`, or `engines.torch` for its `__init__.py`."""
    parts = list(path.relative_to(source).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, source: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything a file imports, at its top or inside a function."""
    module = ["charloom", *filter(None, dotted(path, source).split("."))]
    package = module if path.name == "__init__.py" else module[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=name, names=names, level=level):
                base = package[: len(package) - level + 1] if level else []
                whole = ".".join([*base, *filter(None, [name])])
                # `from charloom import text` names a room only by its second half.
                yield from ((node.lineno, f"{whole}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *rest],
            ):
                level = len(name) - len(name.lstrip("."))
                base = package[: len(package) - level + 1] if level and rest else []
                yield node.lineno, ".".join([*base, name[level:]])


def inside(name: str, place: str) -> bool:
    """Whether a dotted name is a place or lies in it."""
    return f"{name}.".startswith(f"{place}.")


def complaint(importer: str, imported: str) -> str | None:
    """What is wrong with one import, or None.

    Args:
        importer: a module's name inside the package, `text.vocabulary`.
        imported: an absolute name, `charloom.errors.TextError` or `numpy`.
    """
    root, _, rest = imported.partition(".")
    if root != "charloom":
        where = KEPT.get(root, ())
        allowed = not where or any(inside(importer, place) for place in where)
        return None if allowed else f"{root} belongs to {' and '.join(where)}"
    here = FRONT.get(importer, importer.split(".")[0])
    there = rest.split(".")[0]
    if there not in ROOMS:
        # `from charloom import train`, or __version__: the API, as anyone uses it.
        there = FRONT.get(there, "api")
    if here == there:
        return None
    if ROOMS.index(there) < ROOMS.index(here):
        return f"{there} lies above {here}"
    return f"{here} must do without {there}" if there in WALLED.get(here, ()) else None


def complaints(source: Path) -> list[str]:
    """Everything that is wrong under a package folder, as `file:line: what`."""
    found = []
    for path in sorted(source.rglob("*.py")):
        importer, name = dotted(path, source), path.relative_to(source)
        if FRONT.get(importer, importer.split(".")[0]) not in ROOMS:
            found.append(f"{name}:1: a room without a place in ROOMS")
            continue
        for line, imported in imports(path, source):
            if what := complaint(importer, imported):
                found.append(f"{name}:{line}: imports {imported}: {what}")
    return found


def test_every_room_imports_only_rooms_below_it() -> None:
    assert any(SOURCE.rglob("*.py")), f"no source under {SOURCE}: this test would judge nothing"
    assert not complaints(SOURCE), "\n".join(["", *complaints(SOURCE)])


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(SOURCE))
        for path in sorted(SOURCE.rglob("*.py"))
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent, f"modules that do not open with a docstring: {silent}"


@pytest.mark.parametrize(
    ("file", "line", "why"),
    [
        ("data/corpus.py", "from charloom.engines import torch", "engines lies above data"),
        ("data/corpus.py", "import charloom.training.loop", "training lies above data"),
        ("data/corpus.py", "from charloom import checkpoint", "checkpoint lies above data"),
        ("data/corpus.py", "from .. import evaluation", "evaluation lies above data"),
        ("data/__init__.py", "from ..inference.sampling import draw", "inference lies above data"),
        ("data/corpus.py", "def late():\n    from charloom.engines.torch import engine", "engines lies above data"),
        ("data/corpus.py", "importlib.import_module('charloom.cli')", "cli lies above data"),
        ("data/corpus.py", "importlib.import_module('..cli', __package__)", "cli lies above data"),
        ("kernels/__init__.py", "from charloom.config import Settings", "config lies above kernels"),
        ("training/loop.py", "import charloom", "api lies above training"),
        ("training/loop.py", "from charloom import train", "api lies above training"),
        ("training/loop.py", "from rich.progress import Progress", "rich belongs to cli"),
        ("training/loop.py", "import torch", "torch belongs to engines.torch"),
        ("api.py", "import click", "click belongs to cli"),
        ("__init__.py", "import charloom.cli.main", "cli lies above api"),
        ("cli/info.py", "import torch.cuda", "torch belongs to engines.torch"),
        ("engines/bptt/layers.py", "from torch import nn", "torch belongs to engines.torch"),
        ("engines/torch_twin.py", "import torch", "torch belongs to engines.torch"),
        ("inference/network.py", "from charloom.engines.bptt import layers", "inference must do without engines"),
        ("checkpoint.py", "if TYPE_CHECKING:\n    from charloom.training import run", "training lies above checkpoint"),
        ("checkpoint.py", "import pickle", "pickle belongs to nowhere"),
        ("importers/keras.py", "def late():\n    import torch", "torch belongs to engines.torch and importers.pytorch"),
        ("importers/keras.py", "def late():\n    import keras", "keras belongs to nowhere"),
        ("importers/pytorch.py", "import h5py", "h5py belongs to importers.keras"),
        ("importers/pytorch.py", "from charloom.engines.torch import network", "importers must do without engines"),
        ("importers/importing.py", "from charloom.model import Model", "model lies above importers"),
        ("utils.py", "import os", "a room without a place"),
    ],
)
def test_the_judge_sees(tmp_path: Path, file: str, line: str, why: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(line, encoding="utf-8")
    found = complaints(tmp_path)
    assert found, f"{line!r} in {file} went unseen"
    assert why in found[0]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("__init__.py", "def __getattr__(name):\n    import charloom.api"),
        ("__init__.py", "def __getattr__(name):\n    return importlib.import_module('.api', __name__)"),
        ("__main__.py", "from charloom.cli.main import main"),
        ("cli/main.py", "import click, charloom\nfrom charloom import __version__, training, errors"),
        ("training/loop.py", "from charloom.inference import stream\nfrom charloom.training.schedule import cosine"),
        ("engines/torch/model.py", "import torch.nn.functional as F"),
        ("importers/pytorch.py", "def late():\n    import torch\nfrom charloom.checkpoint import ModelFolder"),
        ("data/corpus.py", "import fsspec, numpy\nfrom charloom.errors import TextError"),
    ],
)
def test_the_judge_allows(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(line, encoding="utf-8")
    assert complaints(tmp_path) == []
