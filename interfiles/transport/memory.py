"""A network in memory: whole fleets in one process and in virtual time, with links, faults and taps.

Each host has an uplink and a downlink that its connections share. A segment leaves when both it and the uplink are
free, `free = max(now, free) + length / rate`, passes the receiver's downlink in the same way, and arrives after the
latency of both hosts. One segment of a connection waits for the uplink at a time, so connections share it fairly. What
was sent and not read is bounded by a window, so a sender feels a receiver that does not read.

Nothing here depends on hash order or on the wall clock: under trio's deterministic scheduling a run repeats exactly.
"""

import random
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from interfiles.errors import AddressInUse, ConnectFailed
from interfiles.transport.base import Address
from interfiles.transport.memory_links import Link, Links
from interfiles.transport.memory_pipe import MemoryTransport, Pipe, Tap

CONNECT_TIMEOUT_S: Final = 10.0
LISTEN_BACKLOG: Final = 512
_FREE_PORTS: Final = range(49152, 65536)
_WILDCARDS: Final = ("0.0.0.0", "::")


class MemoryNetwork:
    """The cables between hosts, and the test's hand on them. A host is named by its IP address.

    `window_bytes`: what one direction of a connection holds between sender and receiver, give or take a segment.
    """

    def __init__(self, rng: random.Random, *, window_bytes: int = 256 << 10) -> None:
        self._links = Links(rng)
        self._window_bytes = window_bytes
        self._hosts: dict[str, MemoryHost] = {}
        self._silent_hosts: set[str] = set()
        self._taps: dict[str, Callable[[str], Tap]] = {}
        self._pipes: dict[Pipe, None] = {}
        self._ports_given = 0
        self._reach_changed = trio.lowlevel.ParkingLot()

    def host(self, name: str) -> "MemoryHost":
        """The network as this host sees it; after a crash, as the host that was started again sees it."""
        if name not in self._hosts:
            self._silent_hosts.discard(name)
            self._hosts[name] = MemoryHost(self, name)
        return self._hosts[name]

    def set_link(self, host: str, link: Link) -> None:
        """Say how a host is connected, from the next segment on; without this, at once."""
        self._links.of_host[host] = link

    def bytes_sent(self, sender: str, receiver: str) -> int:
        """All the bytes that `sender` has put on their way to `receiver`."""
        return self._links.bytes_sent[sender, receiver]

    def tap(self, host: str, make_tap: Callable[[str], Tap]) -> None:
        """Pass what `host` sends through a function of the test, that watches or corrupts it.

        `make_tap(receiver)` is called for each connection made from now on, and returns the function that is called
        with its bytes, in order and cut anywhere; what that returns is sent in their place.
        """
        self._taps[host] = make_tap

    def partition(self, a: str, b: str) -> None:
        """Silence between two hosts until `heal`: bytes, ends and breaks of connections are held back."""
        self._links.partitions.add(frozenset((a, b)))

    def heal(self, a: str, b: str) -> None:
        """End a partition: what was held back arrives."""
        self._links.partitions.discard(frozenset((a, b)))
        self._reach_changed.unpark_all()
        for pipe in self._pipes_between(a, b):
            pipe.wake()

    def cut(self, a: str, b: str) -> None:
        """Break every connection between two hosts, for both; new ones can be made at once."""
        for pipe in self._pipes_between(a, b):
            pipe.break_down("the connection broke: Connection reset by peer")

    def crash(self, host: str, *, silent: bool = False) -> None:
        """Take a host down: its listeners and connections fail at once, and its view of the network for good.

        Its peers see their connections break, as when a process is killed, or with `silent` hear nothing more, as
        when the power fails. Cancel the host's tasks right after, so that none of them acts on the failures.
        """
        if host in self._hosts:
            self._hosts.pop(host).go_down()
        if silent:
            self._silent_hosts.add(host)
        for pipe in [pipe for pipe in self._pipes if host in (pipe.sender, pipe.receiver)]:
            pipe.drop_end(host, silent=silent)
        self.reach_changed()

    async def connect(self, dialler: "MemoryHost", address: Address) -> MemoryTransport:
        """Dial: what `MemoryHost.dial` does."""
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(CONNECT_TIMEOUT_S):
            await trio.sleep(self._links.latency_s(dialler.name, address.host) * 2)
            while (listener := self._find(dialler, address)) is None:
                await self._reach_changed.park()
            there, back = self._pipe(dialler.name, address.host), self._pipe(address.host, dialler.name)
            dialler_address = Address(dialler.name, self.free_port())
            listener.enqueue(MemoryTransport(back, there, dialler_address, self.forget_done))
            return MemoryTransport(there, back, address, self.forget_done)
        raise ConnectFailed(f"{address} does not answer within {CONNECT_TIMEOUT_S:.0f} s")

    def free_port(self) -> int:
        """A port that was not given for a long time."""
        self._ports_given += 1
        return _FREE_PORTS[self._ports_given % len(_FREE_PORTS)]

    def reach_changed(self) -> None:
        """Let diallers that nobody answers look again."""
        self._reach_changed.unpark_all()

    def forget_done(self) -> None:
        """Keep no trace of connections that both ends have closed."""
        for pipe in [pipe for pipe in self._pipes if pipe.is_done]:
            del self._pipes[pipe]

    def _pipe(self, sender: str, receiver: str) -> Pipe:
        make_tap = self._taps.get(sender)
        tap = make_tap(receiver) if make_tap else None
        pipe = Pipe(self._links, sender, receiver, window_bytes=self._window_bytes, tap=tap)
        self._pipes[pipe] = None
        return pipe

    def _pipes_between(self, a: str, b: str) -> list[Pipe]:
        return [pipe for pipe in self._pipes if {pipe.sender, pipe.receiver} == {a, b}]

    def _find(self, dialler: "MemoryHost", address: Address) -> "MemoryListener | None":
        """Return who listens there, or None where nobody says yes or no; raise ConnectFailed where it is no."""
        if dialler.is_down:
            raise ConnectFailed(f"cannot connect to {address}: this host is down")
        if address.host in self._silent_hosts or self._links.are_parted(dialler.name, address.host):
            return None
        listener = self._hosts[address.host].listeners.get(address.port) if address.host in self._hosts else None
        if listener is None:
            raise ConnectFailed(f"cannot connect to {address}: Connection refused")
        return None if listener.is_full else listener


