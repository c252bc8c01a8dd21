"""The heat map of a text on a terminal, or in plain characters."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from charloom.cli.heat import cells, rows
from charloom.data.vocabulary import RECORD_SEPARATOR
from charloom.evaluation.characters import CharacterNats

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def of(text, *bits):
    """A chunk of characters; those without given bits have 1.5."""
    padded = [*bits, *[1.5] * (len(text) - len(bits))]
    return CharacterNats(text, np.array(padded) * math.log(2), 0)


def shown(text, width=80, *bits):
    return ["".join(cell.text for cell in row) for row in rows(cells([of(text, *bits)]), width)]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("ab\ncd\n", ["ab↵", "cd↵"]),
        ("ab" + RECORD_SEPARATOR + "cd", ["ab¶", "cd"]),
        ("a\x1b[31mb\x07\x00", ["a·[31mb··"]),
        ("a\u202eb\u200bc\u2028d\xa0e\udcff", ["a·b·c·d·e·"]),
        ("a\tb\t\tc", ["a→      b→      →       c"]),
        ("\u0301a", ["◌\u0301a"]),
        ("a\n\u0301b", ["a↵", "◌\u0301b"]),
    ],
)
def test_what_could_steer_a_terminal_is_shown_as_a_mark(text, lines):
    """Catches an escape sequence, a bell, text that runs backwards, and a line end that is not shown."""
    assert shown(text) == lines


def test_combining_marks_share_a_cell():
    """Catches a mark that is separated from its letter, a mark whose bits are lost, and marks that fill a screen."""
    found = [*cells([of("e", 1), of("\u0301", 7), of("a" + "\u0300" * 100, 3, 2)])]
    assert [(cell.text, cell.columns, cell.level) for cell in found] == [
        ("e\u0301", 1, 7),
        ("a" + "\u0300" * 8, 1, 3),
    ]


def test_lines_end_where_the_terminal_does():
    """Catches a wide character cut in two, a tab beyond the edge, and a line that is wrapped by the terminal."""
    assert shown("abcdef\n", 4) == ["abcd", "ef↵"]
    assert shown("abc漢d", 4) == ["abc", "漢d"]
    assert shown("abcdef\tx", 7) == ["abcdef→", "x"]


def heat_of(charloom, model, path, **env):
    ended = charloom("eval", model, path, "--heat", env={"COLUMNS": "30", **env})
    assert (ended.status, ended.err) == (0, "")
    return ended.out


def test_plain_digits_stand_below_their_characters(charloom, tmp_path, tiny_bytes):
    """Catches a digit below another character, where one is two columns wide, and a colour in a file."""
    (tmp_path / "a.txt").write_text("ab漢c\nd", encoding="utf-8")
    out = heat_of(charloom, tiny_bytes, "a.txt")
    assert "\x1b" not in out
    *_, text, digits, last, _ = out.splitlines()
    assert (text, last) == ("ab漢c↵", "d")
    assert re.fullmatch(r" [1-9]9 [1-9][1-9]", digits)


def test_colours_where_the_terminal_has_them(charloom, tmp_path, tiny):
    """Catches a colour that the user forbade, a colour with 16 colours, and colours without text."""
    (tmp_path / "a.txt").write_text("Beautiful is better than ugly.\n" * 2)
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    out = heat_of(charloom, tiny, "a.txt", **terminal)
    plain = ESCAPES.sub("", out)
    assert len(out) > len(plain)
    assert plain.splitlines()[-4:] == ["Beautiful is better than ugly.", "↵"] * 2
    for other in ({**terminal, "NO_COLOR": "1"}, {**terminal, "TERM": "xterm"}, {**terminal, "TERM": "dumb"}):
        assert "\x1b" not in heat_of(charloom, tiny, "a.txt", **other)
