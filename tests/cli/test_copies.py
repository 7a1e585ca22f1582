"""verify and rm: what they ask, print and end with."""

import io
import json
import sys

import msgspec
import pytest

from interfiles.errors import ContentChanged
from interfiles.wire import control_messages as messages
from interfiles.wire.reports import RemoveReport
from tests.cli.conftest import Command
from tests.fake_daemon import FakeDaemon
from tests.samples import HOSTILE, HOSTILE_SHOWN, ID, REMOVED, STAT, VERIFIED, progress, status

OTHER = "0b" * 32


def test_verify(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(progress("verifying"), VERIFIED)
    outcome = interfiles("verify", "-p", "weights")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "weights: all 4,388 pieces match (18.4 GB, checked in 3.1 s).\n"
    assert daemon.request == messages.Verify("weights")


def test_verify_finds_bad_pieces(interfiles: Command, daemon: FakeDaemon) -> None:
    report = msgspec.structs.replace(VERIFIED, bad_pieces=[7, 9])
    for _ in range(2):
        daemon.will(report)
    outcome = interfiles("verify", "weights")
    assert (outcome.code, outcome.out) == (5, "")
    assert outcome.err == (
        "interfiles: weights: 2 of 4,388 pieces do not match (pieces 7, 9) and are no longer served; "
        "`interfiles download` fetches what is missing, over an upload in place with --overwrite.\n"
    )
    outcome = interfiles("verify", "weights", "--json")
    assert outcome.code == 5
    assert json.loads(outcome.out)["bad_pieces"] == [7, 9]
    assert "2 of 4,388 pieces do not match" in outcome.err


def test_verify_all_goes_on_after_a_bad_copy(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(msgspec.structs.replace(status(), held=[ID, OTHER]))
    daemon.will(msgspec.structs.replace(VERIFIED, bad_pieces=[7]))
    daemon.will(msgspec.structs.replace(VERIFIED, name="other"))
    outcome = interfiles("verify")
    assert outcome.code == 5
    assert outcome.out == "other: all 4,388 pieces match (18.4 GB, checked in 3.1 s).\n"
    assert outcome.err.startswith("interfiles: weights: 1 of 4,388 pieces does not match (piece 7)")
    assert [request for request, _ in daemon.requests][1:] == [messages.Verify(ID), messages.Verify(OTHER)]


def test_verify_of_what_is_not_all_here_is_no_success(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(msgspec.structs.replace(VERIFIED, checked=3, complete=False))
    outcome = interfiles("verify", "weights")
    assert (outcome.code, outcome.out) == (5, "")
    assert outcome.err == (
        "interfiles: weights: 3 of 4,388 pieces are here and match, the rest is missing; "
        "`interfiles wait` shows how the download goes.\n"
    )


def test_verify_all_goes_on_after_a_copy_that_is_served_no_longer(interfiles: Command, daemon: FakeDaemon) -> None:
    """It ended there, and what was found bad before was never told."""
    daemon.will(msgspec.structs.replace(status(), held=[ID, OTHER, "0c" * 32]))
    daemon.will(msgspec.structs.replace(VERIFIED, bad_pieces=[7]))
    daemon.will(ContentChanged("p2 is no longer served: p2 changed on disk"))
    daemon.will(msgspec.structs.replace(VERIFIED, name="other"))
    outcome = interfiles("verify")
    assert outcome.code == 5
    assert outcome.out == "other: all 4,388 pieces match (18.4 GB, checked in 3.1 s).\n"
    assert "1 of 4,388 pieces does not match" in outcome.err
    assert "p2 changed on disk" in outcome.err


@pytest.mark.parametrize("option", ["--yes", "-y"])
def test_rm(option: str, interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(REMOVED)
    outcome = interfiles("rm", "-p", "weights", option)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (
        "Removed weights from the fleet; 3 other hosts are told to forget it. /data/weights stays where it is.\n"
    )
    assert daemon.request == messages.Remove("weights", False, False)


def test_rm_local_and_delete_as_json(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(REMOVED)
    outcome = interfiles("rm", "weights", "--local", "--delete", "--yes", "--json")
    assert msgspec.convert(json.loads(outcome.out), RemoveReport) == REMOVED
    assert daemon.request == messages.Remove("weights", True, True)


def test_rm_asks_nobody_without_a_terminal_and_removes_nothing(interfiles: Command, daemon: FakeDaemon) -> None:
    outcome = interfiles("rm", "-p", "weights")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        "interfiles: rm asks before it removes anything, and this is no terminal; use --yes to go ahead.\n"
    )
    assert daemon.requests == []


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a person types at a terminal."""
    typed = io.StringIO()
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", typed)
    monkeypatch.setattr("interfiles.cli.output.is_terminal", lambda stream: stream is not sys.stdout)
    monkeypatch.setenv("TERM", "dumb")
    return typed


@pytest.mark.parametrize("typed", ["y\n", "YES\n", "n\n", "\n", ""])
def test_rm_asks_on_a_terminal(typed: str, answer: io.StringIO, interfiles: Command, daemon: FakeDaemon) -> None:
    answer.write(typed)
    answer.seek(0)
    daemon.will(STAT)
    daemon.will(REMOVED)
    outcome = interfiles("rm", "-p", "weights")
    assert outcome.err.startswith(
        "Remove weights (18.4 GB in 231 files, id 9c41e07b2d55) from the fleet; 4 hosts have some of it? "
        "What stands at its destination stays. [y/N] "
    )
    if typed.strip().lower() in ("y", "yes"):
        assert outcome.code == 0
        assert outcome.out.startswith("Removed weights from the fleet")
    else:
        assert (outcome.code, outcome.out) == (130, "")
        assert outcome.err.endswith("[y/N] Nothing was removed.\n")
        assert [type(request) for request, _ in daemon.requests] == [messages.Stat]


def test_the_question_promised_another_replica_elsewhere_where_there_is_nowhere(
    answer: io.StringIO, interfiles: Command, daemon: FakeDaemon
) -> None:
    daemon.will(msgspec.structs.replace(STAT, local=msgspec.structs.replace(STAT.local, ordered=True)))
    outcome = interfiles("rm", "-p", "weights", "--local")
    assert outcome.err.startswith(
        "Remove weights (18.4 GB in 231 files, id 9c41e07b2d55) from this host? "
        "It is the fleet's copy: the master makes another elsewhere if it can. [y/N] "
    )


def test_the_question_says_what_would_be_lost(answer: io.StringIO, interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(msgspec.structs.replace(STAT, name=HOSTILE))
    outcome = interfiles("rm", "-p", "weights", "--local", "--delete")
    assert outcome.err.startswith(
        f"Remove {HOSTILE_SHOWN} (18.4 GB in 231 files, id 9c41e07b2d55) from this host? "
        "What stands at its destination is DELETED. [y/N] "
    )
