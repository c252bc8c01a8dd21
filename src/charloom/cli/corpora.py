"""`charloom corpora`."""

from __future__ import annotations

import dataclasses
import json

import click

from charloom.cli.screen import write


@click.command(short_help="List the named corpora.")
@click.option(
    "--json", "as_json", is_flag=True, help="print one JSON object a line: name, description, size in bytes, origin"
)
def command(as_json: bool) -> None:
    """List the corpora that `charloom train NAME` accepts by name, with size and origin."""
    from charloom.data.named import listing

    for entry in listing():
        if as_json:
            write(json.dumps(dataclasses.asdict(entry)) + "\n")
            continue
        size = "not here" if entry.size is None else f"{entry.size:,} bytes"
        write(f"{entry.name:<18}{size:>18}   {entry.description}\n{'':39}from {entry.origin}\n")
