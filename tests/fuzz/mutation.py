"""Damage: an input out of one or two others.

Bytes alone rarely pass the first check. So what a file holds is changed too, and the file written whole again
(values.py, formats.py). Sizes are changed in all files of a folder at once.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

import tomli_w
from formats import (
    LARGEST,
    archive,
    changed_hdf5,
    changed_pickle,
    changed_tensors,
    maybe_members,
    maybe_tensors,
    members_of,
    safetensors,
    sized,
)
from kinds import Files, Special
from values import ENCODINGS, changed_bytes, changed_json, changed_lines, changed_text, changed_toml, json_of, slots

from charloom.config import TextSettings

UNREAD = ("README.md", "samples.txt", "settings.json")
ENDINGS = (".txt", ".jsonl", ".csv", ".tsv", ".json", ".md", ".gz", ".bz2", ".xz", ".txt.gz", ".csv.xz", ".jsonl.bz2")
SETTINGS = {
    "field": (None, "text", "text", "n", "", "text.a"),
    "encoding": (None, *ENCODINGS),
    "records": ("none", "line", "sentence", "paragraph", "file", "field"),
    "vocabulary": ("auto", "characters", "bytes"),
    "min_count": (1, 2, 100),
    "split": ("90/10/0", "1/1/1", "1/0/99"),
    "allow": (None, "a-z \n", "", "\\"),
    "normalize": (None, "nfc", "nfkc"),
    "errors": ("strict", "replace", "ignore"),
    **dict.fromkeys(("lowercase", "newlines_to_spaces", "collapse_spaces", "binary"), (False, True)),
}
SETTINGS = {name: values for name, values in SETTINGS.items() if name in TextSettings.model_fields}
PACKED = ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ", lzma))


class Mutator:
    """Damages inputs; with the same seeds and random numbers always in the same way.

    seeds: what HDF5 files may be opened here: of a damaged one, the library has been seen to crash.
    """

    def __init__(self, seeds: list[Files]) -> None:
        self._whole = {data for files in seeds for data in _all_parts(files)}

    def mutated(self, files: Files, other: Files, random: Random) -> Files:
        """One input, changed at one to five positions, some of them with values of the other input."""
        files = dict(files)
        for _ in range(random.choice((1, 1, 1, 2, 2, 3, 5))):
            if random.random() < 0.2:
                with suppress(Exception):  # damaged inputs may have sizes that are not numbers
                    random.choice((self._swap, self._place, _resize, _rename, _settings))(files, other, random)
            elif names := [name for name in _read_files(files) if isinstance(files[name], bytes)]:
                name = random.choice(names)
                files[name] = self._changed(name, files[name], _contents(other), random)[:LARGEST]
        if random.random() < 0.9:
            _seal(files)
        return files

    def _swap(self, files: Files, other: Files, random: Random) -> None:
        """Removes a file, empties it, or replaces it by that of the other input."""
        if names := _read_files(files):
            name = random.choice(names)
            files[name] = other.get(name, b"")
            if random.random() < 0.3:
                del files[name]

    def _place(self, files: Files, other: Files, random: Random) -> None:
        """Sometimes replaces a file by another kind of entry. As a text, a FIFO is valid, and waits for its
        other end.
        """
        if random.random() < 0.05 and (names := _read_files(files)):
            name = random.choice(names)
            files[name] = random.choice([what for what in Special if what is not Special.FIFO or "text/" not in name])

    def _changed(self, name: str, data: bytes, donors: list[bytes], random: Random) -> bytes:
        """The content of a file, changed mostly in its own format."""
        if random.random() < 0.75 and (change := self._format(name, data)):
            try:
                return change(data, donors, random)
            except Exception:  # already damaged
                return changed_bytes(data, donors, random)
        return changed_bytes(data, donors, random)

    def _format(self, name: str, data: bytes) -> Callable[[bytes, list[bytes], Random], bytes] | None:
        if data[:4] == b"\x89HDF":
            return changed_hdf5 if data in self._whole else None
        for magic, change in ((b"PK", self._changed_zip), (b"\x80\x02", changed_pickle), *PACKED):
            if data.startswith(magic):
                return change if callable(change) else partial(self._changed_packed, name, change)
        endings = ((".jsonl", changed_lines), (".json", changed_json), (".toml", changed_toml))
        endings += (
            (".safetensors", changed_tensors),
            *((ending, changed_text) for ending in (".txt", ".csv", ".tsv")),
        )
        endings += (("characters", changed_json if data[:1] in (b"[", b"{") else changed_text),)
        return next((change for ending, change in endings if ending in name), None)

    def _changed_packed(self, name: str, packing: Any, data: bytes, donors: list[bytes], random: Random) -> bytes:
        """Compressed data, changed inside; sometimes with a bomb, or with two members in one file."""
        unpacked = packing.open(io.BytesIO(data)).read(LARGEST)
        inner = self._changed(name.rpartition(".")[0], unpacked, donors, random)
        if random.random() < 0.003:
            inner *= max(1, 30 * LARGEST // max(1, len(inner)))
        packed = gzip.compress(inner, mtime=0) if packing is gzip else packing.compress(inner)
        return packed + data if random.random() < 0.1 else packed

    def _changed_zip(self, data: bytes, donors: list[bytes], random: Random) -> bytes:
        """One member changed, renamed, missing, doubled, or from another archive."""
        members = members_of(data)
        decisive = [name for name in sorted(members) if name.endswith((".pkl", ".json", ".h5"))]
        name = random.choice(decisive if decisive and random.random() < 0.6 else sorted(members))
        what = random.random()
        if what < 0.7:
            members[name] = self._changed(name, members[name], donors, random)
        elif what < 0.8:
            members[random.choice(sorted(members))] = members.pop(name)
        elif what < 0.9:
            del members[name]
        else:
            members[name] = next((m[name] for m in map(maybe_members, donors) if name in m), b"")
        return archive(members, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


# ---- all files of an input


def _resize(files: Files, other: Files, random: Random) -> None:
    """Changes one size in the files of the input: in all, which gives another valid network, or in most."""
    left = {name for name in files if random.random() < 0.15}
    found = {name: maybe_tensors(data) for name, data in files.items() if name.endswith(".safetensors")}
    sizes = sorted({size for tensors in found.values() for _, shape, _ in tensors.values() for size in shape})
    if not sizes:
        return
    old = random.choice(sizes)
    new = random.choice((old + 1, max(1, old - 1), old * 2, 1, 2, 3, 16, 33))

    def other_size(size: Any) -> Any:
        return next((gates * new for gates in (1, 3, 4) if size == gates * old), size)

    for name, tensors in [(name, tensors) for name, tensors in found.items() if name not in left]:
        files[name] = safetensors(
            {key: sized(dtype, [*map(other_size, shape)], data) for key, (dtype, shape, data) in tensors.items()}
        )
    for name, data in [*files.items()]:
        if name not in left and name.endswith((".json", ".toml")) and isinstance(data, bytes):
            files[name] = _resized_text(name, data, old, other_size)


def _resized_text(name: str, data: bytes, old: int, other_size: Callable[[Any], Any]) -> bytes:
    """Replaces numbers and lists of the old size by the new one; a longer vocabulary gets Chinese characters at its
    end.
    """
    try:
        value = tomllib.loads(data.decode()) if name.endswith(".toml") else json.loads(data)
        for holder, key in [*slots(value)]:
            inside = holder[key]
            if type(inside) is int:
                holder[key] = other_size(inside)
            elif isinstance(inside, list) and inside and isinstance(inside[0], str):
                holder[key] = (inside + [chr(0x4E00 + n) for n in range(100)])[: len(inside) + other_size(old) - old]
        return (tomli_w.dumps(value) if name.endswith(".toml") else json.dumps(value)).encode()
    except Exception:  # already damaged
        return data


def _seal(files: Files) -> None:
    """Recomputes the checksums of changed files: otherwise the first check ends each input."""
    for name, data in [*files.items()]:
        value = next(iter(json_of([data])), None) if name.endswith(".json") and isinstance(data, bytes) else None
        if not isinstance(value, dict):
            continue
        before, folder = json.dumps(value), name[: name.rfind("/") + 1]
        sums = value.get("sha256")
        for place in list(sums) if isinstance(sums, dict) else ():
            if isinstance(content := files.get(folder + place), bytes):
                sums[place] = hashlib.sha256(content).hexdigest()
        if "ids_sha256" in value and isinstance(content := files.get(folder + "ids.bin"), bytes):
            value["ids_sha256"] = hashlib.sha256(content).hexdigest()
        if json.dumps(value) != before:
            files[name] = json.dumps(value).encode()


def _rename(files: Files, other: Files, random: Random) -> None:
    """Gives a text another ending, or adds a file."""
    names = [name for name in sorted(files) if name.startswith("text/")]
    if names and random.random() < 0.7:
        name = random.choice(names)
        files[name.partition(".")[0] + random.choice(ENDINGS)] = files.pop(name)
    elif names:
        donors = [content for name, content in sorted(other.items()) if name.startswith("text/")]
        files[f"text/{random.choice('bcd')}{random.choice(ENDINGS)}"] = random.choice(donors or [b""])


def _settings(files: Files, other: Files, random: Random) -> None:
    """Other valid settings."""
    if isinstance(data := files.get("settings.json"), bytes) and "text/" in str(sorted(files)):
        name = random.choice(sorted(SETTINGS))
        chosen = {name: random.choice(SETTINGS[name])}
        given = next(iter(json_of([data])), {})
        files["settings.json"] = json.dumps((given if isinstance(given, dict) else {}) | chosen).encode()


# ---- small things


def _read_files(files: Files) -> list[str]:
    """The files that charloom reads: no card, no samples; and the settings of a corpus are those of a command line."""
    return sorted(name for name in files if not name.startswith("kept/") and not name.endswith(UNREAD))


def _contents(files: Files) -> list[bytes]:
    return [content for _, content in sorted(files.items()) if isinstance(content, bytes)]


def _all_parts(files: Files) -> Iterator[bytes]:
    for content in _contents(files):
        yield content
        if content[:2] == b"PK":
            yield from members_of(content).values()


def checksum(files: Files) -> str:
    """A short checksum for names; the same for the same input."""
    parts = [
        f"{name}:{content if isinstance(content, Special) else zlib.crc32(content)}"
        for name, content in sorted(files.items())
    ]
    return f"{zlib.crc32('|'.join(parts).encode('utf-8', 'surrogatepass')):08x}"
