"""The kinds of files that charloom reads: small valid examples of each, and a function that uses one.

An input is a folder: a mapping of relative paths to contents. In place of bytes a content may be a `Special`.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
import lzma
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np

from charloom import kernels
from charloom.architecture import Architecture
from charloom.checkpoint import ModelFolder, save_model
from charloom.config import Cleaning, ModelSettings, TextSettings
from charloom.data.corpus import open_corpus
from charloom.data.dataset import prepare
from charloom.data.sources import find_source
from charloom.data.vocabulary import Vocabulary
from charloom.engines.initial import initial_parameters
from charloom.errors import CharloomError, SettingsError
from charloom.model import Model
from charloom.training.start import resume, start
from charloom.training.trainer import Trainer
from charloom.validation import validated

# `make fuzz` has modules with sanitizers in them.
if modules := os.environ.get("KERNELS_FOLDER"):
    kernels.__path__.insert(0, modules)

PROSE = "Once a cat sat on a mat. Was it fat?\n\nIt was; the cat ate 12 rats, and “that” was that…\n" * 5
MOST = 4 << 20  # bytes that a corpus may unpack to
STEPS = 3  # steps of a resumed run


class Special(Enum):
    """Entries in place of a regular file."""

    FOLDER = "folder"
    FIFO = "fifo"
    LINK = "link"  # to a file outside of the input, which must not change


Files = dict[str, bytes | Special]


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    seeds: valid inputs by name; use: reads an input in its first folder, and may write into the second;
    libraries: that are loaded before, because loading one starts programs and opens files.
    """

    seeds: Callable[[], dict[str, Files]]
    use: Callable[[Path, Path], None]
    libraries: tuple[str, ...] = ()


# ---- a model folder: load it, score a text, generate


def model_seeds() -> dict[str, Files]:
    plain, records = Vocabulary("characters", tuple("\n abc")), Vocabulary("characters", tuple("abc"), True, True)
    given = {
        "lstm": ({"cell": "lstm", "hidden": 6, "embedding": 3}, plain),
        "gru": ({"cell": "gru", "hidden": 5, "layers": 2, "input": "onehot"}, records),
        "rnn": ({"cell": "rnn", "hidden": 17, "nonlinearity": "relu", "input": "scalar"}, plain),
        "bytes": ({"cell": "lstm", "hidden": 2, "input": "onehot"}, Vocabulary("bytes", separator=True)),
    }
    return {name: _model_files(*parts) for name, parts in given.items()}


def _model_files(sizes: dict, vocabulary: Vocabulary) -> Files:
    architecture = Architecture.of(ModelSettings(**sizes), vocabulary.size)
    records = "line" if vocabulary.separator else "none"
    metadata = {"corpus": "a", "characters": 9, "sha256": "0" * 64, "validation_nats": 1.5, "split": "90/10/0"}
    parameters = initial_parameters(architecture, 0)
    model = ModelFolder(architecture, vocabulary, parameters, Cleaning(lowercase=True), records, metadata)
    with _folder() as folder:
        save_model(folder / "model", model)
        return read(folder / "model")


def use_model(folder: Path, _: Path) -> None:
    model = Model.load(folder)
    model.score("ab ba\nCab\n" * 30, unknown="skip")
    model.generate("ab", 20, seed=1, unknown="skip", threads=2)
    model.generate_many(3, length=7, seed=2, greedy=True, stop=["zz"])
    with contextlib.suppress(SettingsError):  # a relu network has no int8
        model.generate("ab", 20, seed=1, unknown="skip", precision="int8")


# ---- a run folder: resume it with the kernels


def run_seeds() -> dict[str, Files]:
    small = {"steps": 2, "hidden": 5, "embedding": 3, "batch_size": 3, "seq_length": 7, "sample_length": 12}
    small |= {
        "engine": "native" if kernels.chosen().module else "numpy",
        "precision": "fp32",
        "validate_every": 1,
        "threads": 1,
    }
    given = {
        "lstm": {"cell": "lstm", "split": "80/10/10"},
        "gru": {"cell": "gru", "layers": 2, "records": "line", "batches": "records", "input": "onehot"},
        "rnn": {"cell": "rnn", "optimizer": "sgd", "threads": 2, "keep": "best", "weight_drop": 0.2},
        "bytes": {
            "cell": "gru",
            "vocabulary": "bytes",
            "optimizer": "rmsprop",
            "batches": "windows",
            "batch_size": 50,
            "loss": "last",
        },
    }
    return {name: _run_files(small | values) for name, values in given.items()}


def _run_files(values: dict) -> Files:
    with _folder() as folder:
        (folder / "text.txt").write_text(PROSE, encoding="utf-8")
        # Seeds have no path of this machine, and no time.
        standing = mock.patch.object(Trainer.__init__, "__defaults__", (lambda: 0.0,))
        with contextlib.chdir(folder), standing:
            start(["text.txt"], values, Path("run"), None, lambda event: None, lambda: False)
        return read(folder / "run")


def use_run(folder: Path, _: Path) -> None:
    resume(folder, {"steps": _steps(folder) + STEPS}, lambda event: None, lambda: False)


def _steps(folder: Path) -> int:
    """The number of steps done, if the run has it; `resume` checks damaged values."""
    progress = folder / "last" / "resume.json"
    with contextlib.suppress(Exception):
        return max(1, json.loads(progress.read_bytes())["step"]) if progress.is_file() else 1
    return 1


