"""Progress: figures that fit the line, a bar on a terminal, and elsewhere only what is waited for."""

import contextlib
import sys
from collections.abc import Callable
from typing import Final

import pytest
from rich.live import Live

from interfiles.cli.progress import Bar, Silence, StatusLine, View, finished_parts, fit_parts, progress_parts, view
from interfiles.cli.tables import cells
from interfiles.wire.control_messages import Progress
from tests.samples import HOSTILE, HOSTILE_SHOWN, progress

GB: Final = 10**9


@pytest.mark.parametrize(
    ("shown", "parts"),
    [
        (progress(), [" 51 %", "9.4 of 18.4 GB", "1.1 GB/s", "9 s left", "from 6 hosts"]),
        (progress(done=0, rate=0, peers=0), ["  0 %", "0 B of 18.4 GB"]),
        (
            progress(peers=1, text="disk is slow"),
            [" 51 %", "9.4 of 18.4 GB", "1.1 GB/s", "9 s left", "from 1 host", "disk is slow"],
        ),
        (progress("hashing", peers=0, done=18_400_000_000), ["100 %", "18.4 of 18.4 GB", "1.1 GB/s"]),
        (progress("hashing", done=3 * GB, total=0), ["3.0 GB"]),
        (progress("hashing", done=0, total=0), []),
        (progress("waiting"), ["51 %", "waiting 12 s"]),
        (progress("waiting", done=0, total=0, text="no host has it"), ["waiting 12 s"]),
        (progress("replicating", done=2, total=3, peers=1), ["2 of 3 copies", "1 under way"]),
        (progress("replicating", done=0, total=1, peers=0, text="no room"), ["0 of 1 copy", "no room"]),
        (progress("replicating", done=0, total=0, peers=0, text="the master is away"), ["the master is away"]),
        (progress("finishing"), []),
        (progress("publishing"), []),
    ],
)
def test_progress_parts(shown: Progress, parts: list[str]) -> None:
    assert progress_parts(shown, 12.7) == parts


def test_finished_parts() -> None:
    assert finished_parts(progress("hashing"), 4.5) == ["18.4 GB", "4.1 GB/s", "done in 4.5 s"]
    assert finished_parts(progress("hashing"), 0.0) == ["18.4 GB", "done in 0 s"]


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (100, "weights [10/20]  51 % 9.4 of 18.4 GB 1.1 GB/s 9 s left from 6 hosts"),
        (80, "weights [7/14]  51 % 9.4 of 18.4 GB 1.1 GB/s 9 s left from 6 hosts"),
        (79, "weights [4/8]  51 % 9.4 of 18.4 GB 1.1 GB/s 9 s left from 6 hosts"),
        (60, "weights [4/8]  51 % 9.4 of 18.4 GB 1.1 GB/s 9 s left"),
        (50, "weights  51 % 9.4 of 18.4 GB 1.1 GB/s 9 s left"),
        (40, "weights  51 % 9.4 of 18.4 GB 1.1 GB/s"),
        (20, "weigh…  51 %"),
        (1, "…"),
    ],
)
def test_a_line_loses_figures_from_the_right(width: int, line: str) -> None:
    shown = progress()
    label, bar, parts = fit_parts(progress_parts(shown, 0), shown, width)
    words = [label, *([f"[{bar[0]}/{sum(bar)}]"] if bar else []), *parts]
    assert " ".join(words) == line
    assert sum(map(cells, [label, *parts])) + sum(bar or ()) + 2 * (len(words) - 1) <= width


@pytest.mark.parametrize("width", [10, 40, 80, 200])
@pytest.mark.parametrize("name", [HOSTILE, "日本語のファイル" * 30])
def test_no_name_makes_a_line_too_long(width: int, name: str) -> None:
    shown = progress("hashing", name=name[:255])
    label, bar, parts = fit_parts(progress_parts(shown, 0), shown, width)
    assert cells(label) + sum(bar or ()) + sum(2 + cells(part) for part in parts) + 2 * bool(bar) <= width
    assert "\x1b" not in label


# On a terminal


def test_a_bar_vanishes_when_the_work_is_done(terminal: Callable[[], str]) -> None:
    with Bar() as bar:
        bar(progress())
        assert "weights  ███████░░░░░░░   51 %  9.4 of 18.4 GB  1.1 GB/s  9 s left  from 6 hosts" in terminal()
    assert terminal() == ""


