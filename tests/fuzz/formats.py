"""Damage inside safetensors, archives, pickles and HDF5 files; each file is then written again as a complete file."""

from __future__ import annotations

import io
import json
import math
import pickletools
import struct
import zipfile
from random import Random
from typing import Any

from kinds import Special
from values import NUMBERS, STRINGS, change_value, changed_json

LARGEST = 1 << 20  # bytes of a changed file, or of an unpacked part, at most
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}

Tensors = dict[str, tuple[str, list[int], bytes]]


def tensors_of(data: bytes) -> Tensors:
    """Name → (dtype, shape, bytes) of a complete safetensors file."""
    length = struct.unpack("<Q", data[:8])[0]
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], rest[slice(*t["data_offsets"])]) for name, t in header.items()}


def maybe_tensors(data: bytes | Special) -> Tensors:
    try:
        return tensors_of(data) if isinstance(data, bytes) else {}
    except Exception:  # was already damaged
        return {}


def safetensors(tensors: Tensors) -> bytes:
    """A file with these tensors."""
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values())


def sized(dtype: str, shape: list[int], data: bytes) -> tuple[str, list[int], bytes]:
    """A tensor of this type and shape; its bytes are repeated or cut to fit. It is not larger than an input may be."""
    size = math.prod(shape) * DTYPES.get(dtype, 1)
    if not 0 <= size <= LARGEST // 4:
        return dtype, shape, data
    return dtype, shape, (data * (size // max(1, len(data)) + 1))[:size] if data else bytes(size)


def changed_tensors(data: bytes, donors: list[bytes], random: Random) -> bytes:
    if random.random() < 0.2:
        return _changed_header(data, donors, random)
    tensors = tensors_of(data)
    name = random.choice(sorted(tensors))
    dtype, shape, values = tensors[name]
    what = random.random()
    if what < 0.25:
        tensors[name] = sized(random.choice(sorted(DTYPES)), shape, values)
    elif what < 0.5:
        tensors[name] = sized(dtype, _other_shape(shape, random), values)
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
    """A header that does not match the data."""
    length = struct.unpack("<Q", data[:8])[0]
    text = changed_json(data[8 : 8 + length], donors, random)
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
    """Some rare float32 numbers, or bytes of the file's own type."""
    number = struct.pack("<f", random.choice((math.nan, math.inf, 3e38, -3e38, 1e-42, 1e10, -1e4, 0.0, 20.0)))
    count = max(1, len(values) // 4)
    at = 4 * random.randrange(count)
    return random.choice((number * count, values[:at] + number + values[at + 4 :], random.randbytes(len(values))))[
        : len(values)
    ]


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {part.filename: archive.open(part).read(LARGEST) for part in archive.infolist()}


def maybe_members(data: bytes) -> dict[str, bytes]:
    try:
        return members_of(data)
    except Exception:  # not an archive, or a damaged one
        return {}


def archive(members: dict[str, bytes], packing: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, packing)
    return file.getvalue()


def changed_pickle(data: bytes, donors: list[bytes], random: Random) -> bytes:
    """Changes instructions of the pickles at the start of a file: other arguments, or removed, doubled or exchanged
    ones.
    """
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
    """Every instruction of the pickles at the start, and the end of the last one."""
    codes, at = [], 0
    while True:
        try:
            places = [at + place for _, _, place in pickletools.genops(data[at:])]
        except Exception:  # the rest is not a pickle
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


def changed_hdf5(data: bytes, donors: list[bytes], random: Random) -> bytes:
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
    """Changes the configuration (JSON in an attribute) or names (lists of strings)."""
    attributes = random.choice([item.attrs for item in items if len(item.attrs)] or [root.attrs])
    name = random.choice(sorted(attributes))
    value = attributes[name]
    if isinstance(value, str) and value.startswith("{"):
        attributes[name] = changed_json(value.encode(), [], random).decode("utf-8", "replace")[:60_000]
    elif random.random() < 0.3:
        del attributes[name]
    else:
        values = value.tolist() if hasattr(value, "tolist") else [value]
        change_value(values, [], random)
        attributes[name] = values if len(values) != 1 else values[0]


def _change_dataset(root: Any, place: str, random: Random) -> None:
    """Changes a shape or type, writes rare numbers, or declares a dataset without contents."""
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
    """Moves or removes a group, or replaces it by a link: to another file, to nothing, or in a circle."""
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
