"""Waiting until there is something to receive, on every transport."""

from pathlib import Path

import pytest
import trio
import trio.testing

from interfiles.errors import PeerGone
from tests.transport.setups import Ends, Setup, Tcp, TlsOverTcp, Unix, connected, receive_exactly


async def test_one_waits_until_there_is_something_and_then_it_is_there(ends: Ends) -> None:
    got = []

    async def wait() -> None:
        await ends[1].wait_readable()
        got.append(await receive_exactly(ends[1], 5))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await ends[0].send_all(b"there")
    assert got == [b"there"]


@pytest.mark.parametrize("make", [Tcp, Unix, TlsOverTcp], ids=["tcp", "unix", "tls-tcp"])
async def test_a_socket_that_is_known_to_be_empty_wakes_nobody(make: type[Setup], tmp_path: Path) -> None:
    sender, receiver = await connected(make(tmp_path))  # type: ignore[call-arg]
    await sender.send_all(b"before")
    assert await receiver.receive_some_into(memoryview(bytearray(99))) == 6
    woken = trio.Event()

    async def wait() -> None:
        await receiver.wait_readable()
        woken.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not woken.is_set()
        await sender.send_all(b"after")
    assert await receive_exactly(receiver, 5) == b"after"
    for end in (sender, receiver):
        end.close()


async def test_what_is_left_of_what_came_is_not_waited_for(ends: Ends) -> None:
    await ends[0].send_all(b"0123456789")
    for digit in b"0123456789":
        with trio.fail_after(5):
            await ends[1].wait_readable()
            assert await receive_exactly(ends[1], 1) == bytes([digit])


async def test_the_end_is_something(ends: Ends) -> None:
    ends[0].close()
    with trio.fail_after(5):
        await ends[1].wait_readable()
        assert await ends[1].receive_some_into(memoryview(bytearray(1))) == 0


async def test_an_end_that_was_closed_here_is_good_for_nothing(ends: Ends) -> None:
    ends[0].close()

    async def receive() -> None:
        await ends[0].wait_readable()
        await ends[0].receive_some_into(memoryview(bytearray(1)))

    with pytest.raises(PeerGone, match="this end closed the connection"):
        await receive()


async def test_a_promise_does_not_keep_little_waiting(tmp_path: Path) -> None:
    sender, receiver = await connected(Tcp(tmp_path))
    receiver.promise(1 << 20)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receiver.wait_readable)
            await trio.testing.wait_all_tasks_blocked()
            await sender.send_all(b"x")
    for end in (sender, receiver):
        end.close()


async def test_it_always_lets_others_have_their_turn(ends: Ends) -> None:
    await ends[0].send_all(b"x")
    for _ in range(2):
        with trio.testing.assert_checkpoints():
            await ends[1].wait_readable()


async def test_a_cancelled_one_loses_nothing(ends: Ends) -> None:
    with trio.move_on_after(0):
        await ends[1].wait_readable()
    await ends[0].send_all(b"still here")
    assert await receive_exactly(ends[1], 10) == b"still here"
