"""Hosts of the fleet that lie: the file comes from the others, and the liar is found out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.content import MIB, differences, make_file
from tests.e2e.fleet import Fleet
from tests.e2e.member import Member, Spoiling, Stalling, Trickling
from tests.e2e.processes import Daemon, poll

SIZE = 32 * MIB


@pytest.fixture(scope="module")
def daemons(module_fleet: Fleet) -> dict[str, Daemon]:
    module_fleet.start_master()
    module_fleet.start_clients("honest", "reader")
    return module_fleet.daemons


@pytest.fixture
def fleet(module_fleet: Fleet, daemons: dict[str, Daemon]) -> Iterator[Fleet]:
    yield module_fleet
    module_fleet.check_logs()


@pytest.fixture
def content(fleet: Fleet, request: pytest.FixtureRequest) -> Path:
    """A new file on `honest`, uploaded."""
    honest = fleet.daemons["honest"]
    content = make_file(honest.home / request.node.name.removeprefix("test_"), SIZE, seed=len(request.node.name))
    fleet.ask(honest, lambda client: client.upload(content, tracker=tracker(content)))
    return content


def tracker(content: Path) -> Path:
    return content.with_name(f"{content.name}.tracker")


def check_download(fleet: Fleet, content: Path, report: Any) -> None:
    assert differences(content, fleet.daemons["reader"].home / content.name) == []
    assert report["bytes_from_peers"]["honest"] > 0


def test_a_peer_that_spoils_every_tenth_block_is_found_out(fleet: Fleet, content: Path) -> None:
    honest, reader, liar = fleet.daemons["honest"], fleet.daemons["reader"], Spoiling(every=10)
    fleet.ask(honest, lambda client: client.pause(tracker(content)))
    with Member(fleet, "liar", is_linked=True) as member:
        member.claim(tracker(content), content, liar)
        command = fleet.begin_cli(reader, "download", "-p", str(tracker(content)), "--json")
        poll(lambda: liar.spoiled and "peer blamed" in reader.logged, "the liar to be blamed")
        fleet.ask(honest, lambda client: client.resume(tracker(content)))
        report = fleet.finish_cli(command).done.json
        complaints = sum(served.complaints for served in member.served)
    check_download(fleet, content, report)
    assert 1 <= report["pieces_rejected"] <= liar.spoiled
    assert report["bytes_from_peers"].keys() == {"honest", "liar"}
    assert complaints == report["pieces_rejected"], "it was told of each"
    assert "peer=liar" in reader.logged
    assert "peer=honest" not in reader.logged


@pytest.mark.parametrize("manner", [Stalling(), Trickling(pause_s=0.05)], ids=["stalls", "trickles"])
def test_a_peer_that_claims_all_and_gives_nothing_holds_nobody_up(
    fleet: Fleet, content: Path, manner: Stalling | Trickling
) -> None:
    honest, reader = fleet.daemons["honest"], fleet.daemons["reader"]
    fleet.ask(honest, lambda client: client.pause(tracker(content)))
    with Member(fleet, "idler", is_linked=True) as member:
        member.claim(tracker(content), content, manner)
        command = fleet.begin_cli(reader, "download", "-p", str(tracker(content)), "--json")
        poll(lambda: member.served and member.served[0].asked, "the idler to be asked")
        fleet.ask(honest, lambda client: client.resume(tracker(content)))
        report = fleet.finish_cli(command).done.json
    check_download(fleet, content, report)
    assert report["pieces_rejected"] == 0
    assert report["bytes_from_peers"].get("idler", 0) < MIB
    assert report["seconds"] < 15
