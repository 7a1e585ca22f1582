"""Plain sockets: TCP between hosts, and what Unix sockets (`unix`) have in common with it.

Bulk bytes move on the trio loop by non-blocking calls on raw sockets: trio's own streams copy through small buffers,
and a thread that receives in bulk starves the loop (the GIL convoy). A call that succeeds at once does not reach the
scheduler, so the callers' checkpoint after each block keeps the loop fair.
"""

import errno
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio

from interfiles.errors import (
    AddressInUse,
    ConnectFailed,
    ContentChanged,
    InterFilesError,
    NotPermitted,
    PeerGone,
    PeerSilent,
    StorageFailed,
)
from interfiles.transport.base import Address

CONNECT_TIMEOUT_S: Final = 10.0
STALL_TIMEOUT_S: Final = 60.0  # a receiver that takes nothing for so long is gone: it holds a slot that others need
LISTEN_BACKLOG: Final = 512
UNSENT_S: Final = 0.06  # how much the system may hold unsent: what is handed over early was decided on early ...
MIN_UNSENT_BYTES: Final = 32 << 10  # ... but waking the writer too often costs
MAX_UNSENT_BYTES: Final = 1 << 20
WAKE_S: Final = 0.1  # a receiver that knows that more comes waits for so much of it: each waking costs 0.1 ms
MAX_WAKE_BYTES: Final = 64 << 10
_FAST_BYTES_PER_S: Final = 100e6  # from here on waiting for more only leaves the processor idle
_RATE_S: Final = 0.1  # the rate is measured over at least so long
_DISK_ERRORS: Final = (errno.EIO, errno.ESTALE, errno.EUCLEAN)  # of sendfile: all others are the connection's
_TCP: Final = (socket.AF_INET, socket.AF_INET6)
_V4_IN_V6: Final = "::ffff:"
_CLOSED_HERE: Final = "this end closed the connection"

_Socket = socket.socket


