"""Addresses that the master, or a host through it, would like this host to knock at."""

import random
import re
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import ConnectFailed
from interfiles.transport.base import Address
from interfiles.transport.memory import MemoryHost, MemoryNetwork
from interfiles.transport.memory_pipe import MemoryTransport
from interfiles.wire import master_messages as m
from tests.conftest import LogRecords
from tests.daemons.client.certificates import fleet_network
from tests.daemons.client.peers import Server, serving
from tests.daemons.client.scripted_master import saying
from tests.daemons.client.setting import DAEMON, DAEMON_IP, MASTER, MASTER_IP, id_of, link, until
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, a_file

REFUSED = {
    str(DAEMON): "it is this host's own address",
    str(MASTER): "it is the master's address",
    "127.0.0.1:22": "a loopback address leads to this host itself",
    "127.8.9.10:4851": "a loopback address leads to this host itself",
    "[::1]:4851": "a loopback address leads to this host itself",
    "[::ffff:127.0.0.1]:4851": "a loopback address leads to this host itself",
    f"[::ffff:{MASTER_IP}]:4850": "it is the master's address",
    f"[::ffff:{DAEMON_IP}]:4851": "it is this host's own address",
    "169.254.169.254:80": "it is a link-local address",
    "[::ffff:169.254.169.254]:80": "it is a link-local address",
    "[fe80::1]:4851": "it is a link-local address",
    "224.0.0.1:4851": "no host can have such an address",
    "255.255.255.255:4851": "no host can have such an address",
    "0.0.0.0:4851": "no host can have such an address",
    "[::]:4851": "no host can have such an address",
    "localhost:22": "is no IP address",
    "2130706433:22": "is no IP address",
    "": "is not an address",
    "10.0.0.9:99999": "is over 65535",
}


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[Address]:
    """Every address that the daemon's host connects to."""
    made: list[Address] = []
    connect = MemoryNetwork.connect

    async def watch(self: MemoryNetwork, dialler: MemoryHost, address: Address) -> MemoryTransport:
        if dialler.name == DAEMON_IP:
            made.append(address)
        return await connect(self, dialler, address)

    monkeypatch.setattr(MemoryNetwork, "connect", watch)
    return made


@pytest.fixture
def large(tmp_path: Path) -> Content:
    return a_file(tmp_path / "original" / "weights.bin", size=12 * PIECE)


async def test_addresses_that_lead_nowhere_or_to_somebody_else_are_not_dialled(
    world: World, large: Content, log_records: LogRecords, dialled: list[Address], autojump_clock: MockClock
) -> None:
    honest = Server(world, large, "honest")
    world.network.set_link(honest.ip, link(rate=0.2e6))
    await world.daemon.download(large.manifest, detach=True)
    await serving(world, honest)
    strange = list(REFUSED)
    for start in range(0, len(strange), 6):  # fewer than are tried at once
        some = [m.PeerAddress(id_of(address), "strange", "", address, True) for address in strange[start : start + 6]]
        await world.master.hand_out(large.manifest.file_id, *some, honest.peer)
        await trio.sleep(2)
    report = await world.daemon.wait(large.manifest)
    assert report.bytes_from_peers == {"honest": large.manifest.size}
    assert set(dialled) == {MASTER, Address(honest.ip, 4851)}, "and nobody else"
    lines = [record for record in log_records.records if record.get("task") == "fetching from strange"]
    assert {line["level"] for line in lines} == {"info"}
    reasons = {line["reason"] for line in lines}
    assert len(reasons) == len(REFUSED)
    for words in REFUSED.values():
        assert any(words in reason for reason in reasons), words


async def test_this_host_is_not_its_own_peer(
    world: World, large: Content, log_records: LogRecords, dialled: list[Address], autojump_clock: MockClock
) -> None:
    honest = Server(world, large, "honest")
    await world.daemon.download(large.manifest, detach=True)
    await serving(world, honest)
    itself = m.PeerAddress(id_of("tested"), "itself", "", "10.9.9.9:1", True)
    await world.master.hand_out(large.manifest.file_id, itself, honest.peer)
    await world.daemon.wait(large.manifest)
    assert set(dialled) == {MASTER, Address(honest.ip, 4851)}
    assert not [record for record in log_records.records if record.get("task") == "fetching from itself"]


async def test_nothing_that_is_remembered_is_dialled_either(
    world: World, large: Content, log_records: LogRecords, dialled: list[Address], autojump_clock: MockClock
) -> None:
    """Peers are kept for a restart without the master: what was refused before is refused then."""
    strange = [m.PeerAddress(id_of(address), "strange", "", address, True) for address in list(REFUSED)[:12]]
    await world.daemon.download(large.manifest, detach=True)
    await world.master.hand_out(large.manifest.file_id, *strange)
    await trio.sleep(1)
    world.master.scope.cancel()
    await world.daemon.restart()
    await trio.sleep(60)
    mapped = Address(f"::ffff:{DAEMON_IP}", 4851)
    assert set(dialled) == {MASTER, DAEMON, mapped}, "where it is itself, the master tells it"
    lines = [record for record in log_records.records if record.get("task") == "fetching from strange"]
    assert any(re.search(r"answers host \w+ of fleet f1f1, not host", line["reason"]) for line in lines), "it finds out"


async def test_where_the_master_says_that_this_host_is_does_not_keep_it_from_others(
    world: World, large: Content, dialled: list[Address], autojump_clock: MockClock
) -> None:
    """A master can do no more with a wrong address than hide the peer that has it."""
    honest = Server(world, large, "honest")
    world.master.answer = saying(m.Register, m.Registered("tested", "10.9.9.9:4851", 10.0, 3))
    world.network.cut(DAEMON_IP, MASTER_IP)
    await until(lambda: len(world.master.connections) == 2)
    await trio.sleep(1)
    await world.daemon.download(large.manifest, detach=True)
    hidden = m.PeerAddress(id_of("hidden"), "hidden", "", "10.9.9.9:4851", True)
    await serving(world, honest)
    await world.master.hand_out(large.manifest.file_id, hidden, honest.peer)
    await world.daemon.wait(large.manifest)
    assert Address("10.9.9.9", 4851) not in dialled


async def test_a_master_that_names_no_address_is_left_and_tried_again(world: World, autojump_clock: MockClock) -> None:
    world.master.answer = saying(m.Register, m.Registered("tested", "", 10.0, 3))
    world.network.cut(DAEMON_IP, MASTER_IP)
    await until(lambda: len(world.master.connections) == 3)
    assert "is not an address" in (await world.daemon.status()).master_note
    world.master.answer = None
    await until(lambda: _connected(world))


async def _connected(world: World) -> bool:
    return (await world.daemon.status()).master_state == "connected"


async def test_what_is_not_dialled_is_told_by_its_type(autojump_clock: MockClock, dialled: list[Address]) -> None:
    network = fleet_network(MemoryNetwork(random.Random(1)), "me", DAEMON_IP)
    for address in ("127.0.0.1:22", "169.254.169.254:80", str(MASTER)):
        with pytest.raises(ConnectFailed, match="is not dialled"):
            await network.dial_host(Address.parse(address), id_of("other"))
    assert not dialled
