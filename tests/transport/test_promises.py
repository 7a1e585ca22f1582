"""A receiver that knows how much more comes wakes rarely; a sender lets the system hold little that is unsent."""

import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from interfiles.transport import plain
from interfiles.transport.plain import SocketTransport
from tests.transport.setups import Tcp, connected
from tests.transport.tls_ends import Cut, cable, run_in_virtual_time, secured

KIB = 1 << 10


@pytest.fixture
async def ends(tmp_path: Path) -> AsyncIterator[tuple[SocketTransport, SocketTransport]]:
    """Both ends of a TCP connection."""
    sender, receiver = await connected(Tcp(tmp_path))
    assert isinstance(sender, SocketTransport)
    assert isinstance(receiver, SocketTransport)
    yield sender, receiver
    sender.close()
    receiver.close()


class Receiver:
    """What one call of `receive_some_into` gives, once it returns."""

    def __init__(self, end: SocketTransport) -> None:
        self.got: int | None = None
        self.ended = trio.Event()
        self._end = end

    async def run(self) -> None:
        self.got = await self._end.receive_some_into(memoryview(bytearray(1 << 20)))
        self.ended.set()


async def pending(end: SocketTransport, count: int) -> None:
    """Wait until so many bytes lie in the socket; a peek does not look at what was promised."""
    while True:
        try:
            if len(end.socket.recv(1 << 20, socket.MSG_PEEK)) >= count:
                return
        except BlockingIOError:
            pass
        await trio.sleep(0.001)


async def test_little_of_much_that_was_promised_does_not_wake_the_receiver(
    ends: tuple[SocketTransport, SocketTransport],
) -> None:
    sender, receiver = ends
    receiver.promise(2 * plain.MAX_WAKE_BYTES)
    call = Receiver(receiver)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call.run)
            await trio.testing.wait_all_tasks_blocked()
            await sender.send_all(bytes(KIB))
            await pending(receiver, KIB)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert call.got is None
            nursery.start_soon(sender.send_all, bytes(plain.MAX_WAKE_BYTES))
    assert call.got is not None
    assert call.got >= plain.MAX_WAKE_BYTES


async def test_what_is_left_of_the_promise_wakes_it_and_so_does_anything_without_one(
    ends: tuple[SocketTransport, SocketTransport],
) -> None:
    sender, receiver = ends
    with trio.fail_after(10):
        for promised, sent in ((2 * KIB, 2 * KIB), (0, 1), (-5, 1)):
            receiver.promise(promised)
            call = Receiver(receiver)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call.run)
                await trio.testing.wait_all_tasks_blocked()
                await sender.send_all(bytes(sent))
            assert call.got == sent


async def test_the_end_wakes_whoever_was_promised_more(ends: tuple[SocketTransport, SocketTransport]) -> None:
    sender, receiver = ends
    receiver.promise(plain.MAX_WAKE_BYTES)
    call = Receiver(receiver)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call.run)
            await trio.testing.wait_all_tasks_blocked()
            await sender.send_all(b"abc")
            sender.close()
    assert call.got == 3
    assert await receiver.receive_some_into(memoryview(bytearray(9))) == 0


async def test_the_system_holds_less_unsent_where_the_line_is_slow(
    ends: tuple[SocketTransport, SocketTransport],
) -> None:
    sender, receiver = ends
    for end in (sender, receiver):
        end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)
        end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)

    async def read_slowly() -> None:
        buffer, left = memoryview(bytearray(20 * KIB)), 1 << 20
        while left:
            left -= await receiver.receive_some_into(buffer)
            await trio.sleep(0.01)

    assert unsent_limit(sender) == plain.MAX_UNSENT_BYTES
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_slowly)
            await sender.send_all(bytes(1 << 20))
    at_most = 20 * KIB / 0.01 * plain.UNSENT_S  # what the reader takes in that time
    assert plain.MIN_UNSENT_BYTES <= unsent_limit(sender) <= 2 * at_most


def unsent_limit(end: SocketTransport) -> int:
    return end.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 100_000), min_size=1, max_size=8),
    st.lists(st.sampled_from([21, 1000, 16_000, 16_384 + 22, 1 << 18]), min_size=1, max_size=3),
    st.integers(0, 2**32),
)
def test_tls_promises_nothing_that_does_not_come(lengths: list[int], cuts: list[int], seed: int) -> None:
    """Else the receiver waits for ever: OpenSSL has some of it already, and does not tell."""

    async def exchange() -> None:
        ends = await cable()
        cut = Cut(ends[1], cuts)
        sender, receiver = await secured(ends=(ends[0], cut))
        total, rng = sum(lengths), random.Random(seed)
        cut.promised.clear()

        async def send() -> None:
            for length in lengths:
                await sender.send_all(rng.randbytes(length))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            left = total
            while left:
                receiver.promise(left)
                left -= await receiver.receive_some_into(memoryview(bytearray(min(left, 1 + rng.randrange(200_000)))))
        assert max(cut.promised) <= cut.received

    run_in_virtual_time(exchange)
