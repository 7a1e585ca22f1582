"""replicas set, and wait --replicas: what they ask, print and end with."""

import json
from pathlib import Path

import msgspec
import pytest

from interfiles.cli.options import number_may_follow
from interfiles.errors import NotPermitted, TimedOut
from interfiles.wire import control_messages as messages
from interfiles.wire.reports import ReplicasReport
from tests.cli.conftest import Command
from tests.fake_daemon import FakeDaemon
from tests.samples import TRACKER, progress, replicas_report

WHY = "no other live host has room for 18.4 GB (b3 has the most: 12 GB)"


@pytest.mark.parametrize("words", [["-p", "weights", "5"], ["weights", "5"], ["5", "-p", "weights"]])
def test_another_number_is_set(words: list[str], interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(replicas_report(complete=3, wanted=5, hosts=8))
    outcome = interfiles("replicas", "set", *words)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "weights is wanted on 5 hosts; 3 hosts have all of it now.\n"
    assert daemon.request == messages.SetReplicas("weights", 5)


def test_a_tracker_file_names_the_file(interfiles: Command, daemon: FakeDaemon) -> None:
    Path("weights.tracker").write_bytes(TRACKER)
    daemon.will(replicas_report(complete=1, wanted=1))
    assert interfiles("replicas", "set", "-p", "weights.tracker", "1").code == 0
    assert daemon.requests == [(messages.SetReplicas("", 1), TRACKER)]


@pytest.mark.parametrize(
    ("hosts", "there"),
    [
        (3, "the fleet has 3 that can hold a copy, so 3 until more join."),
        (0, "the fleet has none that can hold a copy, so no copy until more join."),
    ],
)
def test_more_than_there_are_hosts_is_noted(hosts: int, there: str, interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(replicas_report(complete=1, wanted=5, hosts=hosts))
    outcome = interfiles("replicas", "set", "-p", "weights", "5")
    assert (outcome.code, outcome.out) == (0, f"weights is wanted on 5 hosts; {there}\n")


def test_the_facts_as_json(interfiles: Command, daemon: FakeDaemon) -> None:
    report = replicas_report(complete=1, wanted=5, hosts=3, under_way=1, why_not=WHY)
    for command in (["replicas", "set", "weights", "5"], ["wait", "weights", "--replicas"]):
        daemon.will(report)
        outcome = interfiles(*command, "--json")
        assert msgspec.convert(json.loads(outcome.out), ReplicasReport) == report


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["weights"], "'weights' is not a number of copies; it is 1 to 1,000."),
        (["weights", "0"], "'0' is not a number of copies; it is 1 to 1,000."),
        (["weights", "1001"], "'1001' is not a number of copies; it is 1 to 1,000."),
        (["weights", "+5"], "'+5' is not a number of copies; it is 1 to 1,000."),
        (["5"], "the file (a tracker file, a file id or a name) is missing; name it with -p."),
        (["-p", "weights", "other", "5"], "the file is named twice, with -p and as 'other'; name it once."),
        (
            ["a", "b", "5"],
            "one file and one number of copies are expected, such as `interfiles replicas set weights 5`.",
        ),
        ([], "missing argument '[TRACKER] N'; see `interfiles replicas set --help`."),
    ],
)
def test_what_cannot_be_meant(words: list[str], said: str, interfiles: Command, daemon: FakeDaemon) -> None:
    outcome = interfiles("replicas", "set", *words)
    assert (outcome.code, outcome.err.partition(": ")[2]) == (2, f"{said}\n".replace("file (a", "file (a"))
    assert daemon.requests == []


def test_a_refusal(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(NotPermitted("weights is not on this host, so it is not yours to change in the fleet"))
    assert interfiles("replicas", "set", "weights", "5").code == 7


# wait


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["--replicas", "-p", "weights"], None),
        (["-p", "weights", "--replicas"], None),
        (["--replicas", "weights"], None),
        (["--replicas=wanted", "weights"], None),
        (["--replicas", "--", "weights"], None),
        (["--replicas", "2", "weights"], 2),
        (["weights", "--replicas", "2"], 2),
        (["--replicas=2", "-p", "weights"], 2),
    ],
)
def test_the_number_of_copies_to_wait_for_may_be_left_out(
    words: list[str], count: int | None, interfiles: Command, daemon: FakeDaemon
) -> None:
    daemon.will(progress("replicating", done=2, total=3, peers=1), replicas_report())
    outcome = interfiles("wait", *words, "--timeout", "10m") if "--" not in words else interfiles("wait", *words)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "weights has 3 complete copies, 3 wanted.\n"
    assert daemon.request == messages.WaitReplicas("weights", count, None if "--" in words else 600.0)


def test_words_behind_two_dashes_are_no_options() -> None:
    words = ["a", "--replicas", "--", "--replicas"]
    assert number_may_follow(words, "--replicas", "x") == ["a", "--replicas=x", "--", "--replicas"]
    assert number_may_follow(["--replicas", "-1"], "--replicas", "x") == ["--replicas", "-1"]


def test_as_many_as_there_are_hosts_for_is_told_as_what_it_is(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(
        replicas_report(complete=1, wanted=3, hosts=1, why_not="no other host is live (1 host with some of it)")
    )
    outcome = interfiles("wait", "weights", "--replicas")
    assert outcome.code == 0
    assert outcome.out == ("weights has 1 complete copy of 3 wanted: no other host is live (1 host with some of it).\n")


def test_what_is_waited_for_is_said_once_and_the_end_of_the_time_with_its_reason(
    interfiles: Command, daemon: FakeDaemon
) -> None:
    said = f"weights has 1 of 3 copies after 10 s: {WHY}"
    waiting = progress("replicating", done=1, total=3, peers=0, text=WHY)
    daemon.will(waiting, waiting, TimedOut(said))
    outcome = interfiles("wait", "weights", "--replicas", "--timeout", "10s", "--json")
    assert (outcome.code, outcome.out) == (6, "")
    assert outcome.err.splitlines() == [
        f"interfiles: {WHY}. Waiting; Ctrl-C ends the wait, not the copying.",
        f"interfiles: {said}.",
    ]


@pytest.mark.parametrize("words", [["--replicas"], ["--replicas", "0", "weights"], ["--replicas=x", "weights"]])
def test_a_wait_for_no_file_or_no_number(words: list[str], interfiles: Command, daemon: FakeDaemon) -> None:
    assert interfiles("wait", *words).code == 2
    assert daemon.requests == []
