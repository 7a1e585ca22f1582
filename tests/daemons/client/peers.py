"""Peers on the other end of the daemon's swarm connections: honest by themselves, and as hostile as a test wants."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from daemons.client.notice import Notice
from interfiles.errors import InterFilesError, PeerGone
from interfiles.geometry import BLOCK_BYTES
from interfiles.identity import contexts
from interfiles.identity.contexts import Credentials
from interfiles.manifest import FileId
from interfiles.piece_set import PieceSet
from interfiles.priority import Priority
from interfiles.transport.base import Address, Transport
from interfiles.transport.message_stream import MessageStream, greet, welcome
from interfiles.transport.tls import TlsTransport, secure
from interfiles.wire import master_messages
from interfiles.wire import peer_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.handshake_messages import Failure
from tests.daemons.client.certificates import host_credentials
from tests.daemons.client.setting import DAEMON, id_of
from tests.daemons.client.world import World
from tests.storage.contents import Content

WINDOW: Final = 4  # pieces that an honest fetcher asks for ahead

Stream = MessageStream[Message]


class Fetcher:
    """A peer that fetches from the daemon."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.transport = stream.transport
        self.bitfield: bytes | None = None

    async def open(self, file_id: bytes, priority: Priority = "normal") -> None:
        """Name the file, and take its bitfield.

        Raises:
          InterFilesError: as the daemon refuses.
        """
        await self.stream.send(m.Open(file_id, priority))
        match await self.stream.receive():
            case m.Bitfield():
                self.bitfield = await self.stream.receive_payload()
            case other:
                raise AssertionError(other)

    async def ask(self, *pieces: int) -> None:
        for at in range(0, len(pieces), m.MAX_LISTED):
            await self.stream.send(m.Ask(list(pieces[at : at + m.MAX_LISTED])))

    async def cancel(self, *pieces: int, even_begun: bool = True) -> None:
        await self.stream.send(m.Cancel(list(pieces), even_begun))

    async def receive(self) -> tuple[Message, bytes]:
        """The next message and its payload."""
        message = await self.stream.receive()
        return message, await self.stream.receive_payload()

    async def answers(self, count: int, *, within_s: float = 60.0) -> list[Message]:
        """The next so many messages, without their payloads."""
        with trio.fail_after(within_s):
            return [(await self.receive())[0] for _ in range(count)]

    async def fetch(self, content: Content) -> bytes:
        """Fetch all of it as an honest peer would, and return it; the server keeps to the rules meanwhile."""
        geometry = content.manifest.geometry
        due, asked, made = deque(geometry.pieces()), dict[int, int](), bytearray()
        pieces: dict[int, bytearray] = {}
        coming: int | None = None
        while due or asked:
            while due and len(asked) < WINDOW:
                await self.ask(due[0])
                asked[due.popleft()] = 0
            message, payload = await self.receive()
            match message:
                case m.Piece(piece=piece, offset=offset):
                    length = geometry.piece_length(geometry.piece(piece))
                    assert coming in (None, piece), "no other piece's blocks come between those of a piece"
                    assert offset == asked[piece], "blocks come in order, of what was asked for"
                    assert len(payload) == min(BLOCK_BYTES, length - offset), "blocks are whole"
                    pieces.setdefault(piece, bytearray()).extend(payload)
                    asked[piece] += len(payload)
                    coming = piece if asked[piece] < length else None
                    if coming is None:
                        del asked[piece]
                case m.Busy():
                    pass
                case other:
                    raise AssertionError(other)
        for piece in geometry.pieces():
            made += pieces[piece]
        return bytes(made)

    async def end(self) -> list[Message]:
        """Read on until the daemon ends the connection; return what came."""
        came: list[Message] = []
        with trio.fail_after(120):
            while True:
                try:
                    came.append((await self.receive())[0])
                except PeerGone:
                    return came

    async def failure(self) -> str:
        """The code that the daemon ends the connection with."""
        last = (await self.end())[-1]
        assert isinstance(last, Failure), last
        return last.code


async def dialled(world: World, *, ip: str = "", shown: Credentials) -> TlsTransport:
    """A TLS connection to the daemon, with nothing said on it."""
    transport = await world.network.host(ip or world.new_ip()).dial(DAEMON)
    return await secure(transport, contexts.dialling(shown), accepted=False)


@asynccontextmanager
async def fetching(
    world: World,
    file_id: FileId | None = None,
    *,
    ip: str = "",
    name: str = "fetcher",
    shown: Credentials | None = None,
) -> AsyncIterator[Fetcher]:
    """A greeted peer, that has opened a file if one is named; it is the host `name`, or who `shown` says.

    Raises:
      InterFilesError: as the daemon refuses it.
    """
    transport = await dialled(world, ip=ip, shown=shown or host_credentials(name))
    stream, _ = await greet(transport, "swarm", "host")
    try:
        fetcher = Fetcher(stream)
        if file_id is not None:
            await fetcher.open(file_id)
        yield fetcher
    finally:
        stream.close()


