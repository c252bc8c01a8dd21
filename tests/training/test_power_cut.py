"""A power cut at any moment: all states that POSIX allows for the disk of a run can be loaded.

The operations of a run on its files are recorded. Then the disk is what it may be after any number of them: what was
synced is there; of the names changed in a folder since it was last synced any may be old or new; and a file that was
not synced since it was written may have its old content, part of the new one, or zeros.
"""

from __future__ import annotations

import itertools
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from charloom.checkpoint import load_model
from charloom.data.dataset import open_dataset
from charloom.errors import CharloomError, Interrupted
from charloom.training import start
from charloom.training.curve import read_curve
from charloom.training.run_folder import RunFolder

CHEAP = {
    "hidden": 4,
    "embedding": 2,
    "batch_size": 2,
    "seq_length": 8,
    "steps": 4,
    "device": "cpu",
    "precision": "fp32",
    "validate_every": 2,
    "checkpoint_every": 2,
    "sample_length": 8,
    "keep": 2,
}
FREE = 3  # the newest changes of names vary independently; of older unsynced ones, all or none are on the disk

Node = int


@dataclass(frozen=True)
class Named:
    """Names of one folder that changed together: the new target of each; None means that the name is gone."""

    folder: Node
    names: dict[str, Node | None]


@dataclass(frozen=True)
class Written:
    """The complete content of a file after a write."""

    file: Node
    data: bytes


@dataclass(frozen=True)
class Synced:
    """The content of a file, or the names of a folder, that a later power cut cannot change."""

    node: Node


@dataclass
class Recorder:
    """Records the operations on files below a folder, at every call that changes a name or syncs.

    What was written in between is what the files hold that is new.
    """

    root: Path
    operations: list[Named | Written | Synced] = field(default_factory=list)
    marks: list[tuple[int, int]] = field(default_factory=list)  # (operations so far, step that must not be lost)

    def __post_init__(self):
        self._numbers = itertools.count(1)
        self._nodes = {self.root: 0}
        self._contents = {}
        self._inside = False

    def record(self):
        """Records new files and written contents."""
        for path in sorted(self.root.rglob("*")):
            if path not in self._nodes:
                self._enter(path)
            if path.is_file() and self._contents.get(self._nodes[path], b"") != (data := path.read_bytes()):
                self._contents[self._nodes[path]] = data
                self.operations.append(Written(self._nodes[path], data))

    def _enter(self, path):
        self._nodes[path] = next(self._numbers)
        if path.is_file():
            self.operations.append(Written(self._nodes[path], b""))
        self._name(path.parent, {path.name: self._nodes[path]})

    def _name(self, folder, names):
        self.operations.append(Named(self._nodes[folder], names))

    def forget(self, path):
        """Records that a name is removed, with all names below it."""
        for gone in sorted((place for place in self._nodes if path in (place, *place.parents)), reverse=True):
            self._name(gone.parent, {gone.name: None})
            del self._nodes[gone]

    def renamed(self, old, new):
        """Records a rename inside one folder."""
        assert old.parent == new.parent
        for path in [path for path in self._nodes if path == new or new in path.parents]:
            del self._nodes[path]
        moved = {path: node for path, node in self._nodes.items() if path == old or old in path.parents}
        for path, node in moved.items():
            del self._nodes[path]
            self._nodes[new / path.relative_to(old)] = node
        self._name(old.parent, {old.name: None, new.name: self._nodes[new]})

    def synced(self, path):
        """Records a sync."""
        if path in self._nodes:
            self.operations.append(Synced(self._nodes[path]))

    def attach(self, patch):
        """Records every call from now on."""
        self._see(patch, os, "fsync", lambda handle: self.synced(Path(os.readlink(f"/proc/self/fd/{handle}"))))
        self._see(patch, os, "mkdir", lambda path, mode: self._enter(path))
        for name in ("rename", "replace"):
            self._see(patch, os, name, self.renamed)
        for owner, name in ((os, "unlink"), (os, "rmdir"), (shutil, "rmtree")):
            self._see(patch, owner, name, self.forget)

    def _see(self, patch, owner, name, record):
        real = getattr(owner, name)

        def call(*arguments, **options):
            mine = isinstance(arguments[0], int) or self.root in Path(arguments[0]).parents
            if not mine or self._inside:  # part of another recorded call: `rmtree` calls others
                return real(*arguments, **options)
            self.record()
            self._inside = True
            try:
                result = real(*arguments, **options)
            finally:
                self._inside = False
            record(*(Path(argument) if isinstance(argument, str | Path) else argument for argument in arguments))
            return result

        patch.setattr(owner, name, call)


