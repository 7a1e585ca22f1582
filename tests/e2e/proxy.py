"""A host in the way: it stands in front of a client's port and looks into the swarm's frames that pass.

It lets pieces through up to a limit, so that a test can stop a transfer at an exact point, counts them, and can spoil
some. Everything but pieces passes as it is. Runs in threads of the test's process.
"""

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import msgpack

from interfiles.wire.handshake_messages import Hello
from interfiles.wire.peer_messages import Piece

_PREFIX: Final = struct.Struct(">II")
_PIECE_TAG: Final = Piece.__struct_config__.tag
_HELLO_HOST_ID: Final = 1 + Hello.__struct_fields__.index("host_id")  # after the tag
_COPY_BYTES: Final = 256 << 10
_JOIN_TIMEOUT_S: Final = 10.0


class PeerProxy:
    """Listens on `address`, which a client advertises, and leads to `target_port`, where it really listens.

    `passed`: bytes of pieces that have passed, by the host id of who fetched them; `spoiled`: how many blocks were.
    """

    def __init__(self, *, spoil_every: int = 0) -> None:
        self.target_port = 0
        self.passed: Counter[str] = Counter()
        self.spoiled = 0
        self._blocks = 0
        self._spoil_every = spoil_every
        self._limits: dict[str, int] = {}
        self._limit: int | None = None
        self._changed = threading.Condition()
        self._is_closed = False
        self._sockets: list[socket.socket] = []
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
        for sock in self._sockets:
            _shut(sock)
        for thread in self._threads:
            thread.join(_JOIN_TIMEOUT_S)
            assert not thread.is_alive(), "a thread of the proxy does not end"
        for sock in (self._listener, *self._sockets):
            sock.close()

    def allow(self, limit: int | None, fetcher: str = "") -> None:
        """Let pieces pass while no more bytes than this have, to each host or to one by its id; None: all."""
        with self._changed:
            if not fetcher:
                self._limit, self._limits = limit, {}
            elif limit is not None:
                self._limits[fetcher] = limit
            else:
                self._limits.pop(fetcher, None)
            self._changed.notify_all()

    # Inside

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_closed:
            with suppress(OSError):
                self._connect(self._listener.accept()[0])

    def _connect(self, fetcher: socket.socket) -> None:
        """Dial the client for whoever fetches; one that is down is a connection that closes."""
        try:
            server = socket.create_connection(("127.0.0.1", self.target_port))
        except OSError:
            fetcher.close()
            return
        self._sockets += [fetcher, server]
        link = _Link(fetcher, server)
        self._start(self._run, link, self._pass_requests)
        self._start(self._run, link, self._pass_answers)

    def _run(self, link: "_Link", move: "Callable[[_Link], None]") -> None:
        """One direction of a connection; the end of one is the end of both."""
        with suppress(OSError, EOFError):
            move(link)
        with self._changed:
            link.is_over = True
            self._changed.notify_all()
        for sock in (link.fetcher, link.server):
            _shut(sock)

    def _pass_requests(self, link: "_Link") -> None:
        prefix, header, _ = _read_frame(link.fetcher)
        link.host_id = msgpack.unpackb(header)[_HELLO_HOST_ID]
        link.server.sendall(prefix + header)
        while data := link.fetcher.recv(_COPY_BYTES):
            link.server.sendall(data)

    def _pass_answers(self, link: "_Link") -> None:
        while True:
            prefix, header, payload = _read_frame(link.server)
            if msgpack.unpackb(header)[0] == _PIECE_TAG:
                self._pass_block(payload, link)
            link.fetcher.sendall(prefix + header)
            link.fetcher.sendall(payload)

    def _pass_block(self, payload: bytearray, link: "_Link") -> None:
        """Wait until a block may pass, count it, and spoil it if it is its turn.

        Raises:
          EOFError: the connection is over.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or link.is_over or self._may_pass(len(payload), link))
            if self._is_closed or link.is_over:
                raise EOFError
            self.passed[link.host_id] += len(payload)
            self._blocks += 1
            if self._spoil_every and self._blocks % self._spoil_every == 0:
                payload[len(payload) // 2] ^= 0x01
                self.spoiled += 1

    def _may_pass(self, count: int, link: "_Link") -> bool:
        limit = self._limits.get(link.host_id, self._limit)
        return limit is None or self.passed[link.host_id] + count <= limit


@dataclass(eq=False)
class _Link:
    """A connection from a fetcher to the client behind the proxy."""

    fetcher: socket.socket
    server: socket.socket
    host_id: str = ""
    is_over: bool = False


def _read_frame(sock: socket.socket) -> tuple[bytes, bytes, bytearray]:
    """Prefix, header and payload of the next frame."""
    prefix = bytes(_read(sock, _PREFIX.size))
    header_length, payload_length = _PREFIX.unpack(prefix)
    return prefix, bytes(_read(sock, header_length)), _read(sock, payload_length)


def _read(sock: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        received = sock.recv_into(view)
        if received == 0:
            raise EOFError
        view = view[received:]
    return data


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
