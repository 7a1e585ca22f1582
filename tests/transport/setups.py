"""The transports under test, behind one face: how to listen, dial and break a connection on each."""

import random
import socket
import struct
from pathlib import Path
from typing import Protocol

import trio

from interfiles.identity import contexts
from interfiles.transport.base import Address, Listener, Network, Transport
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.message_stream import MessageStream
from interfiles.transport.plain import SocketTransport, TcpNetwork
from interfiles.transport.tls import TlsTransport, secure
from interfiles.transport.unix import dial_unix, listen_unix
from interfiles.wire.codec import Message
from interfiles.wire.peer_messages import FROM_SERVER
from tests.identity.members import ALICE, BOB, credentials, host

Ends = tuple[Transport, Transport]


class Setup(Protocol):
    """Two hosts; the second one listens."""

    async def listen(self) -> Listener:
        """Listen at any free address."""

    async def dial(self, listener: Listener) -> Transport:
        """Connect to it."""

    def break_connection(self, transport: Transport) -> None:
        """Let the connection end without a proper end; `transport` is one of its ends."""


class Tcp:
    """Real TCP over loopback."""

    def __init__(self, tmp_path: Path) -> None:
        self.network: Network = TcpNetwork()

    async def listen(self) -> Listener:
        return await self.network.listen(Address("127.0.0.1", 0))

    async def dial(self, listener: Listener) -> Transport:
        return await self.network.dial(listener.address)

    def break_connection(self, transport: Transport) -> None:
        assert isinstance(transport, SocketTransport)
        transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.close()


class Unix:
    """Real Unix sockets."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "run" / "test.sock"

    async def listen(self) -> Listener:
        return listen_unix(self.path)

    async def dial(self, listener: Listener) -> Transport:
        return await dial_unix(self.path)

    def break_connection(self, transport: Transport) -> None:
        """Closing a Unix socket over unread bytes resets it; the peer's next call fails."""
        transport.close()


class Memory:
    """The network in memory, with everything at once."""

    def __init__(self, tmp_path: Path) -> None:
        self.cables = MemoryNetwork(random.Random(1))
        self.network: Network = self.cables.host("10.0.0.1")

    async def listen(self) -> Listener:
        return await self.cables.host("10.0.0.2").listen(Address("10.0.0.2", 0))

    async def dial(self, listener: Listener) -> Transport:
        return await self.network.dial(listener.address)

    def break_connection(self, transport: Transport) -> None:
        self.cables.cut("10.0.0.1", "10.0.0.2")


class _TlsListener:
    """Shakes hands with who is accepted."""

    def __init__(self, inner: Listener) -> None:
        self.inner = inner

    @property
    def address(self) -> Address:
        return self.inner.address

    async def accept(self) -> Transport:
        return await secure(await self.inner.accept(), contexts.accepting(credentials(host(BOB))), accepted=True)

    def close(self) -> None:
        self.inner.close()


class _Tls:
    """TLS between two hosts of one fleet, over another transport. Both ends must be at it at once to connect."""

    def __init__(self, inner: Setup) -> None:
        self.inner = inner

    async def listen(self) -> Listener:
        return _TlsListener(await self.inner.listen())

    async def dial(self, listener: Listener) -> Transport:
        return await secure(
            await self.inner.dial(listener), contexts.dialling(credentials(host(ALICE))), accepted=False
        )

    def break_connection(self, transport: Transport) -> None:
        assert isinstance(transport, TlsTransport)
        self.inner.break_connection(transport._inner)


class TlsOverTcp(_Tls):
    """TLS as it is used."""

    def __init__(self, tmp_path: Path) -> None:
        super().__init__(Tcp(tmp_path))


class TlsOverMemory(_Tls):
    """TLS in virtual time."""

    def __init__(self, tmp_path: Path) -> None:
        super().__init__(Memory(tmp_path))


async def connected(setup: Setup) -> tuple[Transport, Transport]:
    """Both ends of a new connection, the dialler's first."""
    listener = await setup.listen()
    async with trio.open_nursery() as nursery:
        accepted: list[Transport] = []

        async def accept() -> None:
            accepted.append(await listener.accept())

        nursery.start_soon(accept)
        dialled = await setup.dial(listener)
    listener.close()
    return dialled, accepted[0]


async def ends() -> tuple[Transport, Transport]:
    """A connection in memory; the first end belongs to the test, that sends what it likes."""
    return await connect(MemoryNetwork(random.Random(1)), "10.0.0.1", "10.0.0.2")


async def fetching() -> tuple[Transport, MessageStream[Message]]:
    """A raw server, and a stream that fetches from it."""
    peer, own = await ends()
    return peer, MessageStream(own, FROM_SERVER)


async def receive_exactly(transport: Transport, count: int, *, at_once: int = 1 << 16) -> bytes:
    """Receive `count` bytes in reads of at most `at_once`; fewer if the end comes."""
    buffer = memoryview(bytearray(count))
    filled = 0
    while filled < count:
        got = await transport.receive_some_into(buffer[filled : filled + at_once])
        if got == 0:
            break
        filled += got
    return bytes(buffer[:filled])


async def connect(network: MemoryNetwork, a: str, b: str) -> tuple[Transport, Transport]:
    """A connection in memory between two hosts."""
    listener = await network.host(b).listen(Address(b, 0))
    dialled = await network.host(a).dial(listener.address)
    accepted = await listener.accept()
    listener.close()
    return dialled, accepted


async def flood(transport: Transport) -> None:
    """Send until it fails."""
    while True:
        await transport.send_all(bytes(1 << 16))
        await trio.lowlevel.checkpoint()


async def is_silent(transport: Transport, *, for_s: float = 1.0) -> bool:
    """Whether neither bytes nor an end come for so long."""
    with trio.move_on_after(for_s):
        await transport.receive_some_into(memoryview(bytearray(1)))
        return False
    return True
