"""`charloom corpora`."""

from __future__ import annotations

import json

from charloom.data.named import NAMES


def test_every_name_with_its_size_and_origin(charloom):
    """Catches a corpus that can be used but is not listed, and a corpus without its source."""
    lines = charloom("corpora").out.splitlines()
    assert [line.split()[0] for line in lines[::2]] == list(NAMES)
    assert all("bytes" in line for line in lines[::2])
    assert all(line.split()[0] == "from" for line in lines[1::2])
    entries = [json.loads(line) for line in charloom("corpora", "--json").out.splitlines()]
    assert [entry["name"] for entry in entries] == list(NAMES)
    assert {entry["name"]: entry["size"] for entry in entries}["tiny-shakespeare"] == 1_115_394