class SocketTransport:
    """A connected, non-blocking stream socket."""

    def __init__(self, sock: _Socket, remote: Address | None) -> None:
        self._sock = sock
        self._remote = remote
        self._unsent_bytes = MAX_UNSENT_BYTES if sock.family in _TCP else 0  # 0: nothing to set
        self._sent_bytes = 0  # since the rate was measured last, while the socket was full
        self._full_s = 0.0
        self._received_bytes = 0  # since the rate was measured last, while the socket was empty
        self._empty_s = 0.0
        self._promised_bytes = 0
        self._most_wake_bytes = MAX_WAKE_BYTES
        self._wake_bytes = 1

    @property
    def remote(self) -> Address | None:
        return self._remote

    @property
    def socket(self) -> _Socket:
        """The raw socket, for what only a Unix socket has (the caller's credentials)."""
        return self._sock

    async def wait_readable(self) -> None:
        if self._sock.fileno() < 0:
            raise PeerGone(_CLOSED_HERE)
        self._promised_bytes = 0
        await self._until_readable()

    async def receive_some_into(self, buffer: memoryview) -> int:
        while True:
            try:
                count = self._sock.recv_into(buffer)
            except BlockingIOError:
                await self._until_readable()
            except OSError as e:
                raise self._gone(e) from e
            else:
                self._promised_bytes -= count
                self._received_bytes += count
                return count

    def promise(self, count: int) -> None:
        self._promised_bytes = count

    async def _until_readable(self) -> None:
        began = trio.current_time()
        self._wake_at(min(max(self._promised_bytes, 1), self._most_wake_bytes))
        await self._until(trio.lowlevel.wait_readable)
        self._empty_s += trio.current_time() - began
        if self._empty_s >= _RATE_S:
            rate = self._received_bytes / self._empty_s
            is_fast = rate > _FAST_BYTES_PER_S
            self._most_wake_bytes = 1 if is_fast else min(max(int(rate * WAKE_S), 1), MAX_WAKE_BYTES)
            self._received_bytes, self._empty_s = 0, 0.0

    def _wake_at(self, count: int) -> None:
        """Count the socket as readable when so many bytes are there, or its end."""
        if count != self._wake_bytes and self._sock.family in _TCP:
            self._wake_bytes = count
            with suppress(OSError):  # the peer may be gone: whoever receives next is told
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    async def send_all(self, data: bytes | memoryview) -> None:
        left = memoryview(data)
        while left:
            try:
                sent = self._sock.send(left)
                left = left[sent:]
                self._sent_bytes += sent
            except BlockingIOError:
                pass
            except OSError as e:
                raise self._gone(e) from e
            if left:  # the socket is full
                await self._until_writable()

    async def send_file(self, fd: int, offset: int, count: int, *, head: bytes = b"") -> None:
        await self.send_all(head)
        end = offset + count
        while offset < end:
            try:
                sent = os.sendfile(self._sock.fileno(), fd, offset, end - offset)
            except BlockingIOError:
                pass
            except OSError as e:
                if e.errno in _DISK_ERRORS:
                    raise StorageFailed(f"the disk cannot read the file: {e.strerror}") from e
                raise self._gone(e) from e
            else:
                if sent == 0:
                    raise ContentChanged(f"the file ends {end - offset} bytes too early")
                offset += sent
            if offset < end:
                await self._until_writable()

    async def _until_writable(self) -> None:
        began = trio.current_time()
        with trio.move_on_after(STALL_TIMEOUT_S) as scope:
            await self._until(trio.lowlevel.wait_writable)
        if scope.cancelled_caught:
            raise PeerSilent(f"the peer took nothing for {STALL_TIMEOUT_S:.0f} s")
        self._full_s += trio.current_time() - began
        if self._full_s >= _RATE_S and self._unsent_bytes:
            self._limit_unsent(int(self._sent_bytes / self._full_s * UNSENT_S))
            self._sent_bytes, self._full_s = 0, 0.0

    def _limit_unsent(self, count: int) -> None:
        """Let the system hold about so many unsent bytes; `_until_writable` waits for less."""
        limit = min(max(count, MIN_UNSENT_BYTES), MAX_UNSENT_BYTES)
        if not self._unsent_bytes // 2 < limit < self._unsent_bytes * 2:
            self._unsent_bytes = limit
            with suppress(OSError):  # the peer may be gone: whoever sends next is told
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limit)

    async def _until(self, wait: Callable[[_Socket], Awaitable[None]]) -> None:
        try:
            await wait(self._sock)
        except trio.ClosedResourceError as e:
            raise PeerGone(_CLOSED_HERE) from e

    def _gone(self, error: OSError) -> PeerGone:
        if self._sock.fileno() < 0:
            return PeerGone(_CLOSED_HERE)
        return PeerGone(f"the connection broke: {error.strerror or error}")

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


class SocketListener:
    """A listening, non-blocking socket."""

    def __init__(self, sock: _Socket, make: type[SocketTransport] = SocketTransport) -> None:
        self._sock = sock
        self._make = make
        self._address = _address(sock.getsockname()) or Address("localhost", 0)

    @property
    def address(self) -> Address:
        return self._address

    async def accept(self) -> SocketTransport:
        while True:
            try:
                sock, name = self._sock.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
                continue
            except ConnectionError:  # the dialler gave up while it waited in the queue
                continue
            except OSError as e:
                if self._sock.fileno() < 0:
                    raise trio.ClosedResourceError("this listener was closed") from e
                raise
            return _made(sock, _address(name), self._make)

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


def _made(sock: _Socket, remote: Address | None, make: type[SocketTransport] = SocketTransport) -> SocketTransport:
    try:
        sock.setblocking(False)
        if sock.family in _TCP:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except OSError:
        sock.close()
        raise
    return make(sock, remote)


