"""Accepting: bounded, and one bad connection harms only itself."""

import errno
import os
import random

import pytest
import trio
import trio.testing

from interfiles.transport.base import Address, Listener, Transport
from interfiles.transport.listeners import ACCEPT_PAUSE_S, serve
from interfiles.transport.memory import MemoryNetwork
from tests.conftest import LogRecords
from tests.transport.setups import receive_exactly

SERVER = Address("10.0.0.2", 4850)


class Server:
    """A listener in memory, and whom it has at once."""

    def __init__(self) -> None:
        self.network = MemoryNetwork(random.Random(1))
        self.active = 0
        self.most = 0

    async def listen(self) -> Listener:
        return await self.network.host(SERVER.host).listen(SERVER)

    async def dial(self) -> Transport:
        return await self.network.host("10.0.0.1").dial(SERVER)

    async def echo(self, transport: Transport) -> None:
        """Send back what comes, until the end."""
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            buffer = memoryview(bytearray(100))
            while count := await transport.receive_some_into(buffer):
                await transport.send_all(buffer[:count])
        finally:
            self.active -= 1


async def is_answered(transport: Transport) -> bool:
    """Whether a handler is there, or comes within a second."""
    await transport.send_all(b"?")
    with trio.move_on_after(1):
        assert await receive_exactly(transport, 1) == b"?"
        return True
    return False


async def test_connections_beyond_the_bound_wait_their_turn(autojump_clock: trio.testing.MockClock) -> None:
    server = Server()
    listener = await server.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(listener, server.echo, max_connections=3))
        clients = [await server.dial() for _ in range(5)]
        assert [await is_answered(client) for client in clients] == [True, True, True, False, False]
        clients[0].close()
        assert await receive_exactly(clients[3], 1) == b"?"
        assert not await is_answered(clients[4])
        nursery.cancel_scope.cancel()
    assert (server.most, server.active) == (3, 0)


async def test_a_handler_that_fails_ends_its_connection_and_no_other(error_log: LogRecords) -> None:
    server = Server()
    listener = await server.listen()

    async def handle(transport: Transport) -> None:
        if await receive_exactly(transport, 1) == b"!":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise KeyError("lost")
        await server.echo(transport)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(listener, handle, max_connections=2))
        good = await server.dial()
        for _ in range(5):  # more than there is room for: a failed one frees its place
            bad = await server.dial()
            await bad.send_all(b"!")
            assert await receive_exactly(bad, 1) == b""
        await good.send_all(b"1234")
        assert await receive_exactly(good, 3) == b"234"
        nursery.cancel_scope.cancel()
    assert [record["event"] for record in error_log.errors] == ["bug"] * 5
    assert "KeyError: 'lost'" in error_log.errors[0]["exception"]


async def test_a_transport_is_closed_when_its_handler_returns() -> None:
    server = Server()
    listener = await server.listen()

    async def handle(transport: Transport) -> None:
        await transport.send_all(b"bye")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(listener, handle, max_connections=1))
        for _ in range(3):
            assert await receive_exactly(await server.dial(), 10) == b"bye"
        nursery.cancel_scope.cancel()


async def test_cancellation_closes_the_listener_and_all_connections() -> None:
    server = Server()
    listener = await server.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(listener, server.echo, max_connections=10))
        clients = [await server.dial() for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    for client in clients:
        assert await receive_exactly(client, 1) == b""
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


class OutOfDescriptors:
    """A listener whose first attempts fail as the system does when no descriptor is left."""

    def __init__(self, inner: Listener, *, failures: int) -> None:
        self.inner = inner
        self.failures = failures

    @property
    def address(self) -> Address:
        return self.inner.address

    async def accept(self) -> Transport:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return await self.inner.accept()

    def close(self) -> None:
        self.inner.close()


async def test_running_out_of_descriptors_is_outlived_and_logged_once(
    log_records: LogRecords, autojump_clock: trio.testing.MockClock
) -> None:
    server = Server()
    listener = OutOfDescriptors(await server.listen(), failures=20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(listener, server.echo, max_connections=2))
        client = await server.dial()
        await client.send_all(b"?")
        assert await receive_exactly(client, 1) == b"?"
        assert trio.current_time() == pytest.approx(20 * ACCEPT_PAUSE_S)
        listener.failures = 1
        await server.dial()
        await server.dial()
        nursery.cancel_scope.cancel()
    warnings = [record for record in log_records.records if record["level"] == "warning"]
    assert [(record["event"], record["error"]) for record in warnings][:1] == [
        ("accepting failed", "[Errno 24] Too many open files")
    ]
    assert len(warnings) <= 2
