"""`charloom eval --heat`: a text, coloured by the bits of each character, or with a digit below each.

The output consists of cells. A cell is one character with the combining marks after it. It is as wide as the terminal
shows it. No character controls the terminal or the direction of writing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

from charloom.cli.screen import write
from charloom.data.vocabulary import RECORD_SEPARATOR
from charloom.evaluation.heat import LEVELS, colours, level_of

if TYPE_CHECKING:
    from charloom.evaluation.characters import CharacterNats

TAB = 8  # columns between two tab stops
NARROWEST = 20  # columns: a terminal may say that it has none
FINE = ("256", "truecolor")  # colour systems with 256 colours or more; with 16, the colours would not be in order
MOST_MARKS = 8  # combining marks shown on one character, at most

LINE_ENDS = {"\n": "↵", RECORD_SEPARATOR: "¶"}
TAB_MARK, UNPRINTABLE, NO_BASE = "→", "·", "◌"
MARKS = "↵ newline, ¶ end of a record, → tab, · no printable character"
PLAIN_LEGEND = f"The digit below a character is its bits, rounded down: none is below 1, 9 is 9 or more.\n{MARKS}."


@dataclass
class Cell:
    """text: what is shown; columns: its width; level: see `evaluation.heat`; ends: whether the line ends after it."""

    text: str
    columns: int
    level: int | None
    ends: bool = False

    def join(self, mark: str, level: int | None) -> None:
        """Adds a combining mark; the cell shows the higher level."""
        if len(self.text) <= MOST_MARKS:
            self.text += mark
        self.level = max((each for each in (self.level, level) if each is not None), default=None)


def show(chunks: Iterable[CharacterNats]) -> None:
    """Prints a legend and the text of `per_character`; in colours if stdout is a terminal with 256 colours or more."""
    console = Console(highlight=False)
    coloured = console.color_system in FINE and not console.no_color
    _print(console, _coloured_legend() if coloured else Text(PLAIN_LEGEND))
    _print(console, Text())
    for row in rows(cells(chunks), max(NARROWEST, console.width)):
        _print(console, _coloured(row) if coloured else _plain(row))


def cells(chunks: Iterable[CharacterNats]) -> Iterator[Cell]:
    """The cells of a text. A tab is one column wide; `rows` widens it."""
    last: Cell | None = None
    for chunk in chunks:
        for character, bits in zip(chunk.text, chunk.bits_C.tolist(), strict=True):
            new = _cell(character, level_of(bits))
            if new.columns == 0 and last is not None and not last.ends:
                last.join(character, new.level)
                continue
            if last is not None:
                yield last
            last = Cell(NO_BASE + character, 1, new.level) if new.columns == 0 else new
    if last is not None:
        yield last


def _cell(character: str, level: int | None) -> Cell:
    if character in LINE_ENDS:
        return Cell(LINE_ENDS[character], 1, level, ends=True)
    if character != "\t" and not character.isprintable():
        return Cell(UNPRINTABLE, 1, level)
    return Cell(character, 1 if character == "\t" else cell_len(character), level)


def rows(cells: Iterable[Cell], width: int) -> Iterator[list[Cell]]:
    """The lines of the text, cut at the width of the terminal."""
    row, column = list[Cell](), 0
    for cell in cells:
        if cell.text.startswith("\t"):
            cell.columns = min(TAB - column % TAB, max(1, width - column))
            cell.text = cell.text.replace("\t", TAB_MARK) + " " * (cell.columns - 1)
        if column + cell.columns > width:
            yield row
            row, column = [], 0
        row.append(cell)
        column += cell.columns
        if cell.ends:
            yield row
            row, column = [], 0
    if row:
        yield row


def _coloured(row: list[Cell]) -> Text:
    line = Text()
    for level, alike in groupby(row, lambda cell: cell.level):
        line.append("".join(cell.text for cell in alike), _style(level))
    return line


def _plain(row: list[Cell]) -> Text:
    """Two lines: the text, and below each character its digit."""
    digits = [(str(cell.level) if cell.level else "").ljust(cell.columns) for cell in row]
    return Text("".join(cell.text for cell in row) + "\n" + "".join(digits).rstrip())


def _coloured_legend() -> Text:
    line = Text("Bits of each character, rounded down: ")
    for level in range(LEVELS):
        line.append(f" {level} " if level < LEVELS - 1 else f" {level} or more ", _style(level))
    return line.append(f"\n{MARKS}.")


def _style(level: int | None) -> Style:
    found = colours(level)
    return Style(color=found[0], bgcolor=found[1]) if found else Style.null()


def _print(console: Console, text: Text) -> None:
    """Prints a line through `write`, which handles a stdout that cannot be written."""
    with console.capture() as captured:
        console.print(text, soft_wrap=True)
    write(captured.get(), styled=True)