def _address(name: tuple[str, int] | str) -> Address | None:
    """An IPv4 host that came in by a socket for both families is called by its IPv4 address; a Unix socket has none."""
    if not isinstance(name, tuple):
        return None
    host = name[0].partition("%")[0]
    return Address(host.removeprefix(_V4_IN_V6) if "." in host else host, name[1])


class TcpNetwork:
    """The real network, in plain TCP."""

    async def dial(self, address: Address, *, check: Callable[[str, int], None] | None = None) -> SocketTransport:
        try:
            with trio.fail_after(CONNECT_TIMEOUT_S):
                stream = await (_open(address) if check is None else _open_checked(address, check))
            # trio's stream was only the way to connect (happy eyeballs): its socket goes on without it
            sock = socket.socket(fileno=stream.socket.detach())
            return _made(sock, _address(_peer_name(sock)))
        except trio.TooSlowError as e:
            raise ConnectFailed(f"{address} does not answer within {CONNECT_TIMEOUT_S:.0f} s") from e
        except (OSError, UnicodeError) as e:
            raise ConnectFailed(f"cannot connect to {address}: {_reason(e)}") from e

    async def listen(self, address: Address) -> SocketListener:
        try:
            found = await trio.socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, kind, _, _, where = found[0]
            return _listening(family, kind, where)
        except (OSError, UnicodeError) as e:
            raise bind_error(e, f"address {address}", "--listen") from e


async def _open(address: Address) -> trio.SocketStream:
    return await trio.open_tcp_stream(address.host, address.port)


async def _open_checked(address: Address, check: Callable[[str, int], None]) -> trio.SocketStream:
    """Connect to one of the IP addresses that the system has for it now, each checked: to no other that a name may mean
    a moment later.

    Raises:
      OSError, UnicodeError: the name means nothing, or nobody answers.
      ConnectFailed: what `check` raises, if it lets none of them through.
    """
    found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    hosts = list(dict.fromkeys(str(where[0]) for *_, where in found))
    failure: OSError | ConnectFailed | None = None
    for host in hosts:
        try:
            check(host.partition("%")[0], address.port)
            with trio.fail_after(CONNECT_TIMEOUT_S / len(hosts)):
                return await _open(Address(host, address.port))
        except ConnectFailed as e:
            failure = failure or e
        except trio.TooSlowError:
            failure = TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        except OSError as e:
            failure = e
    raise failure or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))


def _peer_name(sock: _Socket) -> tuple[str, int]:
    """Where a socket is connected to; Linux connects a socket to itself when the port dialled is the very one that it
    picks to dial from, which is refused."""
    try:
        name: tuple[str, int] = sock.getpeername()
        if sock.getsockname() == name:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        return name
    except OSError:
        sock.close()
        raise


def _listening(family: int, kind: int, where: tuple[object, ...]) -> SocketListener:
    sock = socket.socket(family, kind)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(where)
        sock.listen(LISTEN_BACKLOG)
        sock.setblocking(False)
        return SocketListener(sock)
    except OSError:
        sock.close()
        raise


def _reason(error: Exception) -> str:
    """What the system said; trio puts the failures of all addresses tried into the cause of one error."""
    cause = error.__cause__
    errors = cause.exceptions if isinstance(cause, ExceptionGroup) else (error,)
    return " / ".join(dict.fromkeys(_words(e) for e in errors))


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno is not None:
        return os.strerror(error.errno)  # the error's own text would name the address again
    return (isinstance(error, OSError) and error.strerror) or str(error)


def bind_error(error: OSError | UnicodeError, what: str, option: str) -> InterFilesError:
    """The error of ours that says why `what` cannot be listened on; `option` chooses another."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return AddressInUse(f"{what} is in use by another program; choose another with {option}")
    if number in (errno.EACCES, errno.EPERM):
        return NotPermitted(f"the system does not let this user bind {what}; choose another with {option}")
    return AddressInUse(f"{what} cannot be used: {_words(error)}; choose another with {option}")
