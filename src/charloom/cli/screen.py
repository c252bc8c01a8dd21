"""Output to stdout and stderr: safe for a terminal, with one clear error if stdout cannot be written.

All lines on stderr go through `tell` or `tell_line`: names in an untrusted file must not control or fill a terminal.
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

from charloom.cli.flags import as_flags
from charloom.errors import CharloomError

LONGEST = 1000
"""Characters of an error or a notice: an untrusted file may hold a name of a megabyte."""

LAYOUT = "\n\r\t"
LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Lone surrogates, which no encoding has; U+DC80 … U+DCFF stand for bytes that are not UTF-8."""


def shown(text: str) -> str:
    """Text for a terminal: control characters become dots; newlines, tabs and all scripts stay."""
    if text.isprintable():
        return text
    return "".join("·" if c not in LAYOUT and unicodedata.category(c) in ("Cc", "Cs") else c for c in text)


def one_line(text: str) -> str:
    """A message for a terminal, in one line, with its arguments as flags.

    A message that is too long keeps its beginning, and its end, which has the advice.
    """
    line = " ".join(shown(as_flags(text)).split())
    if len(line) <= LONGEST:
        return line
    return f"{line[: LONGEST // 2]} … ({len(line) - LONGEST:,} characters are left out) … {line[-LONGEST // 2 :]}"


def tell(text: str) -> None:
    """Writes lines to stderr."""
    with stderr_may_fail():
        sys.stderr.write(shown(text) + "\n")
        sys.stderr.flush()


@contextmanager
def stderr_may_fail() -> Iterator[None]:
    """A context in which a closed stderr is not an error: a run must continue when its terminal or log closes."""
    try:
        yield
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Drops all further and buffered output of a stream; Python would try to write it when it closes the stream."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def tell_line(text: str) -> None:
    """Writes an error or a notice to stderr, in one line of a bounded length."""
    tell(one_line(text))


def write(text: str, binary: bool = False, styled: bool = False) -> None:
    """Writes to stdout and flushes; on a terminal, control characters are replaced.

    A lone surrogate, which a vocabulary may hold, is written as U+FFFD.

    Args:
        text: may hold surrogate escapes (PEP 383).
        styled: the text has our own escape sequences, and no other control characters.
        binary: if stdout is not a terminal, write UTF-8 and the escaped bytes, whatever its encoding and line ends are.

    Raises:
        BrokenPipeError: the reader closed the pipe.
        CharloomError: the disk is full, stdout is closed, or writing fails in another way.
    """
    try:
        if binary and not sys.stdout.isatty():
            sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        else:
            safe = shown(text) if sys.stdout.isatty() and not styled else LONE.sub("\ufffd", text)
            sys.stdout.write(safe)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = "it is closed" if error.errno == errno.EBADF else error.strerror
        raise CharloomError(f"stdout cannot be written: {reason}; free disk space, or write to another place") from None


def open_closed_streams() -> None:
    """Opens stdin, stdout and stderr where `<&-`, `>&-` or `2>&-` closed them, so that no file gets their descriptors.

    Reading stdin and writing stdout still fail; output to stderr is lost.
    """
    closed = (("stdin", "r", os.O_WRONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY))
    for number, (name, mode, flags) in enumerate(closed):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, flags), number)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))
