"""Text on its way to stdout: safe for a terminal, and one clear line where it cannot be written."""

from __future__ import annotations

import sys
import unicodedata

from charloom.errors import CharloomError

LAYOUT = "\n\r\t"


def shown(text: str) -> str:
    """Text for a terminal: control characters, which could steer it, become dots; layout and all scripts stay."""
    if text.isprintable():
        return text
    return "".join("·" if c not in LAYOUT and unicodedata.category(c) in ("Cc", "Cs") else c for c in text)


def write(text: str, binary: bool = False) -> None:
    """Writes to stdout at once, without waiting for more; as it is, but for control characters on a terminal.

    Args:
        text: may hold surrogate escapes (PEP 383).
        binary: off a terminal, write UTF-8 and the escaped bytes, whatever the encoding and line ends of stdout are.

    Raises:
        BrokenPipeError: whoever read it has enough.
        CharloomError: the disk is full, or whatever else stands in the way.
    """
    try:
        if binary and not sys.stdout.isatty():
            sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        else:
            sys.stdout.write(shown(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CharloomError(f"stdout cannot be written: {error.strerror}; make room, or write elsewhere") from None
