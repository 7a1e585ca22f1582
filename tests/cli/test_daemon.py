"""status, and the commands that become a daemon."""

import json
import os
import sys

import pytest

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
