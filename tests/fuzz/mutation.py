"""Damage: an input out of one or two others.

Bytes alone rarely pass the first check. So what a file holds is changed too, and the file written whole again: values
of JSON and TOML, tensors of safetensors, parts of archives and HDF5 files, instructions of pickles, compressed text,
and sizes in all files of a folder at once.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import math
import pickletools
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any

import tomli_w
from kinds import Files, Special

NUMBERS = (0, -1, 1, 2, 3, 7, 8, 9, 16, 17, 64, 255, 256, 257, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53)
NUMBERS += (2**63 - 1, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, 1e-320, math.inf, -math.inf, math.nan)
STRINGS = ("", " ", "a", "é", "→", "\0", "\n", "a\nb", "\r", "\x1b[31m", "\ud800", "\udc80", "\ufeff", "\u2028")
STRINGS += ("x" * 70_000, "../../outside", "/etc/passwd", "nan", "-1", "10/0/0", "bytes", "characters", "lstm", "gru")
BYTES = (b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\r\n", b"\n\n", b'"', b"{}")
BYTES += (b"\xf4\x90\x80\x80", b"\xe2\x80\xa8", b"\x1e", b"\x1a", b"[" * 2000, b"9" * 5000, b"\0" * 4096)
UNREAD = ("README.md", "samples.txt", "settings.json")
DEEP = "charloom-fuzz-deep"  # stands for a value nested too deeply for Python's recursion
LARGEST = 1 << 20  # bytes that a changed file may have, or an unpacked part
ENDINGS = (".txt", ".jsonl", ".csv", ".gz", ".bz2", ".xz", ".txt.gz", ".csv.xz", ".jsonl.bz2")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp1252", "koi8_r", "shift_jis", "gb18030", "utf-7")
SETTINGS = {
    "field": (None, "text", "n", ""),
    "encoding": (None, *ENCODINGS),
    "records": ("none", "line", "sentence", "paragraph", "file", "field"),
    "vocabulary": ("auto", "characters", "bytes"),
    "min_count": (1, 2, 100),
    "split": ("90/10/0", "1/1/1", "1/0/99"),
    "allow": (None, "a-z \n", "", "\\"),
    "normalize": (None, "nfc", "nfkc"),
    **dict.fromkeys(("lowercase", "newlines_to_spaces", "collapse_spaces"), (False, True)),
}
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}


class Mutator:
    """Damages inputs; with the same seeds and random numbers always in the same way.

    seeds: what HDF5 files may be opened here: of a damaged one, the library has been seen to crash.
    """

    def __init__(self, seeds: list[Files]) -> None:
        self._whole = {data for files in seeds for data in _all_parts(files)}

    def mutated(self, files: Files, other: Files, random: Random) -> Files:
        """One input, changed in one to five places, some of them as in the other."""
        files = dict(files)
        for _ in range(random.choice((1, 1, 1, 2, 2, 3, 5))):
            if random.random() < 0.2:
                random.choice((self._swap, self._place, _resize, _rename, _settings))(files, other, random)
            elif names := [name for name in _read_files(files) if isinstance(files[name], bytes)]:
                name = random.choice(names)
                files[name] = self._changed(name, files[name], _contents(other), random)[:LARGEST]
        return files

    def _swap(self, files: Files, other: Files, random: Random) -> None:
        """A file is missing, empty, or that of the other input."""
        if names := _read_files(files):
            name = random.choice(names)
            files[name] = other.get(name, b"")
            if random.random() < 0.3:
                del files[name]

    def _place(self, files: Files, other: Files, random: Random) -> None:
        """Something else than a regular file, now and then: a FIFO costs a whole time limit where it is opened."""
        if random.random() < 0.05 and (names := _read_files(files)):
            files[random.choice(names)] = random.choice([*Special])

    def _changed(self, name: str, data: bytes, donors: list[bytes], random: Random) -> bytes:
        """A file's content, changed in its own format most of the time."""
        if random.random() < 0.75 and (change := self._format(name, data)):
            try:
                return change(data, donors, random)
            except Exception:  # it is damaged already
                return _changed_bytes(data, donors, random)
        return _changed_bytes(data, donors, random)

    def _format(self, name: str, data: bytes) -> Callable[[bytes, list[bytes], Random], bytes] | None:
        if data[:4] == b"\x89HDF":
            return _changed_hdf5 if data in self._whole else None
        for magic, change in ((b"PK", self._changed_zip), (b"\x80\x02", _changed_pickle), *PACKED):
            if data.startswith(magic):
                return change if callable(change) else partial(self._changed_packed, name, change)
        endings = ((".json", _changed_json), (".toml", _changed_toml), (".jsonl", _changed_lines))
        endings += ((".safetensors", _changed_tensors), (".txt", _changed_text), (".csv", _changed_text))
        endings += (("characters", _changed_json if data[:1] in (b"[", b"{") else _changed_text),)
        return next((change for ending, change in endings if ending in name), None)

    def _changed_packed(self, name: str, packing: Any, data: bytes, donors: list[bytes], random: Random) -> bytes:
        """Compressed data, changed inside; sometimes a bomb, or two members in one file."""
        unpacked = packing.open(io.BytesIO(data)).read(LARGEST)
        inner = self._changed(name.rpartition(".")[0], unpacked, donors, random)
        if random.random() < 0.003:
            inner *= max(1, 30 * LARGEST // max(1, len(inner)))
        packed = gzip.compress(inner, mtime=0) if packing is gzip else packing.compress(inner)
        return packed + data if random.random() < 0.1 else packed

    def _changed_zip(self, data: bytes, donors: list[bytes], random: Random) -> bytes:
        """One member changed, renamed, missing, there twice, or from another archive."""
        members = _members(data)
        name = random.choice(sorted(members))
        what = random.random()
        if what < 0.7:
            members[name] = self._changed(name, members[name], donors, random)
        elif what < 0.8:
            members[random.choice(sorted(members))] = members.pop(name)
        elif what < 0.9:
            del members[name]
        else:
            members[name] = next((m[name] for m in map(_maybe_members, donors) if name in m), b"")
        return _archive(members, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


PACKED = ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ", lzma))


# ---- bytes


def _changed_bytes(data: bytes, donors: list[bytes], random: Random) -> bytes:
    """Flipped, set, cut, inserted, repeated, or spliced with another file."""
    at, until = sorted((random.randrange(len(data) + 1), random.randrange(len(data) + 1)))
    if random.random() < 0.5:
        until = min(until, at + random.choice((1, 2, 4, 8, 16)))
    donor = random.choice(donors or [b""])
    begin = random.randrange(len(donor) + 1)
    width = random.choice("bhiq")
    number = struct.pack(f"<{width}", int(random.choice(NUMBERS[:20])) % (1 << (8 * struct.calcsize(width) - 1)))
    return random.choice(
        (
            lambda: (
                data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :] if at < len(data) else data
            ),
            lambda: data[:at] + random.randbytes(until - at) + data[until:],
            lambda: data[:at] + number + data[at + len(number) :],
            lambda: data[:at] + random.choice(BYTES) + data[at:],
            lambda: data[:at],
            lambda: data[:at] + data[until:],
            lambda: data[:until] + data[at:until] * random.choice((1, 2, 50)) + data[until:],
            lambda: data[:at] + donor[begin:],
            lambda: data[:at] + donor[begin : begin + until - at] + data[until:],
        )
    )()


# ---- values: JSON, TOML, JSON Lines


def _slots(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value inside."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _slots(value[key])


def _change_value(root: Any, donors: list[Any], random: Random) -> None:
    """One value inside changes, goes, or is taken from elsewhere."""
    slots = [*_slots(root)]
    holder, key = random.choice(slots)
    elsewhere, place = random.choice([*_slots(random.choice([*donors, root]))] or slots)
    what = random.random()
    if what < 0.1:
        del holder[key]
    elif what < 0.2:
        holder[key] = elsewhere[place]
    elif what < 0.25 and isinstance(holder, dict):
        holder[random.choice((*STRINGS, place if isinstance(place, str) else "x"))] = holder.pop(key)
    elif what < 0.3 and isinstance(holder, list):
        holder.insert(key, elsewhere[place])
    else:
        holder[key] = _other_value(holder[key], random)


def _other_value(value: Any, random: Random) -> Any:
    if random.random() < 0.15:
        return random.choice((None, True, False, [], {}, [value], {"a": value}, DEEP, *NUMBERS, *STRINGS))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        near = (value + 1, value - 1, value * 2, -value, value / 2, value // 2)
        return random.choice(near if random.random() < 0.5 else NUMBERS)
    if isinstance(value, str):
        at = random.randrange(len(value) + 1)
        return random.choice((*STRINGS, value[:at], value[at:] * 2, value[:at] + random.choice(STRINGS) + value[at:]))
    if isinstance(value, list) and value:
        return random.choice((value[::-1], value[:-1], value * 2, value[: len(value) // 2], []))
    return random.choice((*NUMBERS, *STRINGS))


def _deep(text: str, random: Random) -> bytes:
    depth = random.choice((50, 990, 20_000))
    opening, closing = random.choice((("[", "]"), ('{"a":', "}")))
    return text.replace(f'"{DEEP}"', opening * depth + "1" + closing * depth).encode("utf-8", "surrogatepass")


def _json_of(donors: list[bytes]) -> list[Any]:
    found = []
    for donor in donors:
        try:
            found.append(json.loads(donor))
        except (ValueError, RecursionError):
            continue
    return found


def _changed_json(data: bytes, donors: list[bytes], random: Random) -> bytes:
    value = json.loads(data)
    _change_value(value, _json_of(donors), random)
    return _deep(json.dumps(value, ensure_ascii=random.random() < 0.5), random)


def _changed_toml(data: bytes, donors: list[bytes], random: Random) -> bytes:
    value = tomllib.loads(data.decode())
    _change_value(value, [], random)
    return _deep(tomli_w.dumps(value), random)


def _changed_lines(data: bytes, donors: list[bytes], random: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = random.randrange(len(lines))
    what = random.random()
    if what < 0.6:
        lines[at] = _changed_json(lines[at], donors, random) + b"\n"
    elif what < 0.8:
        lines[at] = _changed_bytes(lines[at], donors, random)
    else:
        lines.insert(at, random.choice((b"\n", b"null\n", b"[]\n", b"1\n", lines[-1], b"\r", lines[at][:-3])))
    return b"".join(lines)


# ---- tensors

Tensors = dict[str, tuple[str, list[int], bytes]]


def tensors_of(data: bytes) -> Tensors:
    """Name → (dtype, shape, bytes) of a whole safetensors file."""
    length = struct.unpack("<Q", data[:8])[0]
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], rest[slice(*t["data_offsets"])]) for name, t in header.items()}


def safetensors(tensors: Tensors) -> bytes:
    """The file that holds these."""
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values())


def _sized(dtype: str, shape: list[int], data: bytes) -> tuple[str, list[int], bytes]:
    """A tensor of this type and shape, its bytes repeated or cut to fit; nothing larger than an input may be."""
    size = math.prod(shape) * DTYPES.get(dtype, 1)
    if not 0 <= size <= LARGEST // 4:
        return dtype, shape, data
    return dtype, shape, (data * (size // max(1, len(data)) + 1))[:size] if data else bytes(size)


def _changed_tensors(data: bytes, donors: list[bytes], random: Random) -> bytes:
    if random.random() < 0.2:
        return _changed_header(data, donors, random)
    tensors = tensors_of(data)
    name = random.choice(sorted(tensors))
    dtype, shape, values = tensors[name]
    what = random.random()
    if what < 0.25:
        tensors[name] = _sized(random.choice(sorted(DTYPES)), shape, values)
    elif what < 0.5:
        tensors[name] = _sized(dtype, _other_shape(shape, random), values)
    elif what < 0.75:
        tensors[name] = dtype, shape, _other_numbers(values, random)
    elif what < 0.85:
        tensors[random.choice((*sorted(tensors), *STRINGS))] = tensors.pop(name)
    elif what < 0.95:
        tensors[random.choice(("state.0", "state.1", "steps", "rnn.weight_hh_l1", name + "\n"))] = tensors[name]
    else:
        del tensors[name]
    return safetensors(tensors)


def _changed_header(data: bytes, donors: list[bytes], random: Random) -> bytes:
    """A header that does not fit what follows."""
    length = struct.unpack("<Q", data[:8])[0]
    text = _changed_json(data[8 : 8 + length], donors, random)
    said = len(text) if random.random() < 0.9 else abs(int(random.choice(NUMBERS[:20])))
    return struct.pack("<Q", said) + text + data[8 + length :]


def _other_shape(shape: list[int], random: Random) -> list[int]:
    axis = random.randrange(len(shape) + 1)
    if axis == len(shape) or random.random() < 0.2:
        return random.choice(([*shape, 1], [1, *shape], shape[1:], shape[::-1], [math.prod(shape)], [], [0]))
    return [
        *shape[:axis],
        random.choice((0, 1, shape[axis] + 1, shape[axis] - 1, shape[axis] * 2, 65536, 2**40)),
        *shape[axis + 1 :],
    ]


def _other_numbers(values: bytes, random: Random) -> bytes:
    """Some float32 numbers, or bytes of the file's own type, that are rare."""
    number = struct.pack("<f", random.choice((math.nan, math.inf, 3e38, -3e38, 1e-42, 1e10, -1e4, 0.0, 20.0)))
    count = max(1, len(values) // 4)
    at = 4 * random.randrange(count)
    return random.choice((number * count, values[:at] + number + values[at + 4 :], random.randbytes(len(values))))[
        : len(values)
    ]


def _resize(files: Files, other: Files, random: Random) -> None:
    """One size becomes another in the files of the input: in all, a whole other network stands there; or in most."""
    left = {name for name in files if random.random() < 0.15}
    found = {name: _maybe_tensors(data) for name, data in files.items() if name.endswith(".safetensors")}
    sizes = sorted({size for tensors in found.values() for _, shape, _ in tensors.values() for size in shape})
    if not sizes:
        return
    old = random.choice(sizes)
    new = random.choice((old + 1, max(1, old - 1), old * 2, 1, 2, 3, 16, 33))

    def other_size(size: Any) -> Any:
        return next((gates * new for gates in (1, 3, 4) if size == gates * old), size)

    for name, tensors in [(name, tensors) for name, tensors in found.items() if name not in left]:
        files[name] = safetensors(
            {key: _sized(dtype, [*map(other_size, shape)], data) for key, (dtype, shape, data) in tensors.items()}
        )
    for name, data in [*files.items()]:
        if name not in left and name.endswith((".json", ".toml")) and isinstance(data, bytes):
            files[name] = _resized_text(name, data, old, other_size)


def _resized_text(name: str, data: bytes, old: int, other_size: Callable[[Any], Any]) -> bytes:
    """Numbers and lists of the old size get the new one; a longer vocabulary has Chinese characters at its end."""
    try:
        value = tomllib.loads(data.decode()) if name.endswith(".toml") else json.loads(data)
        for holder, key in [*_slots(value)]:
            inside = holder[key]
            if type(inside) is int:
                holder[key] = other_size(inside)
            elif isinstance(inside, list) and inside and isinstance(inside[0], str):
                holder[key] = (inside + [chr(0x4E00 + n) for n in range(100)])[: len(inside) + other_size(old) - old]
        return (tomli_w.dumps(value) if name.endswith(".toml") else json.dumps(value)).encode()
    except Exception:  # damaged before
        return data


# ---- archives, pickles, HDF5


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {part.filename: archive.open(part).read(LARGEST) for part in archive.infolist()}


def _maybe_members(data: bytes) -> dict[str, bytes]:
    try:
        return _members(data)
    except Exception:  # no archive, or a damaged one
        return {}


def _maybe_tensors(data: bytes | Special) -> Tensors:
    try:
        return tensors_of(data) if isinstance(data, bytes) else {}
    except Exception:  # damaged before
        return {}


def _archive(members: dict[str, bytes], packing: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, packing)
    return file.getvalue()


def _changed_pickle(data: bytes, donors: list[bytes], random: Random) -> bytes:
    """Instructions of the pickles that a file begins with: arguments change, instructions go, come twice, or swap."""
    codes, at = _instructions(data)
    n, m = random.randrange(len(codes)), random.randrange(len(codes))
    what = random.random()
    if what < 0.6:
        numbers = [k for k, code in enumerate(codes) if code[:1] in b"KMJX\x8c\x88\x89"]
        n = random.choice(numbers or [n])
        codes[n] = _other_instruction(codes[n], random)
    elif what < 0.75:
        del codes[n]
    elif what < 0.9:
        codes.insert(n, codes[m])
    else:
        codes[n], codes[m] = codes[m], codes[n]
    return b"".join(codes) + data[at:]


def _instructions(data: bytes) -> tuple[list[bytes], int]:
    """Every instruction of the pickles at the start, and where they end."""
    codes, at = [], 0
    while True:
        try:
            places = [at + place for _, _, place in pickletools.genops(data[at:])]
        except Exception:  # what follows is no pickle
            return codes, at
        codes += [data[begin:end] for begin, end in zip(places, [*places[1:], places[-1] + 1], strict=True)]
        at = places[-1] + 1


def _other_instruction(code: bytes, random: Random) -> bytes:
    if code[:1] in b"KMJ":
        number = int(random.choice(NUMBERS[:17]))
        return random.choice(
            (b"K" + bytes([number & 255]), b"J" + struct.pack("<i", number), b"\x8a\x08" + b"\xff" * 7 + b"\x7f")
        )
    if code[:1] in b"\x88\x89":
        return random.choice((b"\x88", b"\x89", b"N", b"K\x07"))
    text = random.choice((*STRINGS, "tokens", "state_dict", "cpu", "weight_ih_l0", "0")).encode(
        "utf-8", "surrogatepass"
    )
    return b"X" + struct.pack("<I", len(text)) + text


def _changed_hdf5(data: bytes, donors: list[bytes], random: Random) -> bytes:
    import h5py

    file = io.BytesIO(data)
    with h5py.File(file, "r+") as root:
        places: list[str] = []
        root.visit(places.append)
        place = random.choice(places)
        if random.random() < 0.4:
            _change_attribute(root, [root, *(root[p] for p in places)], random)
        elif isinstance(root[place], h5py.Dataset):
            _change_dataset(root, place, random)
        else:
            _change_link(root, place, random.choice(places), random)
    return file.getvalue()


def _change_attribute(root: Any, items: list[Any], random: Random) -> None:
    """A configuration is JSON in an attribute; names are lists of strings."""
    attributes = random.choice([item.attrs for item in items if len(item.attrs)] or [root.attrs])
    name = random.choice(sorted(attributes))
    value = attributes[name]
    if isinstance(value, str) and value.startswith("{"):
        attributes[name] = _changed_json(value.encode(), [], random).decode("utf-8", "replace")[:60_000]
    elif random.random() < 0.3:
        del attributes[name]
    else:
        values = value.tolist() if hasattr(value, "tolist") else [value]
        _change_value(values, [], random)
        attributes[name] = values if len(values) != 1 else values[0]


def _change_dataset(root: Any, place: str, random: Random) -> None:
    """Another shape or type, numbers that are rare, or a claim without contents."""
    import numpy as np

    values = root[place][()]
    del root[place]
    what = random.random()
    if what < 0.3:
        shape = _other_shape(list(values.shape), random)
        root.create_dataset(place, data=np.resize(values, shape) if math.prod(shape) < 50_000 else values)
    elif what < 0.5:
        root.create_dataset(place, data=values.astype(random.choice(("f2", "f8", "i4", "S3", "c8", "?"))))
    elif what < 0.7:
        root.create_dataset(
            place, data=np.frombuffer(_other_numbers(values.tobytes(), random), values.dtype).reshape(values.shape)
        )
    elif what < 0.85:
        root.create_dataset(place, shape=random.choice(((2**20,), (2**40,), (2**30, 2**30), (0,))), dtype="f4")
    elif what < 0.95:
        root.create_dataset(place, data=np.resize(values, (64, 64)), chunks=(8, 8), compression="gzip")


def _change_link(root: Any, place: str, other: str, random: Random) -> None:
    """A group that is moved, gone, or a link: to a file elsewhere, to nothing, or in a circle."""
    import h5py

    what = random.random()
    if what < 0.3:
        root.move(place, f"{place}_{random.randrange(12)}")
    elif what < 0.5:
        del root[place]
    elif what < 0.7:
        root[f"{place}/inner"] = root[random.choice((place, other, "/"))]
    elif what < 0.85:
        root[f"{place}/soft"] = h5py.SoftLink(other)
    else:
        del root[place]
        root[place] = random.choice(
            (h5py.SoftLink("/nothing"), h5py.ExternalLink("model", "/"), h5py.ExternalLink("/etc/passwd", "/"))
        )


# ---- corpora


def _changed_text(data: bytes, donors: list[bytes], random: Random) -> bytes:
    """In another encoding, with characters that are rare, or in other lines."""
    text = data.decode(random.choice(("utf-8", "utf-8", *ENCODINGS)))
    at = random.randrange(len(text) + 1)
    mark = random.choice(
        ("\ufeff", "\0", "\r", "\r\n", "\n\n\n", "\u2028", "\x85", "\x1e", '"', ",", ". ", "。", "a\u0301" * 40)
    )
    text = random.choice((text, text[:at] + mark + text[at:], text.replace("\n", mark), text[at:] + text[:at]))
    return text.encode(random.choice(ENCODINGS), random.choice(("replace", "ignore", "surrogatepass")))


def _rename(files: Files, other: Files, random: Random) -> None:
    """A text with another ending; or one more file beside it."""
    names = [name for name in sorted(files) if name.startswith("text/")]
    if names and random.random() < 0.7:
        name = random.choice(names)
        files[name.partition(".")[0] + random.choice(ENDINGS)] = files.pop(name)
    elif names:
        donors = [content for name, content in sorted(other.items()) if name.startswith("text/")]
        files[f"text/{random.choice('bcd')}{random.choice(ENDINGS)}"] = random.choice(donors or [b""])


def _settings(files: Files, other: Files, random: Random) -> None:
    """Other settings, all of them possible."""
    if isinstance(data := files.get("settings.json"), bytes) and "text/" in str(sorted(files)):
        name = random.choice(sorted(SETTINGS))
        chosen = {name: random.choice(SETTINGS[name])}
        given = next(iter(_json_of([data])), {})
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
            yield from _members(content).values()


def checksum(files: Files) -> str:
    """Short, the same for the same input: for names."""
    parts = [
        f"{name}:{content if isinstance(content, Special) else zlib.crc32(content)}"
        for name, content in sorted(files.items())
    ]
    return f"{zlib.crc32('|'.join(parts).encode('utf-8', 'surrogatepass')):08x}"