# ---- a corpus: read it completely, in chunks of two sizes, and as ids


def corpus_seeds() -> dict[str, Files]:
    rows = [{"text": line, "n": n} for n, line in enumerate(PROSE.splitlines())]
    jsonl = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table = ("n,text\r\n" + "".join(f'{row["n"]},"{row["text"]}"\r\n' for row in rows)).encode()
    field = {"field": "text", "records": "field"}
    given = {
        "utf-8": ("a.txt", PROSE.encode(), {"records": "sentence"}),
        "cp1252": ("a.txt", PROSE.encode("cp1252", "replace"), {"records": "line"}),
        "koi8": ("a.txt", ("Жил-был кот. " * 20).encode("koi8_r"), {}),
        "shift-jis": ("a.txt", ("吾輩は猫である。\n" * 20).encode("shift_jis"), {"vocabulary": "bytes"}),
        "utf-16": ("a.txt", PROSE.encode("utf-16"), {"vocabulary": "bytes", "records": "paragraph"}),
        "utf-32": ("a.txt", PROSE.encode("utf-32"), {"newlines_to_spaces": True, "collapse_spaces": True}),
        "jsonl": ("a.jsonl", jsonl, field),
        "csv": ("a.csv", table, field),
        "json": ("a.json", json.dumps(rows).encode(), {}),
        "tsv": ("a.tsv", table.replace(b",", b"\t"), {"lowercase": True}),
        "gz": ("a.jsonl.gz", gzip.compress(jsonl, mtime=0), field),
        "bz2": ("a.csv.bz2", bz2.compress(table), field),
        "xz": ("a.txt.xz", lzma.compress(PROSE.encode()), {"records": "paragraph", "normalize": "nfkc"}),
    }
    return {
        name: {f"text/{file}": data, "settings.json": json.dumps(settings).encode()}
        for name, (file, data, settings) in given.items()
    }


def use_corpus(folder: Path, out: Path) -> None:
    settings = validated(TextSettings, json.loads((folder / "settings.json").read_bytes()))
    files = sorted(folder.glob("text/*"))
    if any(map(_is_bomb, files)):
        return
    paths = files if len(files) == 1 else [folder / "text"]
    corpus = open_corpus(paths, settings)
    dataset = prepare(corpus, settings, out, lambda line: None)
    if dataset.characters < 100_000:  # a longer one takes too long in small chunks
        in_small_chunks = open_corpus(paths, settings, size=16)
        assert corpus.text() == in_small_chunks.text(), "the text depends on the size of the chunks"
    for split in ("train", "validation", "test"):
        ids = dataset.ids(split).view()
        assert not len(ids) or ids.max() < dataset.vocabulary.size, f"an id of {split} is no token"


def _is_bomb(file: Path) -> bool:
    """Whether a file unpacks to megabytes. It is read in linear time, which takes too long under sanitizers."""
    size = 0
    with contextlib.suppress(CharloomError):
        for block in find_source(str(file)).blocks():
            size += len(block)
            if size > MOST:
                return True
    return False


# ---- a checkpoint of another program: import it, save it, generate


def import_seeds() -> dict[str, Files]:
    """The files of seeds/make.py whose libraries are installed."""
    folder = Path(__file__).parent / "seeds"
    characters = (folder / "characters.txt").read_bytes()
    by_index = json.dumps(dict(enumerate(characters.decode()))).encode()
    seeds: dict[str, Files] = {}
    if find_spec("h5py"):
        for name, given in {"lstm.keras": characters, "gru.weights.h5": by_index, "rnn.h5": characters}.items():
            seeds[name] = {"model": (folder / name).read_bytes(), "characters": given}
    if find_spec("torch"):
        seeds |= {path.name: {"model": path.read_bytes()} for path in sorted(folder.glob("*.net"))}
    return seeds


def use_import(folder: Path, out: Path) -> None:
    from charloom.checkpoint import save_new_model
    from charloom.importers.importing import import_model

    characters = folder / "characters"
    model = import_model(folder / "model", characters if os.path.lexists(characters) else None, lambda line: None)
    save_new_model(out / "model", model)
    Model.load(out / "model").generate(length=20, seed=1, threads=1)


KINDS = {
    "model": Kind(model_seeds, use_model),
    "run": Kind(run_seeds, use_run),
    "corpus": Kind(corpus_seeds, use_corpus),
    "import": Kind(import_seeds, use_import, ("h5py", "torch")),
}


# ---- inputs on disk


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="charloom-fuzz-") as name:
        yield Path(name)


def read(folder: Path) -> Files:
    """The input in a folder."""
    files: Files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            files[name] = Special.LINK
        elif path.is_fifo():
            files[name] = Special.FIFO
        elif path.is_file():
            files[name] = path.read_bytes()
        elif not any(path.iterdir()):
            files[name] = Special.FOLDER
    return files


def write(files: Files, folder: Path, outside: Path) -> None:
    """Puts an input into a new folder; links lead to `outside`."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is Special.FOLDER:
            path.mkdir(exist_ok=True)
        elif content is Special.FIFO:
            os.mkfifo(path)
        else:
            path.symlink_to(outside)


def quiet() -> None:
    """Hides warnings about overflow, which are normal in a damaged model."""
    np.seterr(all="ignore")
