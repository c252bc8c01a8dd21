"""docs/examples/ runs as printed; `make check` checks its types."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "docs" / "examples" / "python_api.py"
ALPHABET = " abcdefgh"


def checkpoint(path: Path) -> list[str]:
    """A checkpoint of a PyTorch lesson; nothing without PyTorch."""
    if importlib.util.find_spec("torch") is None:
        return []
    torch = importlib.import_module("torch")
    lstm, fc = torch.nn.LSTM(len(ALPHABET), 4, 1), torch.nn.Linear(4, len(ALPHABET))
    state = {f"lstm.{name}": value for name, value in lstm.state_dict().items()}
    state |= {f"fc.{name}": value for name, value in fc.state_dict().items()}
    torch.save({"n_hidden": 4, "n_layers": 1, "state_dict": state, "tokens": tuple(ALPHABET)}, path)
    return [str(path)]


def test_the_example_of_the_python_api(tmp_path):
    """Catches: a name that the API no longer has, and a model that changes by a copy, a file or a process."""
    given = checkpoint(tmp_path / "rnn.net")
    command = [sys.executable, "-W", "error", PROGRAM, "folder", *given]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    assert "stopped at step 20\n" in done.stdout
    assert "fine-tuned from verses\n" in done.stdout
    assert lines["saved, copied and pickled"] == " True"
    assert lines["resumed"].startswith(" Finished <charloom.Model: lstm 1 x 16, ")
    assert re.search(r"\d\.\d\d bits per character", lines["evaluate"])
    assert lines.get("imported", "") == (" <charloom.Model: lstm 1 x 4, 9 characters, 285 parameters>" if given else "")
    assert lines["ModelError"].endswith("does not exist")
