"""events: what it asks, prints, and does when the master goes away."""

import json
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from interfiles.administration import Admin
from interfiles.cli.events import RETRY_CAP_S, RETRY_FLOOR_S, WAIT_S, tell_events
from interfiles.errors import DaemonUnreachable, InterFilesError, Refused
from interfiles.wire import control_messages as messages
from interfiles.wire.admin_reports import EventListReport, EventReport
from tests.cli.conftest import Command
from tests.fake_daemon import FakeDaemon
from tests.samples import HOSTILE, HOSTILE_SHOWN, ID

LOG, OTHER_LOG = "ab" * 8, "cd" * 8
ALL = 1 << 53


def event(
    sequence: int = 1,
    kind: str = "live",
    *,
    name: str = "render-07",
    file: str = "",
    file_name: str = "",
    why: str = "",
) -> EventReport:
    return EventReport(
        sequence=sequence,
        at=1_763_806_000.25 + sequence,
        kind=kind,
        host="3f2a" * 8,
        host_name=name,
        file=file,
        file_name=file_name,
        reason=why,
    )


def page(*events: EventReport, log: str = LOG, after: int = 0, more: bool = False, missed: int = 0) -> EventListReport:
    last = events[-1].sequence if events else after
    return EventListReport(log=log, events=list(events), next=last, more=more, missed=missed)


JOINED = event(1, "joined", why="from 10.0.0.17 by token ab12")
FAILED = event(2, "failed", name="render-1234", file=ID, file_name="weights", why="no space")


def test_a_line_for_each_event(interfiles: Command, master: FakeDaemon) -> None:
    master.will(page(JOINED, FAILED, event(3, "gone", name="", file=ID)))
    outcome = interfiles("events", "--state", master.socket.parent)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        "2025-11-22 10:06:41  joined        render-07                             from 10.0.0.17 by token ab12",
        "2025-11-22 10:06:42  failed        render-1234   weights (9c41e07b2d55)  no space",
        "2025-11-22 10:06:43  gone          3f2a3f2a3f2a  9c41e07b2d55",
    ]
    assert master.request == messages.ListEvents("", 0, 50, 0.0)


def test_further_pages_are_asked_for_and_columns_grow(interfiles: Command, master: FakeDaemon) -> None:
    master.will(page(event(1, name="a"), more=True))
    master.will(page(event(2, name="abcdef"), event(3, name="b")))
    outcome = interfiles("events", "--last", "3", "--state", master.socket.parent)
    assert [line.partition("live")[2] for line in outcome.out.splitlines()] == [
        "          a",
        "          abcdef",
        "          b",
    ]
    assert [request for request, _ in master.requests] == [
        messages.ListEvents("", 0, 3, 0.0),
        messages.ListEvents(LOG, 1, ALL, 0.0),
    ]


def test_as_json_each_event_is_a_line_with_all_its_fields(interfiles: Command, master: FakeDaemon) -> None:
    master.will(page(JOINED, FAILED))
    outcome = interfiles("events", "--json", "--state", master.socket.parent)
    first, second = map(json.loads, outcome.out.splitlines())
    assert first == {
        "sequence": 1,
        "at": 1_763_806_001.25,
        "kind": "joined",
        "host": "3f2a" * 8,
        "host_name": "render-07",
        "file": "",
        "file_name": "",
        "reason": "from 10.0.0.17 by token ab12",
    }
    assert (second["kind"], second["file"], second["file_name"]) == ("failed", ID, "weights")


def test_names_and_reasons_from_elsewhere_are_escaped(interfiles: Command, master: FakeDaemon) -> None:
    master.will(page(event(kind="failed", name=HOSTILE, file=ID, file_name=HOSTILE, why=HOSTILE)))
    outcome = interfiles("events", "--state", master.socket.parent)
    assert outcome.out.count(HOSTILE_SHOWN) == 3
    assert outcome.out[:-1].isprintable()


