"""A host of the fleet that lives in the test's process, joined by the real protocol, and does what no honest one does.

It has what a client daemon has but for the library: a certificate, a link to the master by which it announces files,
and a door at which it serves them, each in its `Manner`. Its trio loop runs in a thread; `Member.run` runs something in
it.
"""

import random
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

import trio

from daemons.client.announcer import Errand, Publication
from daemons.client.fleet_network import FleetNetwork
from daemons.client.joining import join
from daemons.client.master_link import MasterLink
from daemons.client.membership import Membership, credentials_of
from daemons.client.notice import Notice
from interfiles.control import connect
from interfiles.errors import InterFilesError
from interfiles.geometry import BLOCK_BYTES
from interfiles.identity.token import JoinToken
from interfiles.manifest import FileId
from interfiles.piece_set import PieceSet
from interfiles.storage.executor import ThreadExecutor
from interfiles.storage.jobs import JobStore
from interfiles.tracker_file import TrackerFile
from interfiles.transport.base import Address, Transport
from interfiles.transport.listeners import serve
from interfiles.transport.message_stream import MessageStream, greet, welcome
from interfiles.transport.plain import TcpNetwork
from interfiles.transport.reach import Reach
from interfiles.wire import peer_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.framing import encode_frame
from interfiles.wire.master_messages import FileInfo, Handout, Holding
from tests.e2e.fleet import Fleet
from tests.e2e.processes import POLL_S, Daemon, FleetError, T, listening_port

TIMEOUT_S: Final = 10.0
_TRICKLE_BYTES: Final = 1024


class Manner(Protocol):
    """How a member sends the blocks that it is asked for."""

    async def answer(self, stream: MessageStream[Message], answer: m.Piece, block: memoryview) -> None:
        """Send one block, or what comes in its place; `answer` and `block` are right."""


class Slow:
    """Right answers, each after a while."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self._pause_s = pause_s

    async def answer(self, stream: MessageStream[Message], answer: m.Piece, block: memoryview) -> None:
        await trio.sleep(self._pause_s)
        await stream.send(answer, block)


class Spoiling:
    """Every so many answers one has a bit that is wrong; `spoiled` counts them."""

    def __init__(self, every: int) -> None:
        self.spoiled = 0
        self._every = every
        self._count = 0

    async def answer(self, stream: MessageStream[Message], answer: m.Piece, block: memoryview) -> None:
        self._count += 1
        if self._count % self._every == 0:
            bad = bytearray(block)
            bad[len(bad) // 2] ^= 0x01
            block = memoryview(bad)
            self.spoiled += 1
        await stream.send(answer, block)


class Stalling:
    """No answers at all."""

    async def answer(self, stream: MessageStream[Message], answer: m.Piece, block: memoryview) -> None:
        return


class Trickling:
    """Right answers, so slowly that nothing ever comes of them."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s

    async def answer(self, stream: MessageStream[Message], answer: m.Piece, block: memoryview) -> None:
        await stream.transport.send_all(encode_frame(answer, len(block)))
        for at in range(0, len(block), _TRICKLE_BYTES):
            await trio.sleep(self._pause_s)
            await stream.transport.send_all(block[at : at + _TRICKLE_BYTES])


@dataclass(eq=False)
class Served:
    """A connection by which a member was asked for a file: by whom, for how many pieces, and when it ended.

    `answers`: the blocks that it has begun to answer with.
    """

    host_id: str
    asked: int = 0
    answers: int = 0
    complaints: int = 0
    ended_at: float | None = None


@dataclass(frozen=True)
class _Claim:
    tracker: TrackerFile
    content: Path
    manner: Manner

    @property
    def file_id(self) -> FileId:
        return self.tracker.manifest.file_id

    def blocks(self, piece: int) -> Iterator[tuple[m.Piece, memoryview]]:
        geometry = self.tracker.manifest.geometry
        with open(self.content, "rb") as file:
            for block in geometry.blocks(geometry.piece(piece)):
                file.seek(geometry.piece_offset(block.piece) + block.offset)
                yield m.Piece(block.piece, block.offset), memoryview(file.read(block.length))


