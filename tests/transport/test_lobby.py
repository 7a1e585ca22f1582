"""Connections that wait to prove themselves: bounded, and strangers make room for members."""

import random

import trio
import trio.testing

from interfiles.errors import InterFilesError, PeerGone
from interfiles.identity import contexts
from interfiles.transport.base import Address, Transport
from interfiles.transport.listeners import serve
from interfiles.transport.lobby import Lobby
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.tls import TLS_HANDSHAKE_TIMEOUT_S, secure
from tests.conftest import LogRecords
from tests.transport.setups import connect, is_silent, receive_exactly
from tests.transport.tls_ends import ALICES, BOBS

SERVER = Address("10.0.0.2", 4850)


async def pairs(count: int) -> list[tuple[Transport, Transport]]:
    network = MemoryNetwork(random.Random(1))
    return [await connect(network, "10.0.0.1", SERVER.host) for _ in range(count)]


async def test_a_newcomer_takes_the_place_of_who_has_waited_longest() -> None:
    lobby, ends = Lobby(3), await pairs(5)

    async def wait(own: Transport) -> None:
        with lobby.waiting(own):
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for _, own in ends:
            nursery.start_soon(wait, own)
            await trio.testing.wait_all_tasks_blocked()
        assert len(lobby) == 3
        assert [await receive_exactly(peer, 1) for peer, _ in ends[:2]] == [b"", b""]
        assert [await is_silent(peer, for_s=0.01) for peer, _ in ends[2:]] == [True] * 3
        nursery.cancel_scope.cancel()
    assert len(lobby) == 0


async def test_who_has_left_the_lobby_is_never_closed_for_a_newcomer() -> None:
    lobby, ends = Lobby(2), await pairs(20)
    with lobby.waiting(ends[0][1]):
        pass
    for _, own in ends[1:]:
        with lobby.waiting(own):
            assert len(lobby) == 1
    assert await is_silent(ends[0][0], for_s=0.01)


async def test_whoever_fails_leaves_too() -> None:
    lobby, ends = Lobby(2), await pairs(1)
    try:
        with lobby.waiting(ends[0][1]):
            raise PeerGone("over")
    except PeerGone:
        pass
    assert len(lobby) == 0


async def test_a_crowd_is_logged_once_and_again_after_it_was_gone(log_records: LogRecords) -> None:
    lobby = Lobby(4)

    async def wait(own: Transport) -> None:
        with lobby.waiting(own):
            await trio.sleep_forever()

    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _, own in await pairs(10):
                nursery.start_soon(wait, own)
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    warnings = [record for record in log_records.records if record["level"] == "warning"]
    assert [(record["event"], record["waiting"]) for record in warnings] == [("crowded by strangers", 4)] * 2


async def test_members_come_in_past_a_thousand_strangers(autojump_clock: trio.testing.MockClock) -> None:
    """Each stranger says nothing, or half a hello, and holds its connection as long as it can."""
    network, lobby = MemoryNetwork(random.Random(1)), Lobby(64)
    listener = await network.host(SERVER.host).listen(SERVER)
    context, most = contexts.accepting(BOBS), 0

    async def handle(transport: Transport) -> None:
        nonlocal most
        try:
            with lobby.waiting(transport):
                most = max(most, len(lobby))
                secured = await secure(transport, context, accepted=True)
            await secured.send_all(await receive_exactly(secured, 5))
        except InterFilesError:
            pass

    async def stranger(number: int) -> None:
        transport = await network.host(f"10.1.{number // 250}.{number % 250}").dial(SERVER)
        if number % 2:
            await transport.send_all(b"\x16\x03\x01\x02\x00\x01")
        await receive_exactly(transport, 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(listener, handle, max_connections=512))
        for number in range(1000):
            nursery.start_soon(stranger, number)
        await trio.sleep(0.001)
        began = trio.current_time()
        for _ in range(10):
            inner = await network.host("10.0.0.1").dial(SERVER)
            member = await secure(inner, contexts.dialling(ALICES), accepted=False)
            await member.send_all(b"hello")
            assert await receive_exactly(member, 5) == b"hello"
            member.close()
        assert trio.current_time() - began < 1
        await trio.sleep(TLS_HANDSHAKE_TIMEOUT_S + 1)
        assert len(lobby) == 0, "and silence costs them their place"
        nursery.cancel_scope.cancel()
    assert most <= 64
