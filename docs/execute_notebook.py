"""Executes docs/notebooks/first-steps.ipynb and stores it with its outputs, or stores them in another file if named.

The kernel is a new process of this Python in an empty folder. Values that differ between runs and mean nothing (times,
versions, names of the kernel) are left out, so two versions differ only where something changed. A cell that fails ends
the program, and nothing is stored. CHARLOOM_NOTEBOOK_STEPS shortens the training, for tests; the stored notebook is
executed without it.

Neither `jupyter execute` nor `nbconvert --execute` takes the place of this: LOG.md.
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


def execute(notebook: nbformat.NotebookNode) -> None:
    """Replaces the outputs by those of a new run.

    Raises:
        CellExecutionError: if a cell fails.
    """
    importlib.import_module("matplotlib.font_manager")  # finds the fonts and prints this here, not in the notebook
    os.environ.pop("MPLBACKEND", None)  # with a backend other than the kernel's own, no figure would be stored
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=CELL_TIMEOUT,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # it warns about its own loopback connection
        ).execute()
    notebook.metadata = nbformat.from_dict(METADATA)


def main(arguments: list[str]) -> int:
    """Executes and stores the notebook; returns the exit status."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    try:
        execute(notebook)
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        return 1
    nbformat.write(notebook, Path(arguments[0]) if arguments else NOTEBOOK)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
