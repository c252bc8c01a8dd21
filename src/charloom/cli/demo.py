"""`charloom demo`: from nothing to text in about a minute."""

from __future__ import annotations

from pathlib import Path

import click

from charloom.cli.display import open_display
from charloom.cli.screen import tell, write
from charloom.cli.train import run
from charloom.evaluation.compressors import bytes_of, compressed

CORPUS = "python-docs"
CLEANING = {"collapse_spaces": True}  # the reference is indented, and English is not
BEGIN = "The "
TEMPERATURE = 0.5  # a model of one minute spells well enough up to here
LENGTH = 800  # characters: half a page


@click.command()
@click.option("--minutes", default="1", metavar="X", help="how long to train  [1]")
@click.option("--out", metavar="DIR", type=Path, help="the run folder; new or empty  [runs/python-docs-<n>]")
def command(minutes: str, out: Path | None) -> None:
    """Train for a minute on the reference of the Python language, which every Python carries, and read what comes of
    it. Nothing is downloaded.
    """
    with open_display() as report:
        finished = run((CORPUS,), {"minutes": minutes, **CLEANING}, out, None, None, report)
    folder = Path(finished.run)
    tell("\nWhat the best model writes after it:\n")
    _write_passage(folder)
    if finished.validation_nats is not None:
        tell(f"\n{_beside_compressors(folder, finished.validation_nats)}")
    tell(_next_commands(folder))


def _write_passage(folder: Path) -> None:
    from charloom.model import Model

    write(BEGIN)
    # After a blank line, as a paragraph begins in the reference.
    for piece in Model.load(folder).stream("\n\n" + BEGIN, LENGTH, temperature=TEMPERATURE, seed=0):
        write(piece)
    write("\n")


def _beside_compressors(folder: Path, nats: float) -> str:
    """The model's figure on text that it never saw, and theirs for the same, its training text read before."""
    import math

    from charloom.data.dataset import open_dataset

    data = open_dataset(folder / "data")
    unseen = data.ids("validation").view()
    characters = len(unseen)
    found = compressed(bytes_of(data.vocabulary, unseen), characters, data)
    return (
        f"On {characters:,} characters that it never saw it needs {nats / math.log(2):.2f} bits per character; "
        f"xz -9e needs {found['xz_bits_per_char']:.2f} and PPMd {found['ppmd_bits_per_char']:.2f}, "
        "once they have read the same training text."
    )


def _next_commands(folder: Path) -> str:
    return f"""
Try next:
  charloom generate {folder} --prompt "A function "
  charloom train YOUR.txt --minutes 5
  charloom train {CORPUS} --minutes 5
"""
