"""hosts drain and undrain: what they ask, show and end with; the watching in virtual time."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import msgspec
import pytest
import trio
from trio.testing import MockClock

from interfiles.cli import drain as module
from interfiles.cli.drain import LOOK_S, Drain
from interfiles.errors import DaemonUnreachable, InterFilesError, Refused, UnknownHost
from interfiles.wire import control_messages as messages
from interfiles.wire.admin_reports import HostDrainReport
from tests.cli.conftest import Command
from tests.fake_daemon import FakeDaemon
from tests.samples import HOSTILE, HOSTILE_SHOWN

if TYPE_CHECKING:
    from interfiles.administration import Admin

HOST = "ab" * 16
MOVING = HostDrainReport(host=HOST, name="render-07", state="draining", draining=True, to_move=12)
DONE = msgspec.structs.replace(MOVING, to_move=0)
UNDRAINED = msgspec.structs.replace(MOVING, state="live", draining=False, to_move=None)
AWAY = msgspec.structs.replace(MOVING, state="gone", to_move=None)
STUCK = msgspec.structs.replace(MOVING, to_move=1, why_not="weights: no other live host has room for 18.4 GB")


def test_a_drain_is_watched_until_the_host_can_be_switched_off(interfiles: Command, master: FakeDaemon) -> None:
    master.will(MOVING)
    master.will(DONE)
    outcome = interfiles("hosts", "drain", "render-07", "--state", master.socket.parent)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "render-07 can be switched off: what it has is on other hosts too.\n"
    assert [request for request, _ in master.requests] == [
        messages.DrainHost("render-07", False),
        messages.DrainHost(HOST, True),
    ], "watching changes nothing, and goes by the id"


def test_what_has_fewer_copies_than_wanted_then_is_said(interfiles: Command, master: FakeDaemon) -> None:
    master.will(msgspec.structs.replace(DONE, short=2))
    assert interfiles("hosts", "drain", "render-07", "--state", master.socket.parent).out == (
        "render-07 can be switched off: what it has is on other hosts too. 2 files have fewer copies than wanted then, "
        "as no other host could hold one.\n"
    )


async def test_how_much_of_a_large_file_is_left_is_said(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    large = [msgspec.structs.replace(MOVING, to_move=1, left_bytes=(100 - n) * 10**9) for n in range(70)]
    await Drain("render-07").follow(cast("Admin", Scripted([*large, DONE])))
    assert capsys.readouterr().err.splitlines() == [
        "interfiles: render-07 has 1 file to move, 70.0 GB.",
        "interfiles: render-07 has 1 file to move, 40.0 GB.",
    ]


def test_json_is_one_object_at_the_end(interfiles: Command, master: FakeDaemon) -> None:
    master.will(STUCK)
    master.will(DONE)
    outcome = interfiles("hosts", "drain", "render-07", "--json", "--state", master.socket.parent)
    assert outcome.code == 0
    assert msgspec.convert(json.loads(outcome.out), HostDrainReport) == DONE


def test_a_drain_in_the_background(interfiles: Command, master: FakeDaemon) -> None:
    master.will(AWAY)
    outcome = interfiles("hosts", "drain", "render-07", "--detach", "--state", master.socket.parent)
    assert outcome.code == 0
    assert outcome.out.startswith("render-07 drains: it is given no copies, and what it has is copied to other hosts. ")
    assert outcome.err == (
        "interfiles: render-07 is not up: what is only there cannot be moved until it is back. It goes on by itself.\n"
    )


def test_undrain(interfiles: Command, master: FakeDaemon) -> None:
    for _ in range(2):
        master.will(msgspec.structs.replace(UNDRAINED, name=HOSTILE))
    command = ["hosts", "undrain", "render-07", "--state", str(master.socket.parent)]
    assert interfiles(*command).out == f"{HOSTILE_SHOWN} does not drain: it is given copies as any other host.\n"
    assert json.loads(interfiles(*command, "--json").out)["draining"] is False
    assert master.requests[0] == (messages.UndrainHost("render-07"), b"")


@pytest.mark.parametrize("command", ["drain", "undrain"])
def test_an_unknown_host(command: str, interfiles: Command, master: FakeDaemon) -> None:
    master.will(UnknownHost("no host goes by 'render-99'; see `interfiles hosts`"))
    outcome = interfiles("hosts", command, "render-99", "--state", master.socket.parent)
    assert (outcome.code, outcome.out) == (4, "")


class Scripted:
    """An `Admin` whose answers are written down."""

    def __init__(self, answers: Sequence[HostDrainReport | InterFilesError]) -> None:
        self.answers = list(answers)
        self.asked_at: list[float] = []

    async def drain_host(self, _: str, *, only_look: bool = False) -> HostDrainReport:
        await trio.lowlevel.checkpoint()
        assert only_look == bool(self.asked_at)
        self.asked_at.append(trio.current_time())
        answer = self.answers.pop(0)
        if isinstance(answer, InterFilesError):
            raise answer
        return answer


async def test_why_it_does_not_get_on_is_said_once_each_time(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    away = DaemonUnreachable("the master is not running")
    less = msgspec.structs.replace(STUCK, why_not="other: no other live host has room for 1.0 GB")
    admin = Scripted([MOVING, STUCK, less, away, away, MOVING, AWAY, AWAY, DONE])
    drain = Drain("render-07")
    assert await drain.follow(cast("Admin", admin)) == DONE
    assert admin.asked_at[-1] - admin.asked_at[0] == 8 * LOOK_S
    assert capsys.readouterr().err.splitlines() == [
        (
            "interfiles: render-07 has files that can get no other copy now; weights: no other live host has room for "
            "18.4 GB. Waiting; Ctrl-C leaves it draining."
        ),
        "interfiles: the master is away. Waiting; Ctrl-C leaves it draining.",
        (
            "interfiles: render-07 is not up: what is only there cannot be moved until it is back. "
            "Waiting; Ctrl-C leaves it draining."
        ),
    ]


def moving(left: int | None) -> HostDrainReport:
    return msgspec.structs.replace(MOVING, to_move=left)


async def test_on_a_terminal_one_line_shows_how_many_files_are_still_to_be_moved(
    terminal: Callable[[], str], monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = list[str]()

    class Watched(Scripted):
        async def drain_host(self, host: str, *, only_look: bool = False) -> HostDrainReport:
            shown.append(terminal())
            return await super().drain_host(host, only_look=only_look)

    drain = Drain("render-07")
    with drain.line:
        await drain.follow(
            cast("Admin", Watched([moving(None), *map(moving, [1200, 400, 400, 1]), *[MOVING] * 90, DONE]))
        )
    assert shown[:6] == [
        "",
        "render-07  looking what is to be moved",
        "render-07  1,200 files to move",
        "render-07  400 files to move",
        "render-07  400 files to move",
        "render-07  1 file to move",
    ]
    assert set(shown[6:]) == {"render-07  12 files to move"}, "however long it takes"
    assert terminal() == ""


@pytest.mark.parametrize("tells", [True, False])
async def test_elsewhere_it_is_told_every_half_minute_at_most_and_only_if_it_has_changed(
    tells: bool, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [moving(None), *[moving(5000 - second) for second in range(1, 65)], *[moving(400)] * 300, moving(1), DONE]
    assert await Drain("render-07", tells=tells).follow(cast("Admin", Scripted(answers))) == DONE
    said = [
        f"interfiles: render-07 has {left} to move." for left in ("4,970 files", "4,940 files", "400 files", "1 file")
    ]
    assert capsys.readouterr().err.splitlines() == (said if tells else [])


def test_json_leaves_it_untold(interfiles: Command, master: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TELL_S", 0.0)
    command = ["hosts", "drain", "render-07", "--state", str(master.socket.parent)]
    for options, said in (([], f"interfiles: {HOSTILE_SHOWN} has 12 files to move.\n"), (["--json"], "")):
        master.will(msgspec.structs.replace(MOVING, name=HOSTILE))
        master.will(DONE)
        assert interfiles(*command, *options).err == said


@pytest.mark.parametrize(
    ("end", "error"),
    [(UNDRAINED, Refused), (UnknownHost("no host goes by this"), UnknownHost)],
    ids=["ended", "removed"],
)
async def test_a_drain_that_somebody_ends(
    end: HostDrainReport | InterFilesError, error: type[InterFilesError], autojump_clock: MockClock
) -> None:
    """Asking again would have begun it anew each second, against whoever ended it."""
    with pytest.raises(error):
        await Drain("render-07").follow(cast("Admin", Scripted([MOVING, end])))


async def test_a_master_that_never_answered_is_an_error(autojump_clock: MockClock) -> None:
    with pytest.raises(DaemonUnreachable):
        await Drain("render-07").follow(cast("Admin", Scripted([DaemonUnreachable("no socket")])))