def contents(last, now):
    """The contents that a disk may have for a file: synced as `last`, then written as `now` without a sync."""
    if now.startswith(last):
        new = len(now) - len(last)
        return [last, last + now[len(last) :][: new // 2], last + bytes(new), now]
    return [last, now[: len(now) // 2], bytes(len(now)), now]


def disks(operations):
    """All states of a disk after these operations: (names in each folder, content of each file)."""
    names, synced, pending, written = {0: {}}, {}, [], {}
    for operation in operations:
        if isinstance(operation, Named):
            pending.append(operation)
        elif isinstance(operation, Written):
            written[operation.file] = operation.data
        elif operation.node in written:
            synced[operation.node] = written[operation.node]
        else:
            for change in [change for change in pending if change.folder == operation.node]:
                names.setdefault(change.folder, {}).update(change.names)
            pending = [change for change in pending if change.folder != operation.node]
    files = [{node: contents(synced.get(node, b""), data)[kind] for node, data in written.items()} for kind in range(4)]
    older, free = pending[:-FREE], pending[-FREE:]
    for base, chosen in itertools.product(
        ([], older) if older else ([],), itertools.product([False, True], repeat=len(free))
    ):
        tree = {folder: dict(inside) for folder, inside in names.items()}
        for change in [*base, *itertools.compress(free, chosen)]:
            tree.setdefault(change.folder, {}).update(change.names)
        for content in files:
            yield tree, content


def laid_out(tree, files, node=0, at=""):
    """(path, content) of all files, and (path, None) of all folders, below a folder."""
    for name, child in sorted(tree.get(node, {}).items()):
        if child is not None:
            yield f"{at}{name}", files.get(child)
            yield from laid_out(tree, files, child, f"{at}{name}/")


def write(place, state):
    """Makes the disk; folders that it has already stay, because removing one takes milliseconds."""
    folders = {place / path for path, content in state if content is None}
    for path in sorted(place.rglob("*"), reverse=True):
        if not path.is_dir():
            path.unlink()
        elif path not in folders:
            path.rmdir()
    place.mkdir(exist_ok=True)
    for path, content in state:
        if content is None:
            (place / path).mkdir(exist_ok=True)
        else:
            (place / path).write_bytes(content)


def load(folder):
    """The step from which a run resumes, after reading all files that resuming reads first."""
    with RunFolder.open(folder) as run:
        progress = run.load_last().progress
        open_dataset(run.data)
        if progress.best_nats is not None:
            load_model(folder / "best")
        assert read_curve(run.log_file)[1] == 0, "a damaged line of the log"
        assert (folder / "log.jsonl").stat().st_size == progress.log_bytes
    return progress.step


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, zen):
    """A run that is stopped after its third step and resumed to its end."""
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("no /proc to see which file is synced")
    corpus = tmp_path_factory.mktemp("corpus") / "zen.txt"
    corpus.write_text(zen, encoding="utf-8")
    root = tmp_path_factory.mktemp("disk")
    recorder = Recorder(root)
    save = RunFolder.save_last

    def marked(run, state):
        save(run, state)
        recorder.marks.append((len(recorder.operations), state.progress.step))

    asked = iter([False, False])
    with pytest.MonkeyPatch.context() as patch:
        recorder.attach(patch)
        patch.setattr(RunFolder, "save_last", marked)
        with pytest.raises(Interrupted):
            start.start([str(corpus)], CHEAP, root / "runs" / "run", None, lambda _: None, lambda: next(asked, True))
        start.resume(root / "runs" / "run", {}, lambda _: None, lambda: False)
        recorder.record()
    return recorder, root / "runs" / "run"


def states(recorder):
    """(operations done, step that must not be lost, state of the disk), without duplicates."""
    seen = set()
    for count in range(len(recorder.operations) + 1):
        safe = max((step for end, step in recorder.marks if end <= count), default=None)
        for tree, files in disks(recorder.operations[:count]):
            state = tuple(laid_out(tree, files))
            if (state, safe) not in seen:
                seen.add((state, safe))
                yield count, safe, state


def test_whatever_a_power_cut_leaves_can_be_loaded_and_is_no_older_than_what_was_synced(recorded, tmp_path):
    """Catches a name that survives without its content, and a checkpoint without its ids, settings or log.

    With `FREE = 7` there are 8,848 states, of which 8,282 load; the others are from before the first checkpoint.
    """
    loaded = 0
    for count, safe, state in states(recorded[0]):
        write(tmp_path / "disk", state)
        try:
            step = load(tmp_path / "disk" / "runs" / "run")
        except CharloomError:
            if safe is not None:
                raise
        else:
            assert step >= (safe or 0), f"after {count} operations"
            loaded += 1
    assert loaded > 1000


def test_after_a_power_cut_a_run_ends_as_the_straight_one(recorded, tmp_path):
    """Catches old and new files side by side that can be loaded but train differently."""
    recorder, straight = recorded
    after = [state for _, safe, state in states(recorder) if safe is not None]
    for state in after[:: len(after) // 12]:
        write(tmp_path / "disk", state)
        run = tmp_path / "disk" / "runs" / "run"
        assert start.resume(run, {}, lambda _: None, lambda: False).step == 4
        for name in ("last/model.safetensors", "last/resume.safetensors", "best/model.safetensors", "samples.txt"):
            assert (run / name).read_bytes() == (straight / name).read_bytes(), name
