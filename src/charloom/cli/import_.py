"""`charloom import`; the module has an underscore because `import` is a keyword."""

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
    help="the network's characters in the order of their indices, for Keras files: as JSON, or as plain text",
)
def command(file: Path, out: Path | None, characters: Path | None) -> None:
    """Convert FILE, a checkpoint of PyTorch or Keras, to a model folder, for generation, evaluation or fine-tuning.

    Reads the files of PyTorch's character-level lessons (n_hidden, n_layers, state_dict, tokens), and .keras,
    .weights.h5 and older .h5 files, with LSTM, GRU or simple RNN layers. No code in FILE is run.

    Assumptions about what FILE does not say go to stderr; the path of the model folder goes to stdout.
    """
    from charloom.checkpoint import check_new_folder, save_new_model
    from charloom.importers.importing import import_model

    folder = _named_after(file) if out is None else out
    check_new_folder(folder)
    notices: list[str] = []
    model = import_model(file, characters, notices.append)
    for line in notices:  # printed last: for a refused file, the error is the only line
        tell_line(line)
    save_new_model(folder, model)
    write(f"{folder}\n")


def _named_after(file: Path) -> Path:
    """A folder in the current one, with the file's name without its suffix (`.weights.h5` is one suffix)."""
    name = file.name.removesuffix(".weights.h5")
    return Path((name if name != file.name else file.stem) or "model")
