"""Executes docs/notebooks/first-steps.ipynb and stores it with its outputs, or stores them in another file if named.

The kernel is a new process of this Python in an empty folder. Values that differ between runs and mean nothing (times,
versions, names of the kernel) are left out, so two versions differ only where something changed.
CHARLOOM_NOTEBOOK_STEPS shortens the training, for tests; the stored notebook is executed without it.
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
CELL_TIMEOUT = 1200  # seconds, enough for a slow machine


def executed(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with the outputs of a new run, without values that differ between runs.

    Raises:
        CellExecutionError: if a cell fails.
    """
    importlib.import_module("matplotlib.font_manager")  # finds the fonts and prints this here, not in the notebook
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=CELL_TIMEOUT,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # it warns about its own loopback connection
        )
        # With a backend other than the kernel's own, no figure would be stored.
        done = client.execute(env={name: value for name, value in os.environ.items() if name != "MPLBACKEND"})
    done.metadata = nbformat.from_dict(METADATA)
    return done


def noise(notebook: nbformat.NotebookNode) -> list[str]:
    """Outputs that must not be stored: warnings, other lines of stderr, and folders of this machine."""
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
    """Executes, checks and stores the notebook; returns the exit status."""
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
