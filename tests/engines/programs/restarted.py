"""`charloom` under torchrun; each process writes its id into the folder that the first argument names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    folder, *command = sys.argv[1:]
    start, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
    (Path(folder) / f"{start}-{rank}").write_text(str(os.getpid()))
    from charloom.cli.main import main

    main(command)
