"""What stat, ls, hosts and status show, as a person sees it."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from interfiles.cli.output import Screen
from interfiles.cli.reports import file_lines, host_lines, stat_lines, status_lines
from interfiles.cli.tables import cells
from interfiles.wire.reports import LocalCopy, ReplicaCount, ScrubReport
from tests.samples import (
    HOSTILE,
    HOSTILE_SHOWN,
    HOSTS,
    ID,
    STAT,
    UPLOADED_AT,
    file_report,
    holder,
    status,
    transfer,
)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_stat_on_70_columns() -> None:
    assert stat_lines(STAT, Screen(70)) == [
        "weights/  9c41e07b2d55",
        "  18.4 GB in 231 files · 4,388 pieces of 4 MiB",
        "  uploaded 2025-11-22 09:14 by render-01",
        "  Copies: 3 of 3 wanted, 1 more under way",
        "  Here: fetching · 50 % · /data/weights",
        "  HOST       ZONE    STATE       HAS  RATE",
        "  render-01  rack-a  complete  100 %  up 410 MB/s",
        "  render-04  rack-b  complete  100 %  up 388 MB/s",
        "  render-07  rack-b  fetching   50 %  down 1.1 GB/s",
        "  render-09  rack-c  suspect   100 %  not heard from for 24 s",
    ]


def test_stat_without_a_screen_keeps_facts_in_one_line_and_has_every_column() -> None:
    lines = stat_lines(STAT, Screen())
    assert lines[1] == ("  18.4 GB in 231 files · 4,388 pieces of 4 MiB · uploaded 2025-11-22 09:14 by render-01")
    assert lines[4] == "  HOST       ZONE    STATE       HAS  RATE                     ADDRESS"
    assert lines[5] == "  render-01  rack-a  complete  100 %  up 410 MB/s              10.0.0.11:4851"


def test_stat_of_a_single_file_that_nobody_here_has_while_the_master_is_away() -> None:
    report = msgspec.structs.replace(
        STAT,
        name=HOSTILE,
        is_directory=False,
        entries=1,
        hosts=[],
        local=LocalCopy(state="none", pieces=0, path="", doing="", note=""),
        complete_info=False,
    )
    assert stat_lines(report, Screen(50)) == [
        f"{HOSTILE_SHOWN}  9c41e07b2d55",
        "  18.4 GB · 4,388 pieces of 4 MiB",
        "  uploaded 2025-11-22 09:14 by render-01",
        "  Copies: unknown while the master is away",
        "  Here: nothing",
        "  The master is away: this is only what this host knows.",
    ]


def test_what_a_host_does_is_told_by_its_rates_and_its_note() -> None:
    report = msgspec.structs.replace(
        STAT,
        hosts=[
            holder("a", "", 4387, doing="fetching", down=2_000_000, up=1_000_000, note="disk full"),
            holder("b", "", 0, doing="waiting"),
            holder("c", "", 0, doing="none"),
            holder("d", "", 4388, host_state="gone", last_seen_s=10_900.0, up=5),
        ],
    )
    assert stat_lines(report, Screen(70))[-5:] == [
        "  HOST  ZONE  STATE       HAS  RATE",
        "  a           fetching   99 %  down 2.0 MB/s, up 1.0 MB/s, disk full",
        "  b           waiting     0 %",
        "  c           nothing     0 %",
        "  d           gone      100 %  not heard from for 3 h 1 min",
    ]


def test_an_empty_file_is_complete_everywhere() -> None:
    report = msgspec.structs.replace(STAT, size=0, pieces=0, hosts=[holder("a", "", 0)])
    assert stat_lines(report, Screen())[-1] == "  a           nothing  100 %        10.0.0.11:4851"


def test_what_is_wrong_with_the_local_copy_is_told() -> None:
    local = LocalCopy(state="partial", pieces=4000, path="/data/weights", doing="", note="big.bin was changed")
    report = msgspec.structs.replace(STAT, local=local)
    assert "  Here: partial · 91 % · /data/weights · big.bin was changed" in stat_lines(report, Screen())


@pytest.mark.parametrize("seconds", [2**40, 2**62])
def test_times_beyond_the_calendar_are_shown_all_the_same(seconds: int) -> None:
    report = msgspec.structs.replace(STAT, uploaded_at=seconds)
    assert "uploaded" in "\n".join(stat_lines(report, Screen()))


def test_ls() -> None:
    files = [file_report(local="complete"), file_report(HOSTILE)]
    assert file_lines(files, Screen()) == [
        "NAME                      ID               SIZE  COPIES  HERE      FILES  UPLOADED          BY",
        "weights                   9c41e07b2d55  18.4 GB  2 of 3  complete    231  2025-11-22 09:14  render-01",
        "evil\\x1b[2J\\u202etxt\\x0a  9c41e07b2d55  18.4 GB  2 of 3  none        231  2025-11-22 09:14  render-01",
    ]


def test_hosts() -> None:
    assert host_lines(HOSTS, Screen()) == [
        "HOST       ZONE    ADDRESS         STATE  FILES  REPLICAS    USED    FREE  LAST SEEN",
        "render-01  rack-a  10.0.0.11:4851  live      12  0         220 GB  1.4 TB  2 s ago",
        "render-09          10.0.0.19:4851  gone       1  0          512 B     0 B  3 h 1 min ago",
    ]
    assert host_lines(HOSTS, Screen(50)) == [
        "HOST       ZONE    ADDRESS         STATE  FILES",
        "render-01  rack-a  10.0.0.11:4851  live      12",
        "render-09          10.0.0.19:4851  gone       1",
    ]


def test_hosts_that_drain_or_are_given_no_copies_say_so_below_their_rows() -> None:
    draining = msgspec.structs.replace(HOSTS[0], state="draining", ordered=7, arriving=2)
    resting = msgspec.structs.replace(HOSTS[1], state="live", note="it failed and is given no copies for 50 s")
    hosts = [msgspec.structs.replace(draining, to_move=left) for left in (None, 1234, 1, 0)]
    assert host_lines([*hosts, resting], Screen(60)) == [
        "HOST       ZONE    ADDRESS         STATE     FILES  REPLICAS",
        "render-01  rack-a  10.0.0.11:4851  draining     12  7 +2",
        "render-01  rack-a  10.0.0.11:4851  draining     12  7 +2",
        "    1,234 files to move before it can be switched off",
        "render-01  rack-a  10.0.0.11:4851  draining     12  7 +2",
        "    1 file to move before it can be switched off",
        "render-01  rack-a  10.0.0.11:4851  draining     12  7 +2",
        "    can be switched off",
        "render-09          10.0.0.19:4851  live          1  0",
        "    it failed and is given no copies for 50 s",
    ]
    assert host_lines([resting], Screen(30))[-1] == "    it failed and is given no…"


WHY = "no other live host has room for 18.4 GB (b3 has the most: 12 GB)"


def test_stat_says_why_there_are_too_few_copies_and_which_are_replicas() -> None:
    report = msgspec.structs.replace(
        STAT,
        replicas=ReplicaCount(wanted=3, complete=1, under_way=1, why_not=WHY),
        hosts=[
            holder("a", "", 4388, up=1_000_000),
            holder("b", "", 4387, doing="fetching", ordered=True),
            holder("c", "", 4388, host_state="draining", up=5, ordered=True),
        ],
        local=LocalCopy(state="complete", pieces=4388, path="/r/weights", doing="", note="", ordered=True),
        expires_at=UPLOADED_AT + 86_400,
    )
    assert stat_lines(report, Screen(75)) == [
        "weights/  9c41e07b2d55",
        "  18.4 GB in 231 files · 4,388 pieces of 4 MiB",
        "  uploaded 2025-11-22 09:14 by render-01 · expires 2025-11-23 09:14",
        "  Copies: 1 of 3 wanted, 1 more under way:",
        f"    {WHY}",
        "  Here: complete · replica",
        "  HOST  ZONE  STATE       HAS  KIND     RATE         ADDRESS",
        "  a           complete  100 %           up 1.0 MB/s  10.0.0.11:4851",
        "  b           fetching   99 %  replica               10.0.0.11:4851",
        "  c           draining  100 %  replica  up 5 B/s     10.0.0.11:4851",
    ]
    assert f"  Copies: 1 of 3 wanted, 1 more under way: {WHY}" in stat_lines(report, Screen())


def test_ls_shows_what_is_under_way_what_expires_and_why_there_are_too_few_copies() -> None:
    lacking = msgspec.structs.replace(file_report(), under_way=1, why_not=WHY)
    lines = file_lines([lacking, msgspec.structs.replace(file_report(), expires_at=UPLOADED_AT + 86_400)], Screen())
    assert lines == [
        "NAME     ID               SIZE  COPIES     HERE  EXPIRES           FILES  UPLOADED          BY",
        "weights  9c41e07b2d55  18.4 GB  2 of 3 +1  none                      231  2025-11-22 09:14  render-01",
        f"    too few copies: {WHY}",
        "weights  9c41e07b2d55  18.4 GB  2 of 3     none  2025-11-23 09:14    231  2025-11-22 09:14  render-01",
    ]
    assert file_lines([lacking], Screen(45))[1:] == [
        "weights  9c41e07b2d55  18.4 GB  2 of 3 +1",
        "    too few copies: no other live host has r…",
    ]


def test_status() -> None:
    report = status(transfer(), transfer("waiting", name="other", file_id="0b" * 32, note="no host has other"))
    assert status_lines(report, Screen(80)) == [
        "render-07 of fleet 7f3a · serving on 10.0.0.17:4851",
        "  Master: 10.0.0.5:4850, connected",
        "  Holds 12 files, 220 GB · 1.4 TB free",
        "  Down 1.1 GB/s · up 410 MB/s",
        "  State in /srv/client",
        "  NAME     ID            STATE     DONE      RATE  LEFT  FROM",
        "  weights  9c41e07b2d55  fetching  51 %  1.1 GB/s   9 s  6 hosts",
        "  other    0b0b0b0b0b0b  waiting   51 %",
    ]
    assert status_lines(report, Screen())[-1].endswith("  no host has other")


def test_status_shows_limits_and_priorities_where_there_are_any() -> None:
    report = msgspec.structs.replace(
        status(transfer(), msgspec.structs.replace(transfer(name="other"), priority="low")),
        limit_down=2_000_000_000,
    )
    lines = status_lines(report, Screen(80))
    assert lines[3] == "  Down 1.1 GB/s (limit 2.0 GB/s) · up 410 MB/s"
    assert lines[5:] == [
        "  NAME     ID            STATE     PRIORITY  DONE      RATE  LEFT  FROM     NOTE",
        "  weights  9c41e07b2d55  fetching  normal    51 %  1.1 GB/s   9 s  6 hosts",
        "  other    9c41e07b2d55  fetching  low       51 %  1.1 GB/s   9 s  6 hosts",
    ]


SCRUB = ScrubReport(
    every_s=2_592_000.0, finished_at=None, due=0, damaged=0, file="", name="", size=0, bytes_done=0
)  # at rest


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"due": 3}, None),
        (
            {"file": ID, "name": "weights", "size": 18_400_000_000, "bytes_done": 9_400_000_000},
            "  Scrub: at weights, 51 % of 18.4 GB",
        ),
        ({"damaged": 1}, "  Scrub: 1 file has bad pieces on disk"),
        (
            {"file": ID, "name": "weights", "size": 0, "damaged": 2},
            "  Scrub: at weights, 100 % of 0 B · 2 files have bad pieces on disk",
        ),
        ({"file": ID, "name": "\x1b[2J", "size": 0}, "  Scrub: at \\x1b[2J, 100 % of 0 B"),
    ],
)
def test_status_shows_a_scrub_that_runs_or_has_found_something(changes: dict[str, Any], line: str | None) -> None:
    report = msgspec.structs.replace(status(), scrub=msgspec.structs.replace(SCRUB, **changes))
    assert status_lines(report, Screen(80))[5:] == ([line] if line is not None else [])


def test_status_of_a_host_without_a_master(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv")
    report = msgspec.structs.replace(
        status(), fleet="", master="10.0.0.5:4850", master_state="connecting", master_note="Connection refused"
    )
    assert status_lines(report, Screen(80)) == [
        "render-07 of no fleet yet · serving on 10.0.0.17:4851",
        "  Master: 10.0.0.5:4850, connecting (Connection refused)",
        "  Holds 12 files, 220 GB · 1.4 TB free",
        "  Down 1.1 GB/s · up 410 MB/s",
        "  State in ~/client",
    ]


@pytest.mark.parametrize("width", [1, 20, 40, 50, 60, 79, 80, 81, 120, 200])
def test_no_table_wraps(width: int) -> None:
    files = [file_report("日本語のファイル" * 5), file_report(HOSTILE * 4)]
    transfers = status(transfer(name="日本語のファイル" * 5, note="x" * 300), transfer(name=HOSTILE))
    tables = [
        file_lines(files, Screen(width)),
        host_lines(HOSTS, Screen(width)),
        status_lines(transfers, Screen(width))[-3:],
        stat_lines(STAT, Screen(width))[-5:],
    ]
    assert max(cells(line) for lines in tables for line in lines) <= max(width, len("  …"))


def test_no_control_character_gets_through() -> None:
    report = msgspec.structs.replace(
        status(transfer(HOSTILE, name=HOSTILE, note=HOSTILE)),
        name=HOSTILE,
        fleet=HOSTILE,
        address=HOSTILE,
        master=HOSTILE,
        master_state="connecting",
        master_note=HOSTILE,
        state_directory=HOSTILE,
    )
    stat = msgspec.structs.replace(
        STAT,
        name=HOSTILE,
        uploaded_by=HOSTILE,
        replicas=ReplicaCount(wanted=3, complete=1, why_not=HOSTILE),
        hosts=[msgspec.structs.replace(STAT.hosts[0], name=HOSTILE, zone=HOSTILE, address=HOSTILE, note=HOSTILE)],
        local=LocalCopy(state="partial", pieces=1, path=HOSTILE, doing=HOSTILE, note=HOSTILE),
    )
    hosts = [
        msgspec.structs.replace(HOSTS[0], name=HOSTILE, zone=HOSTILE, address=HOSTILE, state=HOSTILE, note=HOSTILE)
    ]
    files = [msgspec.structs.replace(file_report(HOSTILE), uploaded_by=HOSTILE, why_not=HOSTILE)]
    screen = Screen()
    lines = (
        status_lines(report, screen) + stat_lines(stat, screen) + host_lines(hosts, screen) + file_lines(files, screen)
    )
    shown = "".join(lines)
    assert shown.count("evil\\x1b[2J") >= 21
    assert not any(character in shown for character in "\x1b\u202e\n")


def test_a_path_below_the_current_directory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    local = LocalCopy(state="complete", pieces=4388, path=os.path.realpath("weights"), doing="", note="")
    assert "  Here: complete · weights/" in stat_lines(msgspec.structs.replace(STAT, local=local), Screen())


def test_ids_are_shown_with_twelve_digits() -> None:
    assert stat_lines(STAT, Screen())[0].split()[-1] == ID[:12]
