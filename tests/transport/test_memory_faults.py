"""Faults of the network in memory: partitions, cuts and crashes are seen by whom they should be, and by nobody else."""

import random

import pytest
import trio
import trio.testing

from interfiles.errors import AddressInUse, ConnectFailed, PeerGone, PeerSilent
from interfiles.transport.base import Address, Transport
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.memory_links import Link
from tests.transport.setups import connect, flood, is_silent, receive_exactly

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"

Clock = trio.testing.MockClock


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork(random.Random(1))


class TestPartition:
    async def test_bytes_are_held_back_and_arrive_after_it(self, autojump_clock: Clock, network: MemoryNetwork) -> None:
        a, b = await connect(network, A, B)
        network.partition(A, B)
        await a.send_all(b"held")
        assert await is_silent(b)
        network.heal(A, B)
        assert await receive_exactly(b, 4) == b"held"

    async def test_healing_wakes_who_waits(self, autojump_clock: Clock, network: MemoryNetwork) -> None:
        a, b = await connect(network, A, B)
        network.partition(B, A)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_exactly, b, 300_000)
            nursery.start_soon(a.send_all, bytes(300_000))
            await trio.sleep(30)
            network.heal(A, B)
        assert trio.current_time() == 30

    async def test_the_end_of_a_connection_is_held_back_too(
        self, autojump_clock: Clock, network: MemoryNetwork
    ) -> None:
        a, b = await connect(network, A, B)
        network.partition(A, B)
        a.close()
        assert await is_silent(b)
        await b.send_all(b"nobody hears this")
        network.heal(A, B)
        assert await receive_exactly(b, 1) == b""
        with pytest.raises(PeerGone):
            await b.send_all(b"x")

    async def test_a_long_one_ends_in_silence_for_the_sender(
        self, autojump_clock: Clock, network: MemoryNetwork
    ) -> None:
        a, _ = await connect(network, A, B)
        network.partition(A, B)
        with pytest.raises(PeerSilent):
            await flood(a)
        assert trio.current_time() == 60

    async def test_dialling_waits_for_its_end_but_not_for_ever(
        self, autojump_clock: Clock, network: MemoryNetwork
    ) -> None:
        listener = await network.host(B).listen(Address(B, 0))
        network.partition(A, B)
        with pytest.raises(ConnectFailed, match="does not answer within 10 s"):
            await network.host(A).dial(listener.address)
        assert trio.current_time() == 10
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.host(A).dial, listener.address)
            await trio.sleep(9)
            network.heal(A, B)
        assert trio.current_time() == 19

    async def test_others_go_on(self, autojump_clock: Clock, network: MemoryNetwork) -> None:
        a, c = await connect(network, A, C)
        network.partition(A, B)
        await a.send_all(b"x")
        assert await receive_exactly(c, 1) == b"x"


class TestCut:
    async def test_connections_between_the_two_break_and_new_ones_can_be_made(
        self, autojump_clock: Clock, network: MemoryNetwork
    ) -> None:
        ends, other = await connect(network, A, B), await connect(network, A, C)
        network.cut(B, A)
        for end in ends:
            with pytest.raises(PeerGone, match="Connection reset by peer"):
                await end.send_all(b"x")
            with pytest.raises(PeerGone, match="Connection reset by peer"):
                await end.receive_some_into(memoryview(bytearray(1)))
        await other[0].send_all(b"x")
        assert await receive_exactly(other[1], 1) == b"x"
        await connect(network, A, B)


class TestCrash:
    async def test_peers_see_it_at_once_and_so_does_the_host(
        self, autojump_clock: Clock, network: MemoryNetwork
    ) -> None:
        a, b = await connect(network, A, B)
        seen: list[str] = []

        async def receive(name: str, end: Transport) -> None:
            with pytest.raises(PeerGone):
                await end.receive_some_into(memoryview(bytearray(1)))
            seen.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, "a", a)
            nursery.start_soon(receive, "b", b)
            await trio.testing.wait_all_tasks_blocked()
            network.crash(B)
        assert sorted(seen) == ["a", "b"]
        assert trio.current_time() == 0
        with pytest.raises(PeerGone):
            await a.send_all(b"x")

    async def test_a_silent_one_is_silence_for_its_peers(self, autojump_clock: Clock, network: MemoryNetwork) -> None:
        a, b = await connect(network, A, B)
        await b.send_all(b"lost with the host")
        network.crash(B, silent=True)
        with pytest.raises(PeerGone):
            await b.send_all(b"x")
        with pytest.raises(PeerGone):
            await b.receive_some_into(memoryview(bytearray(1)))
        assert await is_silent(a, for_s=1000)
        with pytest.raises(PeerSilent):
            await flood(a)

    async def test_a_crash_behind_a_partition_is_seen_after_it(
        self, autojump_clock: Clock, network: MemoryNetwork
    ) -> None:
        a, b = await connect(network, A, B)
        network.partition(A, B)
        network.crash(B)
        with pytest.raises(PeerGone):
            await b.receive_some_into(memoryview(bytearray(1)))
        assert await is_silent(a)
        network.heal(A, B)
        with pytest.raises(PeerGone, match="the peer's host went down"):
            await a.receive_some_into(memoryview(bytearray(1)))

    async def test_who_listens_gets_nothing_more(self, autojump_clock: Clock, network: MemoryNetwork) -> None:
        listener = await network.host(B).listen(Address(B, 4850))
        waiting = await network.host(A).dial(listener.address)
        network.crash(B)
        with pytest.raises(PeerGone):
            await receive_exactly(waiting, 1)
        with trio.move_on_after(1000) as scope:
            await listener.accept()
        assert scope.cancelled_caught

    async def test_the_hosts_own_view_is_dead_for_good(self, autojump_clock: Clock, network: MemoryNetwork) -> None:
        old = network.host(B)
        listener = await network.host(A).listen(Address(A, 4850))
        network.crash(B)
        network.host(B)
        with pytest.raises(ConnectFailed, match="this host is down"):
            await old.dial(listener.address)
        with pytest.raises(AddressInUse):
            await old.listen(Address(B, 0))

    @pytest.mark.parametrize("silent", [False, True])
    async def test_started_again_it_listens_at_its_old_address(
        self, autojump_clock: Clock, network: MemoryNetwork, silent: bool
    ) -> None:
        old_listener = await network.host(B).listen(Address(B, 4850))
        network.crash(B, silent=silent)
        with pytest.raises(ConnectFailed, match="does not answer" if silent else "refused"):
            await network.host(A).dial(Address(B, 4850))
        assert trio.current_time() == (10 if silent else 0)
        listener = await network.host(B).listen(Address(B, 4850))
        old_listener.close()
        dialled = await network.host(A).dial(Address(B, 4850))
        accepted = await listener.accept()
        await dialled.send_all(b"x")
        assert await receive_exactly(accepted, 1) == b"x"

    async def test_who_dials_while_it_crashes_fails(self, autojump_clock: Clock, network: MemoryNetwork) -> None:
        listener = await network.host(B).listen(Address(B, 4850))
        network.set_link(A, Link(latency_s=0.5))

        async def dial() -> None:
            with pytest.raises(ConnectFailed, match="Connection refused"):
                await network.host(A).dial(listener.address)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial)
            await trio.sleep(0.5)
            network.crash(B)
