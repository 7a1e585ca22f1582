"""The transport seam: what daemons, CLI and tests need of a connection, and nothing of how it is made.

Implementations: `plain` (TCP and Unix sockets), `memory` (tests in virtual time), and `tls` over either. A transport is
a reliable byte stream with one reader and one writer at a time. Calls that succeed at once may not reach the scheduler:
whoever loops over them sees to a checkpoint now and then, as `message_stream` does.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

from interfiles.errors import UsageError, printable

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\.?")


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A TCP address. `host` is a name or an IP address without brackets; port 0, when listening, means any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, default_port: int | None = None) -> Self:
        """Read `HOST:PORT`, `[IPv6]:PORT`, or `HOST` where there is a default port.

        Raises:
          UsageError: the text is not an address.
        """
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?", text)
        if match is None or (match[3] is None and default_port is None):
            raise UsageError(f"{printable(text)!r} is not an address; write HOST:PORT, such as 10.0.0.5:4850")
        host, port = match[1] or match[2], int(match[3]) if match[3] else int(default_port or 0)
        if port > 65535:
            raise UsageError(f"port {port} in {printable(text)!r} is over 65535")
        if match[1] is not None:
            try:
                ipaddress.IPv6Address(host)
            except ValueError as e:
                raise UsageError(f"{printable(text)!r} is not an address: {e}") from e
        elif _HOST_NAME.fullmatch(host) is None:
            raise UsageError(f"{printable(host)!r} is not a host name or IP address")
        return cls(host, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Transport(Protocol):
    """A connected byte stream."""

    @property
    def remote(self) -> Address | None:
        """The IP address and port of the other end; None where that has none (a Unix socket)."""

    async def wait_readable(self) -> None:
        """Wait until there may be something to receive, the end included; always a checkpoint.

        Whoever expects to wait saves a call in vain by it. It may return too early, never too late.

        Raises:
          PeerGone: this end closed the connection; some find that only when they receive.
        """

    async def receive_some_into(self, buffer: memoryview) -> int:
        """Wait for bytes and put at least one into `buffer`; return how many, 0 when the peer has closed.

        Returns at once when they are there, with nothing awaited between: many may wait with the same buffer.

        Raises:
          PeerGone: the connection broke.
        """

    def promise(self, count: int) -> None:
        """Say that at least `count` bytes more will come, so that waiting may take many of them at once."""

    async def send_all(self, data: bytes | memoryview) -> None:
        """Send everything.

        Raises:
          PeerGone: the peer closed or the connection broke.
          PeerSilent: the peer took nothing for the transport's stall time.

        Cancellation:
          May leave a part sent; the transport is then good for nothing but closing.
        """

    async def send_file(self, fd: int, offset: int, count: int, *, head: bytes = b"") -> None:
        """Send `head`, which is short, and `count` bytes of the open file `fd` from `offset`, past Python if possible.

        Raises:
          ContentChanged: the file ends before `count` bytes; a part has been sent, so the transport must be closed.
          StorageFailed: the disk cannot read it; likewise.
          PeerGone, PeerSilent, Cancellation: as `send_all`.
        """

    def close(self) -> None:
        """Close at once, without waiting; closing twice is allowed."""


class Listener(Protocol):
    """A bound address that connections arrive at."""

    @property
    def address(self) -> Address:
        """The address bound, its port known."""

    async def accept(self) -> Transport:
        """Wait for the next connection.

        Raises:
          OSError: this connection could not be taken, for want of descriptors for example; later ones may.
          trio.ClosedResourceError: this listener was closed.
        """

    def close(self) -> None:
        """Stop listening; closing twice is allowed."""


class Network(Protocol):
    """Makes transports: the real network, or one in memory."""

    async def dial(self, address: Address, *, check: Callable[[str, int], None] | None = None) -> Transport:
        """Connect. `check` is called with each IP address and port before these are connected to.

        Raises:
          ConnectFailed: nobody answers there, or not within the network's connect time; or what `check` raised.
        """

    async def listen(self, address: Address) -> Listener:
        """Bind and listen.

        Raises:
          AddressInUse: another program listens there, or the address is none of this host's.
          NotPermitted: the system does not let us bind there.
        """
