"""Run docs/notebooks/first-steps.ipynb from its first cell to its last, and write it back with its outputs, or to
another file if one is named.

The kernel is this Python, started fresh in an empty folder. What differs from run to run without meaning anything
(times, versions, the kernel's own names) is left out, so that two versions differ only where something changed.
CHARLOOM_NOTEBOOK_STEPS shortens the training, for tests; what is stored is made without it.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOK = Path(__file__).parent / "notebooks" / "first-steps.ipynb"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
LONGEST = 1200  # seconds for one cell, on whatever machine


def executed(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh run, and nothing volatile beside them.

    Raises:
        CellExecutionError: if a cell fails.
    """
    importlib.import_module("matplotlib.font_manager")  # finds the fonts now, and says so here, not in the notebook
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=LONGEST,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # it warns of its own loopback connection
        )
        # Another backend than the kernel's own would draw no picture here.
        done = client.execute(env={name: value for name, value in os.environ.items() if name != "MPLBACKEND"})
    done.metadata = nbformat.from_dict(METADATA)
    return done


def noise(notebook: nbformat.NotebookNode) -> list[str]:
    """What must not be among the outputs: warnings, other lines of stderr, and folders of this machine."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            text = str(output.get("text", ""))
            if output.get("name") == "stderr":
                found.append(f"cell {cell.id}, stderr: {text.strip()}")
            elif any(folder in text for folder in (tempfile.gettempdir(), str(Path.home()))):
                found.append(f"cell {cell.id}, a folder of this machine: {text.strip()}")
    return found


def main(arguments: list[str]) -> int:
    """Execute, check and write; the exit status."""
    target = Path(arguments[0]) if arguments else NOTEBOOK
    try:
        notebook = executed(nbformat.read(NOTEBOOK, as_version=4))
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        return 1
    if found := noise(notebook):
        print("\n".join(["the notebook was not written; its outputs hold", *found]), file=sys.stderr)
        return 1
    nbformat.write(notebook, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
