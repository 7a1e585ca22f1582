"""status, and the commands that become a daemon."""

import json
import os
import sys

import msgspec
import pytest

from interfiles.wire import control_messages as messages
from interfiles.wire.reports import LimitReport
from tests.cli.conftest import Command
from tests.fake_daemon import FakeDaemon
from tests.samples import status, transfer


def test_status(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(status(transfer()))
    outcome = interfiles("status")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0] == "render-07 of fleet 7f3a · serving on 10.0.0.17:4851"


def test_status_as_json(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(status(transfer()))
    report = json.loads(interfiles("status", "--json").out)
    assert report["master_state"] == "connected"
    assert report["transfers"][0]["state"] == "fetching"


LIMITS = LimitReport(limit_down=None, limit_up=10_000_000, down=0, up=9_900_000, bytes_down=0, bytes_up=5)


def test_limits_are_shown(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(LIMITS)
    outcome = interfiles("limit")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "Up 9.9 MB/s (limit 10.0 MB/s)\nDown 0 B/s (no limit)\n"
    assert daemon.request == messages.Limit(None, None)


@pytest.mark.parametrize(
    ("arguments", "request_sent"),
    [
        (["--up", "80Mbit/s"], messages.Limit(10_000_000, None)),
        (["--up", "10MB/s", "--down", "none"], messages.Limit(10_000_000, 0)),
        (["--down", "unlimited"], messages.Limit(None, 0)),
    ],
)
def test_limits_are_changed(
    arguments: list[str], request_sent: messages.Limit, interfiles: Command, daemon: FakeDaemon
) -> None:
    daemon.will(LIMITS)
    outcome = interfiles("limit", *arguments, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert msgspec.convert(json.loads(outcome.out), LimitReport) == LIMITS
    assert daemon.request == request_sent


@pytest.mark.parametrize(
    ("rate", "sentence"),
    [
        ("10", "'10' is not a rate; write 10MB/s (bytes), 5MiB/s or 80Mbit/s (bits)"),
        ("100Mb/s", "'100Mb/s' is not a rate; write 10MB/s (bytes), 5MiB/s or 80Mbit/s (bits)"),
        ("0B/s", "a limit of 0B/s is too low; the least is 10.0 kB/s; to move nothing at all, use interfiles pause"),
    ],
)
def test_what_is_no_limit_is_not_asked_for(rate: str, sentence: str, interfiles: Command, daemon: FakeDaemon) -> None:
    outcome = interfiles("limit", "--up", rate)
    assert (outcome.code, outcome.out) == (2, "")
    assert sentence in outcome.err
    assert not daemon.requests


@pytest.mark.parametrize("command", ["master", "client"])
@pytest.mark.parametrize(
    "arguments",
    [[], ["--help"], ["--listen", "0.0.0.0:4850", "--state=/srv"], ["--join", "-x", "y", "-h"]],
    ids=" ".join,
)
def test_a_daemon_gets_all_its_options(
    command: str, arguments: list[str], interfiles: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(os, "execv", lambda *call: calls.append(call))
    interfiles(command, *arguments)
    assert calls == [(sys.executable, [sys.executable, "-P", "-m", f"daemons.{command}", *arguments])]
