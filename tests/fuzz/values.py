"""Damage to bytes and text, and to values in JSON, TOML and JSON Lines, which are then written as complete files."""

from __future__ import annotations

import json
import math
import struct
import tomllib
from collections.abc import Iterator
from random import Random
from typing import Any

import tomli_w

NUMBERS = (0, -1, 1, 2, 3, 7, 8, 9, 16, 17, 64, 255, 256, 257, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53)
NUMBERS += (2**63 - 1, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, 1e-320, math.inf, -math.inf, math.nan)
STRINGS = ("", " ", "a", "é", "→", "\0", "\n", "a\nb", "\r", "\x1b[31m", "\ud800", "\udc80", "\ufeff", "\u2028")
STRINGS += ("x" * 70_000, "../../outside", "/etc/passwd", "nan", "-1", "10/0/0", "bytes", "characters", "lstm", "gru")
# Names that a check of a Keras or PyTorch checkpoint reads.
STRINGS += ("Bidirectional", "Lambda", "Softmax", "TimeDistributed", "Dropout", "Activation", "Embedding", "SimpleRNN")
STRINGS += ("relu", "softmax", "hard_sigmoid", "weight_ih_l1", "weight_hh_l0_reverse", "weight_hr_l0", "bias_ih_l0")
BYTES = (b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\r\n", b"\n\n", b'"', b"{}")
BYTES += (b"\xf4\x90\x80\x80", b"\xe2\x80\xa8", b"\x1e", b"\x1a", b"[" * 2000, b"9" * 5000, b"\0" * 4096)
DEEP = "charloom-fuzz-deep"  # stands for a value nested too deeply for Python's recursion
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp1252", "koi8_r", "shift_jis", "gb18030", "utf-7")


def changed_bytes(data: bytes, donors: list[bytes], random: Random) -> bytes:
    """Bytes that are flipped, set, cut, inserted, repeated, or joined with another file."""
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


def changed_text(data: bytes, donors: list[bytes], random: Random) -> bytes:
    """A text in another encoding, with rare characters, or with other lines."""
    text = data.decode(random.choice(("utf-8", "utf-8", *ENCODINGS)))
    at = random.randrange(len(text) + 1)
    mark = random.choice(
        ("\ufeff", "\0", "\r", "\r\n", "\n\n\n", "\u2028", "\x85", "\x1e", '"', ",", ". ", "。", "a\u0301" * 40)
    )
    text = random.choice((text, text[:at] + mark + text[at:], text.replace("\n", mark), text[at:] + text[:at]))
    return text.encode(random.choice(ENCODINGS), random.choice(("replace", "ignore", "surrogatepass")))


def slots(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value inside."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from slots(value[key])


def change_value(root: Any, donors: list[Any], random: Random) -> None:
    """Changes or removes one value inside, or replaces it by another one."""
    inside = [*slots(root)]
    holder, key = random.choice(inside)
    elsewhere, place = random.choice([*slots(random.choice([*donors, root]))] or inside)
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


def json_of(donors: list[bytes]) -> list[Any]:
    found = []
    for donor in donors:
        try:
            found.append(json.loads(donor))
        except (ValueError, RecursionError):
            continue
    return found


def changed_json(data: bytes, donors: list[bytes], random: Random) -> bytes:
    value = json.loads(data)
    change_value(value, json_of(donors), random)
    return _deep(json.dumps(value, ensure_ascii=random.random() < 0.5), random)


def changed_toml(data: bytes, donors: list[bytes], random: Random) -> bytes:
    value = tomllib.loads(data.decode())
    change_value(value, [], random)
    return _deep(tomli_w.dumps(value), random)


def changed_lines(data: bytes, donors: list[bytes], random: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = random.randrange(len(lines))
    what = random.random()
    if what < 0.6:
        lines[at] = changed_json(lines[at], donors, random) + b"\n"
    elif what < 0.8:
        lines[at] = changed_bytes(lines[at], donors, random)
    else:
        lines.insert(at, random.choice((b"\n", b"null\n", b"[]\n", b"1\n", lines[-1], b"\r", lines[at][:-3])))
    return b"".join(lines)
