"""Limits that real daemons keep to, and how they are set and looked at."""

import time
from typing import Any

import pytest

from tests.e2e.content import differences, make_file
from tests.e2e.fleet import Fleet
from tests.e2e.processes import Daemon, poll

MB = 1_000_000
SHARE = 1.05


def limit(fleet: Fleet, daemon: Daemon, *arguments: str) -> Any:
    return fleet.cli(daemon, "limit", *arguments, json=True).done.json


def most_moved(fleet: Fleet, daemon: Daemon, way: str, seconds: float) -> tuple[int, float]:
    """What a daemon counts from now on, and in how many seconds at most: a busy machine makes no test fail."""
    began = time.monotonic()
    before = limit(fleet, daemon)[f"bytes_{way}"]
    time.sleep(seconds)
    after = limit(fleet, daemon)[f"bytes_{way}"]
    return after - before, time.monotonic() - began


@pytest.mark.parametrize("way", ["up", "down"])
def test_no_more_passes_than_the_limit_which_can_be_changed_and_lifted(own_fleet: Fleet, way: str) -> None:
    fleet = own_fleet
    fleet.start_master()
    source, reader = fleet.start_clients("source", "reader")
    limited = source if way == "up" else reader
    content = make_file(source.home / "file.bin", 100 * MB)
    tracker = source.home / "file.bin.tracker"
    fleet.ask(source, lambda client: client.upload(content, tracker=tracker))
    assert limit(fleet, limited, f"--{way}", "4MB/s")[f"limit_{way}"] == 4 * MB
    fleet.cli(reader, "download", "-p", str(tracker), "--detach", "--priority", "high").done  # noqa: B018
    poll(lambda: limit(fleet, limited)[f"bytes_{way}"] > MB, "the first megabyte")

    moved, within_s = most_moved(fleet, limited, way, 1.5)
    assert 0 < moved <= SHARE * 4 * MB * within_s
    status = fleet.cli(reader, "status", json=True).done.json
    assert status["transfers"][0]["priority"] == "high"

    assert limit(fleet, limited, f"--{way}", "8Mbit/s")[f"limit_{way}"] == MB
    moved, within_s = most_moved(fleet, limited, way, 1.5)
    assert 0 < moved <= SHARE * MB * within_s

    assert limit(fleet, limited, f"--{way}", "none")[f"limit_{way}"] is None
    assert fleet.cli(reader, "wait", "-p", str(tracker)).code == 0
    assert not differences(content, reader.home / "file.bin")


def test_a_limit_from_the_command_line_of_the_daemon(own_fleet: Fleet) -> None:
    fleet = own_fleet
    fleet.start_master()
    daemon = fleet.start_client("limited", "--limit-up", "80Mbit/s", "--limit-down", "5MiB")
    report = limit(fleet, daemon)
    assert (report["limit_up"], report["limit_down"]) == (10 * MB, 5 << 20)
    assert "limit 10.0 MB/s" in fleet.cli(daemon, "status").done.out
