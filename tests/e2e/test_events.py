"""What people and scripts see of a host that dies, with real processes."""

import json
import signal
import threading
from typing import Any

from tests.e2e.fleet import Fleet
from tests.e2e.processes import poll


class Following:
    """`interfiles events --follow --json` while it runs: the events that it has printed."""

    def __init__(self, fleet: Fleet) -> None:
        self.events: list[dict[str, Any]] = []
        self.process = fleet.begin_cli(None, "events", "--follow", "--json", "--state", str(fleet.master.state))
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    @property
    def kinds(self) -> list[tuple[str, str]]:
        return [(event["kind"], event["host_name"]) for event in self.events]

    def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C; return the exit code and what was said on stderr."""
        self.process.send_signal(signal.SIGINT)
        self._reader.join(30)
        assert self.process.stderr is not None
        said = self.process.stderr.read()
        return self.process.wait(30), said


def test_a_host_that_is_killed_is_suspect_then_gone_and_followers_survive_the_master(own_fleet: Fleet) -> None:
    master = own_fleet.start_master(grace="3s")
    state = str(master.state)
    host = own_fleet.start_client("render-07")
    listed = own_fleet.cli(None, "events", "--json", "--state", state).done.out
    assert [(event["sequence"], event["kind"]) for event in map(json.loads, listed.splitlines())] == [
        (1, "joined"),
        (2, "live"),
    ]
    following = Following(own_fleet)
    poll(lambda: len(following.events) == 2, "what has happened to be shown")
    own_fleet.kill(host)
    poll(lambda: len(following.events) == 4, "the host to be gone", timeout_s=15)
    assert following.kinds[2:] == [("suspect", "render-07"), ("gone", "render-07")]
    _, live, suspect, gone = following.events
    assert suspect["reason"]
    assert not suspect["reason"].startswith("silent"), "its connection ended, which is noticed at once"
    assert gone["at"] >= live["at"] + 3
    assert gone["reason"].startswith("silent for ")

    own_fleet.start(host)
    poll(lambda: len(following.events) == 5, "the host to be back")
    own_fleet.kill(master)
    own_fleet.start(master)
    poll(lambda: len(following.events) == 6, "the new master's events", timeout_s=30)
    assert following.kinds[4:] == [("live", "render-07")] * 2
    assert following.events[5]["sequence"] == 1
    code, said = following.interrupt()
    assert code == 130
    assert said.splitlines() == [
        "The master is away; waiting for it. Ctrl-C ends this.",
        "The master is back; its events begin anew.",
    ]

    last = own_fleet.cli(None, "events", "--last", "1", "--state", state).done.out
    assert last.split()[2:5] == ["live", "render-07", "connected"]


def test_events_to_a_reader_that_has_enough(own_fleet: Fleet) -> None:
    own_fleet.start_master()
    own_fleet.start_client("render-07")
    process = own_fleet.begin_cli(None, "events", "--follow", "--state", str(own_fleet.master.state))
    assert process.stdout is not None
    assert "joined" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 0, "though nothing happens any more"