class MemoryHost:
    """One host's `Network`."""

    def __init__(self, network: MemoryNetwork, name: str) -> None:
        self.name: Final = name
        self.listeners: Final[dict[int, MemoryListener]] = {}
        self.is_down = False
        self._network = network

    async def dial(self, address: Address, *, check: Callable[[str, int], None] | None = None) -> MemoryTransport:
        if check is not None:
            check(address.host, address.port)
        return await self._network.connect(self, address)

    async def listen(self, address: Address) -> "MemoryListener":
        await trio.lowlevel.checkpoint()
        if self.is_down or address.host not in (self.name, *_WILDCARDS):
            raise AddressInUse(f"address {address} cannot be used; choose another with --listen")
        port = address.port
        while port == 0 or (address.port == 0 and port in self.listeners):
            port = self._network.free_port()
        if port in self.listeners:
            raise AddressInUse(f"address {address} is in use by another program; choose another with --listen")
        self.listeners[port] = MemoryListener(self, self._network.reach_changed, Address(address.host, port))
        return self.listeners[port]

    def go_down(self) -> None:
        """Refuse everything from now on; the connections are the network's to drop."""
        self.is_down = True
        self.listeners.clear()


class MemoryListener:
    """A port that connections arrive at. Once its host has crashed, `accept` waits until it is cancelled."""

    def __init__(self, host: MemoryHost, when_taken: Callable[[], None], address: Address) -> None:
        self._host = host
        self._when_taken = when_taken
        self._address = address
        self._waiting: deque[MemoryTransport] = deque()
        self._changed = trio.lowlevel.ParkingLot()
        self._is_closed = False

    @property
    def address(self) -> Address:
        return self._address

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= LISTEN_BACKLOG

    def enqueue(self, transport: MemoryTransport) -> None:
        """Take a connection in, for `accept` to hand out."""
        self._waiting.append(transport)
        self._changed.unpark_all()

    async def accept(self) -> MemoryTransport:
        await trio.lowlevel.checkpoint()
        while not self._is_closed:
            if self._waiting and not self._host.is_down:
                self._when_taken()
                return self._waiting.popleft()
            await self._changed.park()
        raise trio.ClosedResourceError("this listener was closed")

    def close(self) -> None:
        self._is_closed = True
        if self._host.listeners.get(self._address.port) is self:
            del self._host.listeners[self._address.port]
        while self._waiting:
            self._waiting.popleft().close()
        self._changed.unpark_all()
