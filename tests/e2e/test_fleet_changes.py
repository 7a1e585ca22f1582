"""Hosts that are removed, come back, and a CA that is rotated, all while files travel."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from interfiles.errors import NotAdmitted, PeerGone
from interfiles.piece_set import PieceSet
from tests.e2e.content import MIB, differences, make_file
from tests.e2e.fleet import Fleet
from tests.e2e.member import Member, Slow
from tests.e2e.processes import Daemon, listening_port, poll
from tests.e2e.proxy import PeerProxy

SIZE: Final = 16 * MIB
CUT_WITHIN_S: Final = 2.0
# Else hosts take a minute to renew, and the older CA stays for an hour or two more.
SOON: Final = {"daemons.client.membership:ROTATION_SPREAD_S": 1.0}
GONE_SOON: Final = {"daemons.master.trust:CHECK_EVERY_S": 1.0}


@pytest.fixture(scope="module")
def proxy() -> Iterator[PeerProxy]:
    with PeerProxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def daemons(proxy: PeerProxy, module_fleet: Fleet) -> dict[str, Daemon]:
    """`source` is reached by the proxy."""
    module_fleet.start_master(constants=GONE_SOON)
    for name, arguments in {"source": ("--advertise", proxy.address), "reader": ()}.items():
        daemon = module_fleet.new_client(name, *arguments)
        daemon.constants = SOON
        module_fleet.start(daemon, "--join", module_fleet.join_token.encode())
    proxy.target_port = listening_port(module_fleet.daemons["source"])
    return module_fleet.daemons


@pytest.fixture
def fleet(module_fleet: Fleet, daemons: dict[str, Daemon]) -> Iterator[Fleet]:
    yield module_fleet
    module_fleet.check_logs()


def upload(fleet: Fleet, name: str, seed: int) -> tuple[Path, Path]:
    """A new file on `source`; return it and its tracker file."""
    source = fleet.daemons["source"]
    content = make_file(source.home / name, SIZE, seed=seed)
    tracker = content.with_name(f"{name}.tracker")
    fleet.ask(source, lambda client: client.upload(content, tracker=tracker))
    return content, tracker


def replicas(fleet: Fleet, tracker: Path) -> int:
    """How many hosts have all of a file, by what the master says."""
    return fleet.ask(fleet.daemons["source"], lambda client: client.stat(tracker)).replicas.complete


def remove(fleet: Fleet, name: str) -> float:
    """Type `interfiles hosts remove NAME`; return when it was done."""
    fleet.cli(None, "hosts", "remove", name, "--state", str(fleet.master.state)).done  # noqa: B018 - it raises
    return time.monotonic()


def test_the_ca_is_rotated_while_a_file_travels_and_the_older_one_goes(fleet: Fleet, proxy: PeerProxy) -> None:
    content, tracker = upload(fleet, "rotated", seed=1)
    reader = fleet.daemons["reader"]
    proxy.allow(SIZE // 2)
    command = fleet.begin_cli(reader, "download", "-p", str(tracker), "--json")
    poll(lambda: proxy.passed.total() == SIZE // 2, "half of the file to pass")
    (link,) = proxy.links

    (before,) = fleet.administer(lambda admin: admin.authorities())
    newest, older = fleet.administer(lambda admin: admin.rotate_authority())
    assert older.digest == before.digest
    poll(lambda: len(fleet.administer(lambda admin: admin.authorities())) == 1, "both hosts to renew", timeout_s=10)
    (left,) = fleet.administer(lambda admin: admin.authorities())
    assert (left.digest, left.hosts) == (newest.digest, ["reader", "source"])

    proxy.allow(None)
    assert fleet.finish_cli(command).done.json["pieces_rejected"] == 0
    assert differences(content, reader.home / content.name) == []
    assert proxy.links == [link], "the transfer went on by the connection that it had"
    for name in ("source", "reader"):
        assert "certificate renewed" in fleet.daemons[name].logged
    fleet.forget_token()  # it names the older CA


def test_a_removed_host_that_fetches_is_cut_off_and_gets_no_more(fleet: Fleet) -> None:
    _, tracker = upload(fleet, "coveted", seed=2)
    source = fleet.daemons["source"]
    file_id = fleet.ask(source, lambda client: client.stat(tracker)).id
    blocks_at: list[float] = []
    with Member(fleet, "greedy") as member, ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(
            member.run,
            lambda: member.fetch_for_ever(source, file_id, lambda: blocks_at.append(time.monotonic())),
        )
        poll(lambda: len(blocks_at) > 20, "blocks to come")
        removed_at = remove(fleet, "greedy")
        assert isinstance(fetching.exception(timeout=CUT_WITHIN_S), PeerGone)
        assert blocks_at[-1] - removed_at < CUT_WITHIN_S
        with pytest.raises(NotAdmitted):
            member.served_pieces(source, file_id, count=1)
    assert "greedy" not in {host.name for host in fleet.ask(source, lambda client: client.hosts())}


def test_a_removed_host_that_serves_is_cut_off_and_the_file_comes_from_others(fleet: Fleet) -> None:
    content, tracker = upload(fleet, "served", seed=3)
    source, reader = fleet.daemons["source"], fleet.daemons["reader"]
    fleet.ask(source, lambda client: client.pause(tracker))
    with Member(fleet, "slow", is_linked=True) as member:
        member.claim(tracker, content, Slow(0.2))
        command = fleet.begin_cli(reader, "download", "-p", str(tracker), "--json")
        poll(lambda: member.served and member.served[0].answers > 4, "the transfer to run")
        removed_at = remove(fleet, "slow")
        poll(lambda: member.served[0].ended_at is not None, "the reader to end it", timeout_s=CUT_WITHIN_S)
        assert member.served[0].ended_at is not None
        assert member.served[0].ended_at - removed_at < CUT_WITHIN_S
        fleet.ask(source, lambda client: client.resume(tracker))
        report = fleet.finish_cli(command).done.json
    assert differences(content, reader.home / content.name) == []
    assert report["bytes_from_peers"]["source"] > 0
    assert report["pieces_rejected"] == 0


def test_a_removed_host_joins_again_with_its_state_and_has_its_name_its_files_and_its_downloads(
    fleet: Fleet, proxy: PeerProxy
) -> None:
    had, had_tracker = upload(fleet, "had", seed=4)
    begun, begun_tracker = upload(fleet, "begun", seed=5)
    reader = fleet.daemons["reader"]
    fleet.ask(reader, lambda client: client.download(had_tracker, directory=reader.home))
    proxy.allow(proxy.passed.total() + SIZE // 2)
    command = fleet.begin_cli(reader, "download", "-p", str(begun_tracker))
    poll(lambda: fleet.ask(reader, lambda client: client.stat(begun_tracker)).local.pieces, "some of it to come")
    former = fleet.ask(reader, lambda client: client.status()).host

    remove(fleet, "reader")
    assert fleet.cli(reader, "hosts").code == 7, "it is told that it was removed"
    assert "reader" not in {h.name for h in fleet.ask(fleet.daemons["source"], lambda client: client.hosts())}
    assert fleet.stop(reader) == 0
    fleet.finish_cli(command)
    proxy.allow(None)
    fleet.start(reader, "--join", fleet.join_token.encode())

    status = fleet.ask(reader, lambda client: client.status())
    assert status.name == "reader"
    assert status.host != former
    fleet.ask(reader, lambda client: client.wait(begun_tracker))  # nobody tells it to go on
    for content, tracker in ((had, had_tracker), (begun, begun_tracker)):
        assert differences(content, reader.home / content.name) == []
        poll(lambda: replicas(fleet, tracker) == 2, "the master to count its copy")  # noqa: B023 - called at once
    file = fleet.ask(reader, lambda client: client.stat(had_tracker))
    with Member(fleet, "visitor") as visitor:
        assert visitor.served_pieces(reader, file.id, file.pieces) == PieceSet.full(file.pieces), "it serves again"