def test_hashing_leaves_its_line_behind(terminal: Callable[[], str]) -> None:
    with Bar() as bar:
        bar(progress("hashing", peers=0))
        bar(progress("publishing", peers=0))
    assert terminal().startswith("Hashing weights  ██████████████  18.4 GB  ")
    assert "done in " in terminal()


def test_what_failed_stays_to_show_how_far_it_came(terminal: Callable[[], str]) -> None:
    bar = Bar()
    with contextlib.suppress(KeyboardInterrupt), bar:
        bar(progress())
        raise KeyboardInterrupt
    assert " 51 % " in terminal()


def test_what_is_waited_for_is_said_once_a_wait(terminal: Callable[[], str]) -> None:
    with Bar() as bar:
        for _ in range(3):
            bar(progress("waiting", text="no host that is up has weights."))
        assert terminal().count("interfiles: no host that is up has weights. Waiting; Ctrl-C leaves it queued.") == 1
        assert "waiting 0 s" in terminal()


def test_copies_are_counted_and_what_hinders_them_is_said_once_a_wait(terminal: Callable[[], str]) -> None:
    with Bar() as bar:
        for text in ("no room (12 GB)", "no room (11 GB)", "", "the master is away"):
            bar(progress("replicating", done=2, total=3, peers=1, text=text))
        assert "weights  █████████░░░░░  2 of 3 copies  1 under way  the master is away" in terminal()
        said = [line for line in terminal().splitlines() if "Waiting; Ctrl-C ends the wait, not the copying." in line]
        assert [line.partition(". ")[0] for line in said] == [
            "interfiles: no room (12 GB)",
            "interfiles: the master is away",
        ]
    assert "2 of 3" not in terminal()


def test_a_status_line_is_one_line_below_its_remarks(
    terminal: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with StatusLine() as line:
        line.show("render-07  12 files to move")
        line.remark("interfiles: [bold]the master is away.")
        line.show("render-07  7 files to move " + "x" * 100)
        assert terminal().splitlines()[0] == "interfiles: [bold]the master is away."
        assert terminal().endswith("render-07  7 files to move " + "x" * 52 + "…")
    assert terminal() == "interfiles: [bold]the master is away."


def test_a_status_line_is_none_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with StatusLine() as line:
        line.show("render-07  12 files to move")
        line.remark("interfiles: the master is away.")
    assert capsys.readouterr().err == "interfiles: the master is away.\n"


def test_names_reach_the_terminal_escaped(terminal: Callable[[], str]) -> None:
    with Bar() as bar:
        bar(progress(name=HOSTILE, text="[bold]" + HOSTILE))
        bar(progress("waiting", name=HOSTILE, text="[bold]" + HOSTILE))
        assert HOSTILE_SHOWN in terminal()
        assert "[bold]evil" in terminal()
        assert "\x1b[2J" not in terminal()


def test_a_bar_that_was_never_told_anything_draws_nothing(terminal: Callable[[], str]) -> None:
    with Bar() as bar:
        assert not bar.started
    assert terminal() == ""


# Elsewhere


def test_without_a_terminal_only_a_wait_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with Silence() as silence:
        assert not silence.started
        silence(progress())
        assert silence.started
        silence(progress("waiting", text="no host has it"))
        silence(progress("waiting", text="no host has it, last seen 3 h ago"))
        silence(progress())
        silence(progress("waiting", text=f"the master is away {HOSTILE}"))
    assert capsys.readouterr().err.splitlines() == [
        "interfiles: no host has it. Waiting; Ctrl-C leaves it queued.",
        f"interfiles: the master is away {HOSTILE_SHOWN}. Waiting; Ctrl-C leaves it queued.",
    ]


@pytest.mark.parametrize(
    ("is_terminal", "term", "expected"), [(True, "xterm", Bar), (True, "dumb", Silence), (False, "xterm", Silence)]
)
def test_the_view_fits_stderr(
    is_terminal: bool, term: str, expected: type[View], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    assert isinstance(view(), expected)


def test_the_screen_is_drawn_at_most_ten_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(Live, "update", lambda *_, **__: drawn.append(1))
    monkeypatch.setattr("time.monotonic", iter([n / 100 for n in range(10_000)]).__next__)
    with Bar() as bar:
        for _ in range(300):
            bar(progress())
    assert 10 <= len(drawn) <= 70