async def honest_copy(world: World, content: Content, *, shown: Credentials | None = None) -> bytes:
    """What a peer gets that behaves."""
    with trio.fail_after(60):
        async with fetching(world, content.manifest.file_id, shown=shown) as fetcher:
            return await fetcher.fetch(content)


class Asked:
    """What one connection asks of a server and has not been answered yet."""

    def __init__(self) -> None:
        self.due: deque[int] = deque()
        self.dropped: list[int] = []
        self.changed = Notice()


class Server:
    """A peer that the daemon fetches from. Hostile ones override `open`, `answer` or `converse`, or what it `shows`.

    `claimed`: the pieces that it says it holds. What it hears is kept for the test: `asked` and `cancels` as it came,
    `answered` what it has begun to answer. It answers in the order in which it is asked.
    """

    def __init__(self, world: World, content: Content, name: str, *, claimed: PieceSet | None = None) -> None:
        self.world = world
        self.content = content
        self.name = name
        self.claimed = claimed if claimed is not None else content.all_pieces
        self.ip = world.new_ip()
        self.host_id = id_of(name)
        self.is_running = False
        self.opened_at: list[float] = []
        self.asked: list[int] = []
        self.answered: list[int] = []
        self.cancels: list[int] = []
        self.complaints: list[int] = []

    @property
    def peer(self) -> master_messages.PeerAddress:
        return master_messages.PeerAddress(self.host_id, self.name, "", f"{self.ip}:4851", self.claimed.is_full)

    def shows(self) -> Credentials:
        """How it proves to be who it is."""
        return host_credentials(self.name)

    def blocks(self, piece: int) -> list[tuple[m.Piece, bytes]]:
        """The right answer to what was asked for."""
        data = self.content.piece(piece)
        starts = range(0, len(data), BLOCK_BYTES)
        return [(m.Piece(piece, offset), data[offset : offset + BLOCK_BYTES]) for offset in starts]

    async def open(self, stream: Stream) -> None:
        await stream.send(m.Bitfield(), self.claimed.to_bytes())

    def hear(self, message: Message) -> None:
        """Any message of the fetcher's came."""

    async def answer(self, stream: Stream, piece: int) -> None:
        """Answer for one piece; nothing else is sent meanwhile."""
        for message, data in self.blocks(piece):
            await stream.send(message, data)

    async def drop(self, stream: Stream, pieces: list[int]) -> None:
        """Answer a `Cancel`, after what had been begun."""
        await stream.send(m.Dropped(pieces))

    async def converse(self, stream: Stream) -> None:
        """What follows the greeting."""
        opening = await stream.receive()
        assert isinstance(opening, m.Open), opening
        self.hear(opening)
        self.opened_at.append(trio.current_time())
        await self.open(stream)
        asked = Asked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._answer_all, stream, asked)
            while True:
                message = await stream.receive()
                self.hear(message)
                match message:
                    case m.Ask(pieces=pieces):
                        self.asked += pieces
                        asked.due += pieces
                    case m.Cancel(pieces=pieces):
                        self.cancels += pieces
                        asked.due = deque(piece for piece in asked.due if piece not in pieces)
                        asked.dropped += pieces
                    case m.Complaint(piece=piece):
                        self.complaints.append(piece)
                asked.changed.tell()

    async def _answer_all(self, stream: Stream, asked: Asked) -> None:
        seen = 0
        while True:
            if asked.dropped:
                pieces, asked.dropped = asked.dropped[: m.MAX_LISTED], asked.dropped[m.MAX_LISTED :]
                await self.drop(stream, pieces)
            elif asked.due:
                piece = asked.due.popleft()
                self.answered.append(piece)
                await self.answer(stream, piece)
            else:
                seen = await asked.changed.later_than(seen)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listener = await self.world.network.host(self.ip).listen(Address(self.ip, 4851))
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                nursery.start_soon(self._handle, await listener.accept())

    async def _handle(self, transport: Transport) -> None:
        try:
            secured = await secure(transport, contexts.accepting(self.shows()), accepted=True)
            stream, _ = await welcome(secured, "swarm", lambda: "host")
            await self.converse(stream)
        except* InterFilesError:
            pass
        finally:
            transport.close()


async def serving(world: World, *servers: Server) -> None:
    """Put servers into the network, until the world ends."""
    for server in servers:
        if not server.is_running:
            server.is_running = True
            await world.nursery.start(server.run)


async def hand_out(world: World, *servers: Server) -> None:
    """Put servers into the network, and have the master hand them out to the daemon."""
    await serving(world, *servers)
    await world.master.hand_out(servers[0].content.manifest.file_id, *[server.peer for server in servers])
