"""`charloom import`; the underscore, because `import` is Python's."""

from __future__ import annotations

from pathlib import Path

import click

from charloom.cli.screen import tell_line, write


@click.command(
    epilog="""\b
    Examples:
      charloom import rnn_20_epoch.net
      charloom import model.keras --characters characters.json --out anna
      charloom generate rnn_20_epoch --prompt "Anna"
    """
)
@click.argument("file", type=Path)
@click.option("--out", metavar="DIR", type=Path, help="the model folder; new or empty  [FILE's name, here]")
@click.option(
    "--characters",
    metavar="FILE",
    type=Path,
    help="the network's characters in the order of their indices, for Keras files: as JSON, or one after the other",
)
def command(file: Path, out: Path | None, characters: Path | None) -> None:
    """Turn FILE, a checkpoint that PyTorch or Keras wrote, into a model folder: to write with, measure or train on.

    Reads what the PyTorch character-level lessons saved (n_hidden, n_layers, state_dict, tokens), .keras,
    .weights.h5 and older .h5 files, with LSTM, GRU or simple RNN layers. No code in FILE is run.

    What FILE does not tell, and is therefore assumed, is said on stderr; the model's folder is printed on stdout.
    """
    from charloom.importers.importing import check_new, import_model, save_new

    folder = _named_after(file) if out is None else out
    check_new(folder)
    notices: list[str] = []
    model = import_model(file, characters, notices.append)
    for line in notices:  # only now: a file that is refused ends in one line
        tell_line(line)
    save_new(folder, model)
    write(f"{folder}\n")


def _named_after(file: Path) -> Path:
    """A folder here, with the file's name but for its suffix; Keras's has two dots."""
    name = file.name.removesuffix(".weights.h5")
    return Path((name if name != file.name else file.stem) or "model")
