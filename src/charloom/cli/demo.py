"""`charloom demo`: from nothing to text in about a minute."""

from __future__ import annotations

from pathlib import Path

import click

from charloom.cli.display import open_display
from charloom.cli.options import range_of
from charloom.cli.screen import tell, write
from charloom.cli.train import run
from charloom.config import TrainingSettings
from charloom.evaluation.compressors import compressed
from charloom.evaluation.text import bytes_of

CORPUS = "python-docs"
CLEANING = {"collapse_spaces": True}  # the reference is indented, and English is not
BEGIN = "The "
TEMPERATURE = 0.5  # a model trained for one minute spells well up to this temperature
LENGTH = 800  # characters: half a page
MINUTES = range_of(TrainingSettings.model_fields["minutes"])


@click.command()
@click.option("--minutes", default="1", metavar="X", help=f"how long to train  [{MINUTES}; 1]")
@click.option("--out", metavar="DIR", type=Path, help="the run folder; new or empty  [runs/python-docs-<n>]")
def command(minutes: str, out: Path | None) -> None:
    """Train for a minute on the reference of the Python language, and generate text. The reference is part of every
    Python installation, so nothing is downloaded.
    """
    with open_display() as report:
        finished = run((CORPUS,), {"minutes": minutes, **CLEANING}, out, None, None, report)
    folder = Path(finished.run)
    tell("\nThe best model generates:\n")
    _show_passage(folder)
    if finished.validation_nats is not None:
        tell(f"\n{_beside_compressors(folder, finished.validation_nats)}")
    tell(_next_commands(folder))


def _show_passage(folder: Path) -> None:
    from charloom.model import Model

    write(BEGIN)
    # After a blank line, as a paragraph begins in the reference.
    for chunk in Model.load(folder).stream("\n\n" + BEGIN, LENGTH, temperature=TEMPERATURE, seed=0):
        write(chunk)
    write("\n")


def _beside_compressors(folder: Path, nats: float) -> str:
    """The loss on the validation split, beside those of xz and PPMd after the training text."""
    import math

    from charloom.data.dataset import open_dataset

    data = open_dataset(folder / "data")
    unseen = data.ids("validation").view()
    characters = len(unseen)
    found = compressed(bytes_of(data.vocabulary, unseen), characters, data)
    return (
        f"Loss on {characters:,} held-out characters: {nats / math.log(2):.2f} bits/char "
        f"(xz -9e {found['xz_bits_per_char']:.2f}, PPMd {found['ppmd_bits_per_char']:.2f}, both primed with the same "
        "training text)."
    )


def _next_commands(folder: Path) -> str:
    return f"""
Try next:
  charloom generate {folder} --prompt "A function "
  charloom train YOUR.txt --minutes 5
  charloom train {CORPUS} --minutes 5
"""
