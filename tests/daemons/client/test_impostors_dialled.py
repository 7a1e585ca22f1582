"""Whoever answers in a host's place is found out before a word is said; the download completes from an honest one."""

import random
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import HandshakeFailed, InterFilesError, NotAdmitted, PeerGone, PeerSilent
from interfiles.identity import contexts
from interfiles.identity.contexts import Credentials
from interfiles.transport.base import Address, Transport
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.tls import TLS_HANDSHAKE_TIMEOUT_S, secure
from interfiles.wire import master_messages as m
from tests.conftest import LogRecords
from tests.daemons.client.certificates import MASTER_SUBJECT, fleet_network, host_credentials, host_subject
from tests.daemons.client.impostors import IMPOSTORS, Impostor
from tests.daemons.client.peers import Server, hand_out
from tests.daemons.client.setting import id_of, link
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, a_file, noise

ADDRESS = Address("10.0.0.9", 4851)
Handler = Callable[[Transport], Awaitable[Transport]]


@asynccontextmanager
async def answering(network: MemoryNetwork, handle: Handler) -> AsyncIterator[list[bytes]]:
    """Answer connections at ADDRESS; what is read from them in the end is kept."""
    heard: list[bytes] = []
    listener = await network.host(ADDRESS.host).listen(ADDRESS)

    async def serve() -> None:
        while True:
            accepted = await listener.accept()
            try:
                transport = await handle(accepted)
                buffer = memoryview(bytearray(4096))
                while count := await transport.receive_some_into(buffer):
                    heard.append(bytes(buffer[:count]))
            except InterFilesError:
                pass
            finally:
                accepted.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield heard
        nursery.cancel_scope.cancel()


def showing(shown: Credentials) -> Handler:
    async def handle(transport: Transport) -> Transport:
        return await secure(transport, contexts.accepting(shown), accepted=True)

    return handle


@pytest.mark.parametrize("impostor", IMPOSTORS.values(), ids=IMPOSTORS)
async def test_an_impostor_is_refused_by_who_dials_it_and_hears_nothing(
    impostor: Impostor, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork(random.Random(1))
    async with answering(network, showing(impostor.shown(host_subject("hostile")))) as heard:
        with pytest.raises(impostor.when_dialled, match=impostor.words) as caught:
            await fleet_network(network, "me", "10.0.0.1").dial_host(ADDRESS, id_of("hostile"))
        assert caught.type is impostor.when_dialled
        await trio.sleep(1)
        assert heard == []
    assert not network._pipes


async def test_a_removed_host_is_not_talked_to(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(random.Random(1))
    async with answering(network, showing(host_credentials("removed"))) as heard:
        me = fleet_network(network, "me", "10.0.0.1", revoked=[id_of("removed")])
        with pytest.raises(NotAdmitted, match=r"host \w+ of fleet f1f1 was removed from the fleet"):
            await me.dial_host(ADDRESS, id_of("removed"))
        me.revoke([], replace=True)
        (await me.dial_host(ADDRESS, id_of("removed"))).close()
        assert heard == []


async def _old(transport: Transport) -> Transport:
    made = contexts.accepting(host_credentials("hostile"))
    made.minimum_version = made.maximum_version = ssl.TLSVersion.TLSv1_2
    return await secure(transport, made, accepted=True)


async def _web(transport: Transport) -> Transport:
    await transport.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    return transport


async def _noise(transport: Transport) -> Transport:
    await transport.send_all(noise(4096))
    return transport


async def _silent(transport: Transport) -> Transport:
    await trio.sleep_forever()
    return transport


async def _gone(transport: Transport) -> Transport:
    transport.close()
    return transport


STRANGE: dict[str, tuple[Handler, type[InterFilesError]]] = {
    "TLS 1.2": (_old, HandshakeFailed),
    "a web server": (_web, HandshakeFailed),
    "noise": (_noise, HandshakeFailed),
    "silent": (_silent, PeerSilent),
    "gone": (_gone, PeerGone),
}


@pytest.mark.parametrize(("handle", "error"), STRANGE.values(), ids=STRANGE)
async def test_what_speaks_no_tls_1_3_is_given_up(
    handle: Handler, error: type[InterFilesError], autojump_clock: MockClock
) -> None:
    network = MemoryNetwork(random.Random(1))
    async with answering(network, handle) as heard:
        with pytest.raises(error) as caught:
            await fleet_network(network, "me", "10.0.0.1").dial_host(ADDRESS, id_of("hostile"))
        assert caught.type is error
        assert trio.current_time() <= TLS_HANDSHAKE_TIMEOUT_S + 2
        assert not any(b"interfiles" in data or b"swarm" in data for data in heard)


NO_MASTERS = {name: impostor for name, impostor in IMPOSTORS.items() if name != "the master's"}


@pytest.mark.parametrize("impostor", NO_MASTERS.values(), ids=NO_MASTERS)
async def test_who_answers_as_the_master_and_is_not_is_refused(impostor: Impostor, autojump_clock: MockClock) -> None:
    network = MemoryNetwork(random.Random(1))
    async with answering(network, showing(impostor.shown(MASTER_SUBJECT))) as heard:
        with pytest.raises(impostor.when_dialled) as caught:
            await fleet_network(network, "me", "10.0.0.1").dial_master(ADDRESS)
        assert caught.type is impostor.when_dialled
        await trio.sleep(1)
        assert heard == []


class Shows(Server):
    """A server with somebody's certificate."""

    impostor: Impostor

    def shows(self) -> Credentials:
        return self.impostor.shown(host_subject(self.name))


@pytest.fixture
def large(tmp_path: Path) -> Content:
    return a_file(tmp_path / "original" / "weights.bin", size=6 * PIECE)


@pytest.mark.parametrize("impostor", IMPOSTORS.values(), ids=IMPOSTORS)
async def test_a_download_completes_beside_an_impostor(
    world: World, large: Content, log_records: LogRecords, impostor: Impostor, autojump_clock: MockClock
) -> None:
    hostile, honest = Shows(world, large, "hostile"), Server(world, large, "honest")
    hostile.impostor = impostor
    world.network.set_link(honest.ip, link(rate=0.2e6))
    await world.daemon.download(large.manifest, detach=True)
    await hand_out(world, hostile, honest)
    report = await world.daemon.wait(large.manifest)
    assert report.bytes_from_peers == {"honest": large.manifest.size}
    assert hostile.opened_at == []
    lines = [record for record in log_records.records if record.get("task") == "fetching from hostile"]
    assert 2 <= len(lines) <= 12, "it is tried again, less and less often"
    assert all(line["level"] == "info" and re.search(impostor.words, line["reason"]) for line in lines)


async def test_a_download_completes_beside_a_removed_host(
    world: World, large: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    removed, honest = Server(world, large, "removed"), Server(world, large, "honest")
    world.network.set_link(honest.ip, link(rate=0.2e6))
    await world.master.push(m.Revoked(False, [removed.host_id]))
    await world.daemon.download(large.manifest, detach=True)
    await hand_out(world, removed, honest)
    report = await world.daemon.wait(large.manifest)
    assert report.bytes_from_peers == {"honest": large.manifest.size}
    assert removed.opened_at == []
    lines = [record for record in log_records.records if record.get("task") == "fetching from removed"]
    assert "was removed from the fleet" in lines[0]["reason"]