def test_nothing_yet(interfiles: Command, master: FakeDaemon) -> None:
    master.will(page())
    outcome = interfiles("events", "--state", master.socket.parent)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "Nothing has happened since the master started.\n")
    master.will(page())
    outcome = interfiles("events", "--json", "--state", master.socket.parent)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_without_a_master(interfiles: Command, tmp_path: Path) -> None:
    for arguments in ((), ("--follow",)):
        outcome = interfiles("events", *arguments, "--state", tmp_path)
        assert outcome.code == 3
        assert outcome.err.startswith(f"interfiles: the master is not running (no socket at {tmp_path}/master.sock); ")


def test_a_number_below_zero_is_refused(interfiles: Command, tmp_path: Path) -> None:
    outcome = interfiles("events", "--last", "-1", "--state", tmp_path)
    assert outcome.code == 2
    assert "--last" in outcome.err


def test_following_goes_on_when_the_master_has_restarted(interfiles: Command, master: FakeDaemon) -> None:
    master.will(page(event(7)))
    master.will()  # it hangs up
    master.will(page(event(1, name="back"), log=OTHER_LOG))
    master.will(Refused("16 commands wait for events already; end one of them"))
    outcome = interfiles("events", "--follow", "--json", "--last", "1", "--state", master.socket.parent)
    assert outcome.code == 9
    assert [json.loads(line)["sequence"] for line in outcome.out.splitlines()] == [7, 1]
    assert outcome.err.splitlines() == [
        "The master is away; waiting for it. Ctrl-C ends this.",
        "The master is back; its events begin anew.",
        "interfiles: 16 commands wait for events already; end one of them.",
    ]
    assert [request for request, _ in master.requests] == [
        messages.ListEvents("", 0, 1, WAIT_S),
        messages.ListEvents(LOG, 7, ALL, WAIT_S),
        messages.ListEvents(LOG, 7, ALL, 0.0),
        messages.ListEvents(OTHER_LOG, 1, ALL, WAIT_S),
    ]


class Scripted:
    """An `Admin` whose answers are written down; `asked_at`: when each was asked for."""

    def __init__(self, *answers: EventListReport | InterFilesError) -> None:
        self.answers = list(answers)
        self.asked_at: list[float] = []

    async def events(self, **_: object) -> EventListReport:
        await trio.lowlevel.checkpoint()
        self.asked_at.append(trio.current_time())
        answer = self.answers.pop(0)
        if isinstance(answer, InterFilesError):
            raise answer
        return answer


async def followed(*answers: EventListReport | InterFilesError) -> tuple[list[int], list[float]]:
    """Follow until a script that ends with `Refused` ends; the numbers shown, and the moments of the questions."""
    shown: list[int] = []
    admin = Scripted(*answers, Refused("end"))
    with pytest.raises(Refused, match="end"):
        await tell_events(
            cast("Admin", admin), lambda events: shown.extend(e.sequence for e in events), last=50, follow=True
        )
    return shown, admin.asked_at


async def test_a_master_that_is_away_is_asked_less_and_less_often_and_that_is_said_once(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    away = [DaemonUnreachable("away")] * 7
    shown, asked_at = await followed(page(event(1)), *away, page(event(2)))
    assert shown == [1, 2]
    waits = [later - sooner for sooner, later in pairwise(asked_at[1:])]
    assert waits == [RETRY_FLOOR_S, 0.5, 1.0, 2.0, 4.0, RETRY_CAP_S, RETRY_CAP_S, 0.0]
    assert capsys.readouterr().err.splitlines() == [
        "The master is away; waiting for it. Ctrl-C ends this.",
        "The master is back.",
    ]


async def test_events_that_fell_out_meanwhile_are_counted(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await followed(page(event(1), missed=9), page(event(40), missed=38)))[0] == [1, 40]
    assert capsys.readouterr().err == "38 events came and went meanwhile; the master keeps the latest.\n"


async def test_an_answer_without_events_is_no_line(autojump_clock: MockClock) -> None:
    assert (await followed(page(), page(), page(event(1)), page(after=1)))[0] == [1]
