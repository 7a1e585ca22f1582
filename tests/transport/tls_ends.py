"""Both ends of TLS over the network in memory, with the test's hand on what goes over the cable."""

import random
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio
import trio.testing

from interfiles.errors import TransportError
from interfiles.identity import contexts
from interfiles.identity.contexts import Credentials
from interfiles.transport.base import Address, Transport
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.tls import TlsTransport, secure
from tests.identity.members import ALICE, BOB, credentials, host
from tests.transport.setups import connect

DIALLER, ACCEPTOR = "10.0.0.1", "10.0.0.2"
ALICES, BOBS = credentials(host(ALICE)), credentials(host(BOB))

Outcome = TlsTransport | TransportError


@dataclass
class Wire:
    """A tap that counts what passes, and flips one bit of the byte at `flip_at`, counted from when that was set."""

    passed: int = 0
    flip_at: int | None = None

    def __call__(self, data: bytes) -> bytes:
        self.passed += len(data)
        if self.flip_at is None:
            return data
        changed = bytearray(data)
        if 0 <= self.flip_at < len(data):
            changed[self.flip_at] ^= 0x10
        self.flip_at -= len(data)
        return bytes(changed)


async def attempt(secured: Awaitable[TlsTransport]) -> Outcome:
    """A TLS transport, or why it did not come to one."""
    try:
        return await secured
    except TransportError as e:
        return e


async def both(dialler: ssl.SSLContext, acceptor: ssl.SSLContext, ends: tuple[Transport, Transport]) -> list[Outcome]:
    """What comes of a handshake at either end, the dialler's first."""
    found: dict[bool, Outcome] = {}

    async def shake(accepted: bool) -> None:
        context = acceptor if accepted else dialler
        found[accepted] = await attempt(secure(ends[accepted], context, accepted=accepted))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shake, False)
        nursery.start_soon(shake, True)
    return [found[False], found[True]]


async def cable(*, window_bytes: int = 256 << 10) -> tuple[Transport, Transport]:
    """Both ends of a new connection in memory."""
    return await connect(MemoryNetwork(random.Random(1), window_bytes=window_bytes), DIALLER, ACCEPTOR)


async def secured(
    dialler: Credentials = ALICES,
    acceptor: Credentials = BOBS,
    *,
    ends: tuple[Transport, Transport] | None = None,
) -> tuple[TlsTransport, TlsTransport]:
    """Both ends of TLS between two members."""
    made = await both(contexts.dialling(dialler), contexts.accepting(acceptor), ends or await cable())
    assert all(isinstance(end, TlsTransport) for end in made), made
    return made[0], made[1]  # type: ignore[return-value]


async def watched() -> tuple[TlsTransport, TlsTransport, Wire]:
    """Both ends, and the wire from the dialler to the acceptor."""
    network, wire = MemoryNetwork(random.Random(1)), Wire()
    network.tap(DIALLER, lambda _: wire)
    dialled, accepted = await secured(ends=await connect(network, DIALLER, ACCEPTOR))
    return dialled, accepted, wire


class Cut:
    """A transport that gives at most so many bytes with each read, in turns.

    It remembers the largest write, and of each promise the byte, of all that is received, that it said would come.
    """

    def __init__(self, inner: Transport, cuts: list[int]) -> None:
        self.inner = inner
        self.reads = 0
        self.received = 0
        self.promised: list[int] = []
        self.largest_write = 0
        self._cuts = cuts

    @property
    def remote(self) -> Address | None:
        return self.inner.remote

    def promise(self, count: int) -> None:
        self.promised.append(self.received + count)
        self.inner.promise(count)

    async def wait_readable(self) -> None:
        await self.inner.wait_readable()

    async def receive_some_into(self, buffer: memoryview) -> int:
        cut = self._cuts[self.reads % len(self._cuts)]
        self.reads += 1
        count = await self.inner.receive_some_into(buffer[:cut])
        self.received += count
        return count

    async def send_all(self, data: bytes | memoryview) -> None:
        self.largest_write = max(self.largest_write, len(data))
        await self.inner.send_all(data)

    async def send_file(self, fd: int, offset: int, count: int, *, head: bytes = b"") -> None:
        raise AssertionError("plaintext of a file must not go past TLS")

    def close(self) -> None:
        self.inner.close()


def run_in_virtual_time(work: Callable[[], Awaitable[None]]) -> None:
    """Run a test's body, for tests that hypothesis calls many times."""
    trio.run(work, clock=trio.testing.MockClock(autojump_threshold=0))
