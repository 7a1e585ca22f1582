"""Tables and facts that fit their screen: a table loses columns from the right, facts go on in the next line."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from interfiles.cli.output import Screen

_GAP: Final = "  "
_BETWEEN_FACTS: Final = " · "
_ELLIPSIS: Final = "…"
_NOTE_INDENT: Final = "    "

_GOOD, _PASSING, _BAD, _HEADING, _NEUTRAL = "32", "33", "31", "2", ""
_STATE_STYLES: Final = {
    "live": _GOOD,
    "complete": _GOOD,
    "fetching": _PASSING,
    "finishing": _PASSING,
    "waiting": _PASSING,
    "paused": _PASSING,
    "suspect": _PASSING,
    "draining": _PASSING,
    "ordered": _PASSING,
    "damaged": _BAD,
    "withdrawn": _BAD,
    "gone": _BAD,
    "failed": _BAD,
    "corrupt": _BAD,
    "removed": _BAD,
    "file-removed": _BAD,
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column; figures stand at its right side, and the words of a state have their colours."""

    title: str
    right: bool = False
    is_state: bool = False


def cells(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def crop(text: str, width: int) -> str:
    """The text, its end cut off where it takes more than `width` columns, at least 1."""
    if cells(text) <= width:
        return text
    from rich.cells import set_cell_size

    return set_cell_size(text, width - 1) + _ELLIPSIS


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], screen: Screen, *, indent: str = "") -> list[str]:
    """The lines of a table, headings first; each row has a text, already printable, for each column."""
    widths = [max(map(cells, texts)) for texts in zip([c.title for c in columns], *rows, strict=True)]
    shown = _columns_that_fit(widths, screen, indent)
    if screen.width is not None:
        widths[0] = max(1, min(widths[0], screen.width - len(indent)))
    lines = [screen.paint(_line(columns[:shown], widths, [c.title for c in columns], Screen(), indent), _HEADING)]
    lines += [_line(columns[:shown], widths, row, screen, indent) for row in rows]
    return lines


def with_notes(lines: Sequence[str], notes: Sequence[str], screen: Screen) -> list[str]:
    """A table's lines, and below each row what else is to be said of it, already printable, cut to the screen."""
    heading, *rows = lines
    made = [heading]
    for row, note in zip(rows, notes, strict=True):
        made.append(row)
        if note:
            text = _NOTE_INDENT + note
            made.append(text if screen.width is None else crop(text, max(1, screen.width)))
    return made


class GrowingTable:
    """A table whose rows come one after the other: columns grow with them, and lines are cut to the screen."""

    def __init__(self, columns: Sequence[Column], screen: Screen) -> None:
        self._columns = columns
        self._screen = screen
        self._widths = [cells(column.title) for column in columns]

    def lines(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """The lines of more rows; each row has a text, already printable, for each column. No headings."""
        self._widths = [max(map(cells, texts)) for texts in zip([" " * w for w in self._widths], *rows, strict=True)]
        return [self._cut(row) for row in rows]

    def _cut(self, row: Sequence[str]) -> str:
        """A row in which the column that does not fit is cut, and those to its right are left out."""
        if self._screen.width is None:
            return _line(self._columns, self._widths, row, self._screen, "")
        left, widths = self._screen.width, list[int]()
        for width in self._widths[: len(self._columns)]:
            if left < 1:
                break
            widths.append(min(width, left))
            left -= width + len(_GAP)
        return _line(self._columns[: len(widths)], widths, row, self._screen, "")


def facts(parts: Sequence[str], screen: Screen, *, indent: str = "") -> list[str]:
    """Facts one after the other, in as many lines as they need; a fact is never cut."""
    lines: list[str] = []
    line = ""
    for part in parts:
        longer = f"{line}{_BETWEEN_FACTS}{part}" if line else indent + part
        if line and screen.width is not None and cells(longer) > screen.width:
            lines.append(line)
            longer = indent + part
        line = longer
    return [*lines, line]


def _columns_that_fit(widths: Sequence[int], screen: Screen, indent: str) -> int:
    """How many columns, from the left, the screen has room for; the first is always shown."""
    if screen.width is None:
        return len(widths)
    used = len(indent) + widths[0]
    for shown, width in enumerate(widths[1:], start=1):
        used += len(_GAP) + width
        if used > screen.width:
            return shown
    return len(widths)


def _line(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str], screen: Screen, indent: str) -> str:
    parts = []
    for column, width, text in zip(columns, widths, row, strict=False):
        text = crop(text, width)
        space = " " * (width - cells(text))
        painted = screen.paint(text, _STATE_STYLES.get(text, _NEUTRAL) if column.is_state else _NEUTRAL)
        parts.append(space + painted if column.right else painted + space)
    return (indent + _GAP.join(parts)).rstrip()
