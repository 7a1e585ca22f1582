"""What every transport does alike: TCP, Unix sockets, memory, and TLS over them."""

import hashlib
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from interfiles.errors import AddressInUse, ConnectFailed, ContentChanged, PeerGone, PeerSilent
from interfiles.transport.base import Address, Transport
from tests.transport.setups import (
    Ends,
    Memory,
    Setup,
    Tcp,
    Unix,
    flood,
    receive_exactly,
)

LARGE = random.Random(7).randbytes(9 << 20)


@pytest.fixture(params=[Tcp, Unix, Memory], ids=["tcp", "unix", "memory"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Setup:
    """Those that listen themselves."""
    made: Setup = request.param(tmp_path)
    return made


@pytest.fixture(params=[Tcp, Memory], ids=["tcp", "memory"])
def internet(request: pytest.FixtureRequest, tmp_path: Path) -> Tcp | Memory:
    made: Tcp | Memory = request.param(tmp_path)
    return made


@pytest.fixture
def content(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(LARGE)
    return path


async def in_both_directions(ends: Ends, exchange: Callable[[Transport, Transport], Awaitable[None]]) -> None:
    await exchange(ends[0], ends[1])
    await exchange(ends[1], ends[0])


class TestBytes:
    async def test_they_arrive_whole_and_in_order_in_both_directions(self, ends: Ends) -> None:
        async def exchange(a: Transport, b: Transport) -> None:
            for part in (b"one", memoryview(b"two"), b"", b"three"):
                await a.send_all(part)
            assert await receive_exactly(b, 11) == b"onetwothree"

        await in_both_directions(ends, exchange)

    async def test_a_small_buffer_loses_nothing(self, ends: Ends) -> None:
        await ends[0].send_all(b"0123456789")
        assert [await receive_exactly(ends[1], 1) for _ in range(10)] == [b"%d" % i for i in range(10)]

    @pytest.mark.parametrize("at_once", [999, 1 << 16, 1 << 20])
    async def test_more_than_any_buffer_holds_goes_through(self, ends: Ends, at_once: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends[0].send_all, LARGE)
            got = await receive_exactly(ends[1], len(LARGE), at_once=at_once)
        assert hashlib.sha256(got).digest() == hashlib.sha256(LARGE).digest()

    async def test_both_ends_can_flood_each_other(self, ends: Ends) -> None:
        received = []

        async def receive(transport: Transport) -> None:
            received.append(await receive_exactly(transport, len(LARGE)))

        async with trio.open_nursery() as nursery:
            for end in ends:
                nursery.start_soon(end.send_all, LARGE)
                nursery.start_soon(receive, end)
        assert received == [LARGE, LARGE]

    async def test_both_ends_can_wait_with_the_same_buffer(self, ends: Ends) -> None:
        buffer, received = memoryview(bytearray(10)), {}

        async def receive(transport: Transport) -> None:
            count = await transport.receive_some_into(buffer)
            received[transport] = bytes(buffer[:count])

        async with trio.open_nursery() as nursery:
            for end in ends:
                nursery.start_soon(receive, end)
            await ends[0].send_all(b"to the one")
            await ends[1].send_all(b"to other")
        assert [received[end] for end in ends] == [b"to other", b"to the one"]


class TestSendFile:
    @pytest.mark.parametrize("head", [b"", b"head", b"long" * 2500])
    @pytest.mark.parametrize(
        ("offset", "count"), [(0, len(LARGE)), (0, 1), (len(LARGE) - 1, 1), (12_345, 3_000_000), (5, 0)]
    )
    async def test_a_span_arrives_after_its_head_and_nothing_more(
        self, ends: Ends, content: Path, offset: int, count: int, head: bytes
    ) -> None:
        async def send() -> None:
            with content.open("rb") as file:
                await ends[0].send_file(file.fileno(), offset, count, head=head)
                assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 0, "the file's own position is nobody's business"
            await ends[0].send_all(b"end")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            got = await receive_exactly(ends[1], len(head) + count + 3)
        assert got == head + LARGE[offset : offset + count] + b"end"

    @pytest.mark.parametrize("missing", [1, 1 << 20])
    async def test_a_file_that_is_too_short_is_a_changed_one(self, ends: Ends, content: Path, missing: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_exactly, ends[1], 1 << 20)
            with content.open("rb") as file, pytest.raises(ContentChanged, match=f"ends {missing} bytes too early"):
                await ends[0].send_file(file.fileno(), len(LARGE) - (1 << 20), (1 << 20) + missing)

    async def test_an_empty_file_is_too_short_for_a_byte(self, ends: Ends, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        with (tmp_path / "empty").open("rb") as file, pytest.raises(ContentChanged):
            await ends[0].send_file(file.fileno(), 0, 1)

    async def test_it_fails_when_the_peer_is_gone(self, ends: Ends, content: Path) -> None:
        async def send(fd: int) -> None:
            while True:
                await ends[0].send_file(fd, 0, len(LARGE))

        ends[1].close()
        with content.open("rb") as file, pytest.raises(PeerGone):
            await send(file.fileno())


class TestEnds:
    async def test_what_was_sent_before_the_close_arrives_and_then_the_end(self, ends: Ends) -> None:
        await ends[0].send_all(b"last words")
        ends[0].close()
        assert await receive_exactly(ends[1], 100) == b"last words"
        for _ in range(3):
            assert await ends[1].receive_some_into(memoryview(bytearray(10))) == 0

    async def test_sending_to_a_peer_that_closed_fails(self, ends: Ends) -> None:
        ends[1].close()
        with pytest.raises(PeerGone, match="the connection broke"):
            await flood(ends[0])

    async def test_the_close_of_a_peer_wakes_a_sender(self, ends: Ends) -> None:
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(PeerGone):
                    await flood(ends[0])

            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            ends[1].close()

    async def test_a_broken_connection_fails_both_ways(self, setup: Setup, ends: Ends) -> None:
        await ends[0].send_all(b"unread")
        setup.break_connection(ends[1])
        with pytest.raises(PeerGone):
            await flood(ends[0])
        with pytest.raises(PeerGone):
            assert await ends[1].receive_some_into(memoryview(bytearray(10)))

    async def test_a_break_wakes_a_receiver(self, setup: Setup, ends: Ends) -> None:
        await ends[0].send_all(b"unread")

        async def receive() -> None:
            with pytest.raises(PeerGone):
                await receive_exactly(ends[0], 1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            setup.break_connection(ends[1])

    async def test_an_end_that_was_closed_here_is_good_for_nothing(self, ends: Ends, content: Path) -> None:
        ends[0].close()
        ends[0].close()
        with pytest.raises(PeerGone, match="this end closed the connection"):
            await ends[0].receive_some_into(memoryview(bytearray(10)))
        with pytest.raises(PeerGone, match="this end closed the connection"):
            await ends[0].send_all(b"x")
        with content.open("rb") as file, pytest.raises(PeerGone, match="this end closed the connection"):
            await ends[0].send_file(file.fileno(), 0, 1)

    @pytest.mark.parametrize("work", ["receive", "send"])
    async def test_closing_while_another_task_waits_wakes_it(self, ends: Ends, work: str) -> None:
        async def wait() -> None:
            with pytest.raises(PeerGone, match="this end closed the connection"):
                await (flood(ends[0]) if work == "send" else receive_exactly(ends[0], 1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            ends[0].close()


@pytest.fixture
def leaping_clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """Virtual time that leaps only once real sockets are at rest: what the kernel has under way takes time."""
    autojump_clock.autojump_threshold = 0.1
    return autojump_clock


class TestTime:
    async def test_a_cancelled_receive_loses_nothing(self, ends: Ends) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive_exactly, ends[1], 1)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        await ends[0].send_all(b"still here")
        assert await receive_exactly(ends[1], 10) == b"still here"

    async def test_a_send_that_waits_can_be_cancelled(self, ends: Ends, content: Path) -> None:
        with content.open("rb") as file, trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ends[0].send_file, file.fileno(), 0, len(LARGE))
                nursery.start_soon(ends[1].send_all, LARGE)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught

    async def test_a_receiver_that_never_reads_is_given_up(
        self, ends: Ends, leaping_clock: trio.testing.MockClock
    ) -> None:
        began = trio.current_time()
        with pytest.raises(PeerSilent, match="the peer took nothing for 60 s"):
            await flood(ends[0])
        assert trio.current_time() - began == pytest.approx(60)

    async def test_a_receiver_that_reads_now_and_then_is_not(
        self, ends: Ends, leaping_clock: trio.testing.MockClock
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends[0].send_all, LARGE)
            got = b""
            while len(got) < len(LARGE):
                await trio.sleep(50)
                got += await receive_exactly(ends[1], min(5 << 20, len(LARGE) - len(got)))
        assert got == LARGE


class TestListening:
    async def test_many_dial_and_each_gets_a_connection_of_its_own(self, listening: Setup) -> None:
        listener = await listening.listen()
        dialled = [await listening.dial(listener) for _ in range(20)]
        for number, end in enumerate(dialled):
            await end.send_all(b"%2d" % number)
        accepted = [await listener.accept() for _ in range(20)]
        assert [await receive_exactly(end, 2) for end in accepted] == [b"%2d" % number for number in range(20)]
        for end in [*dialled, *accepted]:
            end.close()
        listener.close()

    async def test_accept_can_be_cancelled(self, listening: Setup) -> None:
        listener = await listening.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.accept)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        listener.close()

    async def test_a_closed_listener_accepts_nothing_and_says_so(self, listening: Setup) -> None:
        listener = await listening.listen()

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            await trio.testing.wait_all_tasks_blocked()
            listener.close()
            listener.close()
        await accept()

    async def test_who_waits_at_a_listener_that_closes_is_cut_off(self, listening: Setup) -> None:
        listener = await listening.listen()
        dialled = await listening.dial(listener)
        listener.close()
        try:
            assert await receive_exactly(dialled, 1) == b""
        except PeerGone:
            pass
        dialled.close()


class TestAddresses:
    async def test_both_ends_know_where_the_other_is(self, internet: Tcp | Memory) -> None:
        listener = await internet.listen()
        dialled, accepted = await internet.dial(listener), await listener.accept()
        assert dialled.remote == listener.address
        assert accepted.remote is not None
        assert accepted.remote.host == {"Tcp": "127.0.0.1", "Memory": "10.0.0.1"}[type(internet).__name__]
        assert accepted.remote.port > 0
        for end in (dialled, accepted, listener):
            end.close()

    async def test_port_0_is_any_free_one(self, internet: Tcp | Memory) -> None:
        first, second = await internet.listen(), await internet.listen()
        assert 0 < first.address.port != second.address.port > 0
        first.close()
        second.close()

    async def test_a_port_that_is_taken_is_refused_in_words(self, internet: Tcp | Memory) -> None:
        listener = await internet.listen()
        network = internet.network if isinstance(internet, Tcp) else internet.cables.host("10.0.0.2")
        with pytest.raises(AddressInUse, match=f"{listener.address} is in use by another program; .* --listen"):
            await network.listen(listener.address)
        listener.close()
        (await network.listen(listener.address)).close()

    async def test_an_address_that_is_not_this_hosts_is_refused_in_words(self, internet: Tcp | Memory) -> None:
        with pytest.raises(AddressInUse, match=r"address 192\.0\.2\.1:0 cannot be used"):
            await internet.network.listen(Address("192.0.2.1", 0))

    async def test_dialling_where_nobody_listens_fails(self, internet: Tcp | Memory) -> None:
        listener = await internet.listen()
        listener.close()
        with pytest.raises(ConnectFailed, match=f"^cannot connect to {listener.address}: Connection refused$"):
            await internet.network.dial(listener.address)
