"""Hosts in the way: TCP proxies that stand in front of a daemon's port, which advertises them in its place.

What passes is TLS, so all that they can do is to hold it up, count it, write it down, damage it or cut it. They run in
threads of the test's process.
"""

import ctypes
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal, Self

_COPY_BYTES: Final = 64 << 10
_JOIN_TIMEOUT_S: Final = 10.0
_NOWHERE: Final = bytes(16)  # a socket address of the family AF_UNSPEC

Direction = Literal["asked", "answered"]


@dataclass(eq=False)
class Link:
    """A connection through a proxy. `dialler`: who made it, as far as `Proxy.name_of` knows."""

    client: socket.socket
    server: socket.socket
    dialler: str
    is_over: bool = False
    passed: Counter[Direction] = field(default_factory=Counter)


class Proxy:
    """Listens on `address` and leads to `target_port`, where the daemon really listens; passes on all as it is.

    `name_of`: who dials from a local port.
    """

    def __init__(self, *, name_of: Callable[[int], str] = lambda _: "") -> None:
        self.target_port = 0
        self.links: list[Link] = []
        self._name_of = name_of
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: Final = "127.0.0.1:{1}".format(*self._listener.getsockname())

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        _shut(self._listener)
        self._threads[0].join(_JOIN_TIMEOUT_S)  # no connection comes after this
        for link in self.links:
            _shut(link.client)
            _shut(link.server)
        for thread in self._threads:
            thread.join(_JOIN_TIMEOUT_S)
            assert not thread.is_alive(), "a thread of the proxy does not end"
        self._listener.close()
        for link in self.links:
            link.client.close()
            link.server.close()

    def on_data(self, link: Link, direction: Direction, data: bytearray) -> int:
        """Before `data` is passed on: do something to it, or wait; return how much of it may pass now, at least 1.

        Raises:
          EOFError: the connection ends here.
        """
        return len(data)

    # Inside

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_closed:
            with suppress(OSError):
                self._connect(self._listener.accept()[0])

    def _connect(self, client: socket.socket) -> None:
        """Dial the daemon for whoever connected; one that is down is a connection that closes."""
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _COPY_BYTES)  # what is held up stays with who sends it
        try:
            server.connect(("127.0.0.1", self.target_port))
        except OSError:
            client.close()
            server.close()
            return
        link = Link(client, server, self._name_of(client.getpeername()[1]))
        self.links.append(link)
        self._start(self._run, link, "asked", client, server)
        self._start(self._run, link, "answered", server, client)

    def _run(self, link: Link, direction: Direction, source: socket.socket, sink: socket.socket) -> None:
        """One direction of a connection; the end of one is the end of both."""
        with suppress(OSError, EOFError):
            while data := bytearray(source.recv(_COPY_BYTES)):
                while data:
                    count = self.on_data(link, direction, data)
                    link.passed[direction] += count
                    sink.sendall(data[:count])
                    del data[:count]
        with self._changed:
            link.is_over = True
            self._changed.notify_all()
        for sock in (link.client, link.server):
            _shut(sock)


class PeerProxy(Proxy):
    """Lets a client's answers through up to a limit, so that a test can stop a transfer, and counts them.

    `passed`: their bytes, a little more than those of the pieces in them, by who fetched them.
    """

    def __init__(self, *, name_of: Callable[[int], str] = lambda _: "") -> None:
        super().__init__(name_of=name_of)
        self.passed: Counter[str] = Counter()
        self._limits: dict[str, int] = {}
        self._limit: int | None = None

    def allow(self, limit: int | None, fetcher: str = "") -> None:
        """Let answers pass while no more bytes than this have, to each host or to one by its name; None: all."""
        with self._changed:
            if not fetcher:
                self._limit, self._limits = limit, {}
            elif limit is not None:
                self._limits[fetcher] = limit
            else:
                self._limits.pop(fetcher, None)
            self._changed.notify_all()

    def on_data(self, link: Link, direction: Direction, data: bytearray) -> int:
        if direction == "asked":
            return len(data)
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or link.is_over or self._room(link) > 0)
            if self._is_closed or link.is_over:
                raise EOFError
            count = min(len(data), self._room(link))
            self.passed[link.dialler] += count
            return count

    def _room(self, link: Link) -> int:
        limit = self._limits.get(link.dialler, self._limit)
        return _COPY_BYTES if limit is None else limit - self.passed[link.dialler]


class RecordingProxy(Proxy):
    """Writes down all that passes, in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self._recorded: dict[tuple[Link, Direction], bytearray] = {}

    @property
    def recorded(self) -> list[bytes]:
        """What has passed on each connection in each direction."""
        with self._changed:
            return [bytes(stream) for stream in self._recorded.values()]

    def on_data(self, link: Link, direction: Direction, data: bytearray) -> int:
        with self._changed:
            self._recorded.setdefault((link, direction), bytearray()).extend(data)
        return len(data)


@dataclass(frozen=True)
class Damage:
    """What happens to a connection once `at` bytes have passed in a direction.

    `flip`: one bit is another; `cut`: both ends see a reset; `end`: both ends see a proper end of the stream.
    """

    kind: Literal["flip", "cut", "end"]
    direction: Direction
    at: int


class DamagingProxy(Proxy):
    """Damages connections, once it is told to; `done`: the damages that were done."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[Damage] = []
        self._damages: dict[int, Damage] = {}

    def damage(self, *damages: Damage) -> None:
        """Cut the connections that there are; of those that follow, do the first damage to the first, and so on."""
        with self._changed:
            begin = len(self.links)
            self._damages = dict(enumerate(damages, begin))
        for link in self.links[:begin]:
            _shut(link.client)

    def on_data(self, link: Link, direction: Direction, data: bytearray) -> int:
        damage = self._damages.get(self.links.index(link))
        if damage is None or damage in self.done or damage.direction != direction:
            return len(data)
        left = damage.at - link.passed[direction]
        if left >= len(data):
            return len(data)
        if left > 0:
            return left
        self.done.append(damage)
        if damage.kind == "flip":
            data[0] ^= 0x10
            return len(data)
        if damage.kind == "cut":
            for sock in (link.client, link.server):
                _reset(sock)
        raise EOFError


def _reset(sock: socket.socket) -> None:
    """Send a reset, also while another thread waits for the socket: connecting to nowhere does (connect(2))."""
    ctypes.CDLL(None).connect(sock.fileno(), _NOWHERE, len(_NOWHERE))


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
