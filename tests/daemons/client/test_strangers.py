"""Crowds at the peer port: who proves nothing makes room, and no single host takes every place."""

import ssl
import tracemalloc
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client.app import MAX_PEER_CONNECTIONS
from daemons.client.peer_server import IDLE_S, MAX_CONNECTIONS_A_HOST, MAX_STRANGERS
from interfiles.errors import InterFilesError, Refused
from interfiles.transport.base import Transport
from interfiles.transport.memory_links import Link
from interfiles.transport.tls import TLS_HANDSHAKE_TIMEOUT_S
from tests.conftest import LogRecords
from tests.daemons.client.certificates import host_credentials
from tests.daemons.client.impostors import without_certificate
from tests.daemons.client.peers import dialled, fetching, honest_copy
from tests.daemons.client.setting import DAEMON
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, a_file

CROWD = 1000
PER_STRANGER_BYTES = 150_000  # a socket's worth of TLS buffers


async def crowd(world: World, count: int, *, ips: int = 1) -> list[Transport]:
    """So many connections, from so many addresses, with nothing said on them."""
    hosts = [world.network.host(world.new_ip()) for _ in range(ips)]
    return [await hosts[number % ips].dial(DAEMON) for number in range(count)]


def close_all(held: Sequence[Transport]) -> None:
    for transport in held:
        transport.close()


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


@pytest.mark.parametrize("ips", [1, 100], ids=["from one address", "from a hundred"])
async def test_a_thousand_silent_connections_leave_members_served(
    world: World, content: Content, log_records: LogRecords, ips: int, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    await honest_copy(world, content)
    async with world.leaving_nothing(within_s=3), fetching(world, file_id) as member:
        tasks_before = tasks()
        tracemalloc.start()
        held = await crowd(world, CROWD, ips=ips)
        await trio.sleep(0.1)
        grown_bytes = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert tasks() - tasks_before <= MAX_STRANGERS + 1
        assert grown_bytes < CROWD * 10_000 + MAX_STRANGERS * PER_STRANGER_BYTES, "most of it the network's in memory"
        began = trio.current_time()
        assert await member.fetch(content) == content.data
        assert await honest_copy(world, content) == content.data
        assert trio.current_time() - began < 1
        await trio.sleep(TLS_HANDSHAKE_TIMEOUT_S + 1)
        assert tasks() - tasks_before <= 1, "they were given up"
        close_all(held)
    crowded = [record for record in log_records.records if record["event"] == "crowded by strangers"]
    assert len(crowded) == 1, "one line for all of them"


async def _begin_handshake(transport: Transport, context: ssl.SSLContext) -> None:
    """Send the first flight, and read nothing."""
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    await transport.send_all(out.read())


async def test_a_crowd_in_the_middle_of_its_handshakes_leaves_members_served(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await honest_copy(world, content)
    context = without_certificate()
    async with world.leaving_nothing(within_s=3):
        held = await crowd(world, 300)
        for transport in held:
            try:
                await _begin_handshake(transport, context)
            except InterFilesError:
                continue  # it had to make room
        assert await honest_copy(world, content) == content.data
        close_all(held)


async def test_newcomers_without_end_keep_no_member_out(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await honest_copy(world, content)
    world.network.set_link(DAEMON.host, Link(latency_s=0.02))  # a handshake takes its time, as on a real network
    held: list[Transport] = []
    async with world.leaving_nothing(within_s=15):
        async with trio.open_nursery() as nursery:
            for _ in range(50):  # a thousand a second
                nursery.start_soon(_keep_dialling, world, held)
            await trio.sleep(0.5)
            assert len(held) > MAX_STRANGERS
            for _ in range(3):
                assert await honest_copy(world, content) == content.data
            nursery.cancel_scope.cancel()
        close_all(held)


async def _keep_dialling(world: World, held: list[Transport]) -> None:
    host = world.network.host(world.new_ip())
    while True:
        held.append(await host.dial(DAEMON))
        await trio.sleep(0.01)


# Members


async def test_a_host_has_so_many_connections_and_no_more(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    async with trio.open_nursery() as nursery:
        refused: list[str] = []

        async def stay() -> None:
            try:
                async with fetching(world, file_id, name="greedy"):
                    await trio.sleep_forever()
            except Refused as e:
                refused.append(str(e))

        for _ in range(MAX_CONNECTIONS_A_HOST + 10):
            nursery.start_soon(stay)
        await trio.sleep(1)
        assert refused == [f"this host has {MAX_CONNECTIONS_A_HOST} connections here already"] * 10
        assert await honest_copy(world, content) == content.data
        nursery.cancel_scope.cancel()
    async with fetching(world, file_id, name="greedy") as fetcher:
        assert await fetcher.fetch(content) == content.data, "once it has closed them it is welcome"


async def test_the_connection_of_a_host_that_was_idle_longest_makes_room_for_another_of_it(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = a_file(tmp_path / "original" / "many", size=16 * PIECE)
    file_id = await world.seed(content)
    await world.daemon.limit(up=content.manifest.size // 60)
    ended: list[int] = []
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:

        async def stay(number: int) -> None:
            async with fetching(world, file_id, name="waiting") as fetcher:
                if number == 0:  # it came first, and is sent to all the time
                    assert await fetcher.fetch(content) == content.data
                    assert trio.current_time() > began + IDLE_S
                else:
                    await fetcher.end()
                ended.append(number)

        began = trio.current_time()
        for number in range(MAX_CONNECTIONS_A_HOST):
            nursery.start_soon(stay, number)
            await trio.sleep(0.1)
        with pytest.raises(Refused):
            await stack.enter_async_context(fetching(world, file_id, name="waiting"))
        await trio.sleep(IDLE_S)
        for number in range(1, 4):
            await stack.enter_async_context(fetching(world, file_id, name="waiting"))
            await trio.sleep(0.1)
            assert ended == list(range(1, number + 1))
        await trio.sleep(60 - IDLE_S)
        assert ended == [1, 2, 3, 0]
        nursery.cancel_scope.cancel()


async def test_a_host_that_connects_without_end_and_says_nothing_keeps_nobody_out(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await honest_copy(world, content)
    shown, ip = host_credentials("greedy"), world.new_ip()
    async with world.leaving_nothing(within_s=15):
        held = [await dialled(world, ip=ip, shown=shown) for _ in range(MAX_PEER_CONNECTIONS + 10)]
        began = trio.current_time()
        assert await honest_copy(world, content) == content.data
        assert trio.current_time() - began < 1
        close_all(held)
