"""Text on its way to stdout and stderr: safe for a terminal, and one clear line where stdout cannot be written.

Whatever a command says on stderr goes through `tell` or `tell_line`: names in a stranger's file must not steer a
terminal, nor fill it.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from charloom.errors import CharloomError

LONGEST = 1000
"""Characters of an error or a notice: a stranger's file may hold a name of a megabyte."""

LAYOUT = "\n\r\t"
LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Halves of characters, which no encoding has; U+DC80 … U+DCFF stand for bytes that are not UTF-8."""


def shown(text: str) -> str:
    """Text for a terminal: control characters, which could steer it, become dots; layout and all scripts stay."""
    if text.isprintable():
        return text
    return "".join("·" if c not in LAYOUT and unicodedata.category(c) in ("Cc", "Cs") else c for c in text)


def one_line(text: str) -> str:
    """A text for a terminal, in one line; of one that is too long, its beginning and its end, where the advice is."""
    line = " ".join(shown(text).split())
    if len(line) <= LONGEST:
        return line
    return f"{line[: LONGEST // 2]} … ({len(line) - LONGEST:,} characters are left out) … {line[-LONGEST // 2 :]}"


def tell(text: str) -> None:
    """Writes lines to stderr, as they are laid out."""
    with stderr_may_fail():
        sys.stderr.write(shown(text) + "\n")
        sys.stderr.flush()


@contextmanager
def stderr_may_fail() -> Iterator[None]:
    """Within it, a stderr that nobody reads any more is no error: a run must not end with its terminal or its log."""
    try:
        yield
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Drops what is written to a stream from now on, and what waits: Python would try once more when it closes it."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def tell_line(text: str) -> None:
    """Writes an error or a notice to stderr, in one line of a bounded length."""
    tell(one_line(text))


def write(text: str, binary: bool = False) -> None:
    """Writes to stdout at once, without waiting for more; as it is, but for control characters on a terminal.

    Half a character, which a vocabulary may hold, is written as U+FFFD.

    Args:
        text: may hold surrogate escapes (PEP 383).
        binary: off a terminal, write UTF-8 and the escaped bytes, whatever the encoding and line ends of stdout are.

    Raises:
        BrokenPipeError: whoever read it has enough.
        CharloomError: the disk is full, stdout is closed, or whatever else stands in the way.
    """
    try:
        if binary and not sys.stdout.isatty():
            sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        else:
            sys.stdout.write(shown(text) if sys.stdout.isatty() else LONE.sub("\ufffd", text))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = "it is closed" if error.errno == errno.EBADF else error.strerror
        raise CharloomError(f"stdout cannot be written: {reason}; make room, or write elsewhere") from None


def open_closed_streams() -> None:
    """Opens stdin, stdout and stderr where `<&-`, `>&-` or `2>&-` closed them, so that no file gets their numbers.

    Reading stdin and writing stdout then fail, as they did before; what is written to stderr is lost.
    """
    closed = (("stdin", "r", os.O_WRONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY))
    for number, (name, mode, flags) in enumerate(closed):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, flags), number)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))