@dataclass
class _Announcer:
    """What its link tells the master: that it has all of every file that it claims. Implements `Announcer`."""

    announcements: Notice = field(default_factory=Notice)
    claims: dict[FileId, _Claim] = field(default_factory=dict)

    def all_holdings(self) -> list[Holding]:
        return [
            Holding(file_id, "complete", claim.tracker.manifest.piece_count, 0, 0, "", False)
            for file_id, claim in self.claims.items()
        ]

    def changed_holdings(self) -> list[Holding]:
        return self.all_holdings()

    def room(self) -> tuple[int, int]:
        return 0, 1 << 40

    def unpublished(self) -> list[Publication]:
        return []

    async def on_published(self, info: FileInfo) -> None:
        return

    async def on_handout(self, handout: Handout) -> None:
        return


def _ignore(errand: Errand) -> None:
    """Nothing is held by order."""


def _forget(file_id: FileId, *, delete: bool) -> None:
    """It forgets nothing."""


class Member:
    """A host called `name`, for the time of a `with` statement.

    `is_linked`: it registers at the master; else it only has a certificate. `token`: by which it joins, if not by the
    fleet's. `served`: the connections to it.
    """

    def __init__(self, fleet: Fleet, name: str, *, is_linked: bool = False, token: JoinToken | None = None) -> None:
        self.served: list[Served] = []
        self.host_id = ""
        self.network: FleetNetwork
        self._fleet = fleet
        self._name = name
        self._is_linked = is_linked
        self._join_token = token or fleet.join_token
        self._announcer = _Announcer()
        self._scope = trio.CancelScope()
        self._is_ready = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run_loop, name=name)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._is_ready.wait(TIMEOUT_S) or self._failed is not None:
            raise FleetError(f"the member {self._name} is not ready") from self._failed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._token is not None
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), f"the member {self._name} does not end"
        if self._failed is not None:
            raise self._failed

    def run(self, operate: Callable[[], Awaitable[T]]) -> T:
        """Run something in the member's loop, within `TIMEOUT_S`."""

        async def main() -> T:
            with trio.fail_after(TIMEOUT_S):
                return await operate()

        return trio.from_thread.run(main, trio_token=self._token)

    def claim(self, tracker: Path, content: Path, manner: Manner) -> None:
        """Announce that it has all of a file, and serve it from `content` in that manner."""
        claim = _Claim(TrackerFile.decode(tracker.read_bytes()), content, manner)
        self._announcer.claims[claim.file_id] = claim
        assert self._token is not None
        self._token.run_sync_soon(self._announcer.announcements.tell)

    # As a fetcher

    @asynccontextmanager
    async def open(self, daemon: Daemon, file_id: str) -> AsyncIterator[tuple[MessageStream[Message], bytes]]:
        """In its loop: open a file at a client; the bitfield is empty if that does not serve it."""
        async with connect(daemon.socket) as client:
            host_id = (await client.status()).host
        transport = await self.network.dial_host(Address("127.0.0.1", listening_port(daemon)), host_id)
        stream, _ = await greet(transport, "swarm", "host")
        try:
            await stream.send(m.Open(bytes.fromhex(file_id), "normal"))
            is_served = isinstance(await stream.receive(), m.Bitfield)
            yield stream, await stream.receive_payload() if is_served else b""
        finally:
            stream.close()

    def served_pieces(self, daemon: Daemon, file_id: str, count: int) -> PieceSet:
        """Ask a client which of the `count` pieces of a file it has verified; none while it does not serve the file."""

        async def ask() -> PieceSet:
            async with self.open(daemon, file_id) as (_, bitfield):
                return PieceSet.from_bytes(count, bitfield) if bitfield else PieceSet(count)

        return self.run(ask)

    async def fetch_for_ever(self, daemon: Daemon, file_id: str, on_block: Callable[[], None]) -> None:
        """In its loop: fetch the first piece of a file again and again, until the connection ends."""
        async with self.open(daemon, file_id) as (stream, _):
            buffer = memoryview(bytearray(BLOCK_BYTES))
            while True:
                await stream.send(m.Ask([0]))
                while not isinstance(await stream.receive(), m.Piece):
                    pass
                await stream.receive_payload_into(buffer[: stream.payload_left])
                on_block()
                await trio.sleep(0.005)

    # Inside

    def _run_loop(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as e:  # noqa: BLE001 - it is raised in the test's thread
            self._failed = e
        finally:
            self._is_ready.set()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        rng = random.Random(self._name)
        identity = await join(TcpNetwork(), self._join_token, name=self._name, zone="", rng=rng, wall_clock=time.time)
        reach = Reach([Address.parse(master) for master in identity.masters])
        self.network = FleetNetwork(
            TcpNetwork(), credentials_of(identity), reach, wall_clock=time.time, revoked=frozenset()
        )
        self.host_id = identity.host_id
        listener = await TcpNetwork().listen(Address("127.0.0.1", 0))
        jobs = JobStore(self._fleet.directory / f"{self._name}.db")
        membership = Membership(identity, self.network, jobs, ThreadExecutor(1), rng=rng, wall_clock=time.time)
        link = MasterLink(
            self.network,
            membership,
            reach,
            self._announcer,
            _forget,
            _ignore,
            listen_port=listener.address.port,
            advertise="",
            rng=rng,
        )
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lambda: serve(listener, self._serve, max_connections=64))
                    if self._is_linked:
                        nursery.start_soon(link.run)
                        while not link.is_connected:  # noqa: ASYNC110 - it tells nobody
                            await trio.sleep(POLL_S)
                    self._is_ready.set()
        finally:
            jobs.close()

    async def _serve(self, transport: Transport) -> None:
        try:
            secured = await self.network.accept(transport)
            stream, _ = await welcome(secured, "swarm", lambda: self.network.admit(secured))
            assert secured.certified is not None
            served = Served(secured.certified.subject.host_id)
            self.served.append(served)
            try:
                await self._answer_all(stream, served)
            finally:
                served.ended_at = time.monotonic()
        except* InterFilesError:  # whoever asked is gone
            pass

    async def _answer_all(self, stream: MessageStream[Message], served: Served) -> None:
        opened = await stream.receive()
        assert isinstance(opened, m.Open)
        claim = self._announcer.claims[FileId(opened.file_id)]
        await stream.send(m.Bitfield(), PieceSet.full(claim.tracker.manifest.piece_count).to_bytes())
        async with trio.open_nursery() as nursery:
            due: deque[int] = deque()
            dropped: list[int] = []
            changed = Notice()

            async def answer() -> None:
                seen = 0
                while True:
                    if dropped:
                        pieces = dropped[: m.MAX_LISTED]
                        del dropped[: m.MAX_LISTED]
                        await stream.send(m.Dropped(pieces))
                    elif due:
                        for message, block in claim.blocks(due.popleft()):
                            served.answers += 1
                            await claim.manner.answer(stream, message, block)
                    else:
                        seen = await changed.later_than(seen)

            nursery.start_soon(answer)
            try:
                while True:
                    match await stream.receive():
                        case m.Ask(pieces=pieces):
                            served.asked += len(pieces)
                            due.extend(pieces)
                        case m.Cancel(pieces=pieces):
                            for piece in due.copy():
                                if piece in pieces:
                                    due.remove(piece)
                            dropped.extend(pieces)
                        case m.Complaint():
                            served.complaints += 1
                    changed.tell()
            finally:
                nursery.cancel_scope.cancel()
