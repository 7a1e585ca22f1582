"""Tables and facts fit their screen, whatever its width and whatever the names."""

import pytest

from interfiles.cli.output import Screen
from interfiles.cli.tables import Column, GrowingTable, cells, crop, facts, table

COLUMNS = [Column("HOST"), Column("STATE", is_state=True), Column("FREE", right=True)]
ROWS = [["render-01", "live", "1.4 TB"], ["日本", "gone", "0 B"]]


def test_a_table_without_a_screen_has_all_its_columns() -> None:
    assert table(COLUMNS, ROWS, Screen(), indent="  ") == [
        "  HOST       STATE    FREE",
        "  render-01  live   1.4 TB",
        "  日本       gone      0 B",
    ]


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (24, ["HOST       STATE    FREE", "render-01  live   1.4 TB", "日本       gone      0 B"]),
        (23, ["HOST       STATE", "render-01  live", "日本       gone"]),
        (16, ["HOST       STATE", "render-01  live", "日本       gone"]),
        (15, ["HOST", "render-01", "日本"]),
        (9, ["HOST", "render-01", "日本"]),
        (8, ["HOST", "render-…", "日本"]),
        (3, ["HO…", "re…", "日…"]),
        (1, ["…", "…", "…"]),
    ],
)
def test_a_narrow_screen_loses_columns_from_the_right(width: int, expected: list[str]) -> None:
    lines = table(COLUMNS, ROWS, Screen(width))
    assert lines == expected
    assert max(map(cells, lines)) <= width


def test_states_have_colours_on_a_screen_that_has_them() -> None:
    lines = table(COLUMNS, ROWS, Screen(80, colour=True))
    assert lines[1] == "render-01  \x1b[32mlive\x1b[0m   1.4 TB"
    assert lines[2] == "日本       \x1b[31mgone\x1b[0m      0 B"
    assert lines[0] == "\x1b[2mHOST       STATE    FREE\x1b[0m"


def test_a_table_without_rows_is_its_headings() -> None:
    assert table(COLUMNS, [], Screen()) == ["HOST  STATE  FREE"]


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("weights", 7, "weights"),
        ("weights", 6, "weigh…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日 …"),
    ],
)
def test_crop(text: str, width: int, expected: str) -> None:
    assert crop(text, width) == expected
    assert cells(expected) <= width


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (None, ["  18.4 GB · 4,388 pieces · uploaded"]),
        (35, ["  18.4 GB · 4,388 pieces · uploaded"]),
        (34, ["  18.4 GB · 4,388 pieces", "  uploaded"]),
        (5, ["  18.4 GB", "  4,388 pieces", "  uploaded"]),
    ],
)
def test_facts_go_on_in_the_next_line_and_are_never_cut(width: int | None, expected: list[str]) -> None:
    assert facts(["18.4 GB", "4,388 pieces", "uploaded"], Screen(width), indent="  ") == expected


def test_a_table_that_grows_shows_rows_as_they_come() -> None:
    growing = GrowingTable(COLUMNS, Screen())
    assert growing.lines(ROWS[1:]) == ["日本  gone    0 B"]
    assert growing.lines(ROWS) == ["render-01  live   1.4 TB", "日本       gone      0 B"]
    assert growing.lines([]) == []
    assert growing.lines(ROWS[1:]) == ["日本       gone      0 B"]


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (24, "render-01  live   1.4 TB"),
        (23, "render-01  live   1.4 …"),
        (17, "render-01  live"),
        (15, "render-01  live"),
        (13, "render-01  l…"),
        (12, "render-01  …"),
        (11, "render-01"),
        (4, "ren…"),
    ],
)
def test_its_lines_are_cut_to_the_screen(width: int, expected: str) -> None:
    (line,) = GrowingTable(COLUMNS, Screen(width)).lines(ROWS[:1])
    assert line == expected
    assert cells(line) <= width
