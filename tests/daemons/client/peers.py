"""Peers on the other end of the daemon's swarm connections: honest by themselves, and as hostile as a test wants."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from interfiles.errors import InterFilesError, PeerGone
from interfiles.geometry import Block
from interfiles.identity import contexts
from interfiles.identity.contexts import Credentials
from interfiles.manifest import FileId
from interfiles.piece_set import PieceSet
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

WINDOW: Final = 4  # blocks that an honest fetcher asks for ahead

Stream = MessageStream[Message]


class Fetcher:
    """A peer that fetches from the daemon."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.transport = stream.transport
        self.bitfield: bytes | None = None

    async def open(self, file_id: bytes) -> None:
        """Name the file, and take its bitfield.

        Raises:
          InterFilesError: as the daemon refuses.
        """
        await self.stream.send(m.Open(file_id))
        match await self.stream.receive():
            case m.Bitfield():
                self.bitfield = await self.stream.receive_payload()
            case other:
                raise AssertionError(other)

    async def request(self, block: Block) -> None:
        await self.stream.send(m.Request(block.piece, block.offset, block.length))

    async def receive(self) -> tuple[Message, bytes]:
        """The next message and its payload."""
        message = await self.stream.receive()
        return message, await self.stream.receive_payload()

    async def fetch(self, content: Content) -> bytes:
        """Fetch all of it as an honest peer would, and return it."""
        geometry = content.manifest.geometry
        due = deque(block for piece in geometry.pieces() for block in geometry.blocks(piece))
        asked: dict[tuple[int, int], Block] = {}
        made = bytearray(content.manifest.size)
        while due or asked:
            while due and len(asked) < WINDOW:
                block = due.popleft()
                asked[block.piece, block.offset] = block
                await self.request(block)
            message, payload = await self.receive()
            match message:
                case m.Piece(piece=piece, offset=offset):
                    block = asked.pop((piece, offset))
                    assert len(payload) == block.length
                    start = geometry.piece_offset(block.piece) + offset
                    made[start : start + block.length] = payload
                case m.Busy(piece=piece, offset=offset, retry_after_ms=retry_after_ms):
                    due.append(asked.pop((piece, offset)))
                    await trio.sleep(retry_after_ms / 1000)
                case other:
                    raise AssertionError(other)
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


class Server:
    """A peer that the daemon fetches from. Hostile ones override `open`, `answer` or `converse`, or what it `shows`.

    `claimed`: the pieces that it says it holds. What it hears is kept for the test.
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
        self.requests: list[m.Request] = []
        self.cancels: list[int] = []
        self.complaints: list[int] = []

    @property
    def peer(self) -> master_messages.PeerAddress:
        return master_messages.PeerAddress(self.host_id, self.name, "", f"{self.ip}:4851", self.claimed.is_full)

    def shows(self) -> Credentials:
        """How it proves to be who it is."""
        return host_credentials(self.name)

    def data(self, request: m.Request) -> bytes:
        return self.content.piece(request.piece)[request.offset : request.offset + request.length]

    async def open(self, stream: Stream) -> None:
        await stream.send(m.Bitfield(), self.claimed.to_bytes())

    async def answer(self, stream: Stream, request: m.Request) -> None:
        await stream.send(m.Piece(request.piece, request.offset), self.data(request))

    async def converse(self, stream: Stream) -> None:
        """What follows the greeting."""
        opening = await stream.receive()
        assert isinstance(opening, m.Open), opening
        self.opened_at.append(trio.current_time())
        await self.open(stream)
        while True:
            match await stream.receive():
                case m.Request() as request:
                    self.requests.append(request)
                    await self.answer(stream, request)
                case m.Cancel(piece=piece):
                    self.cancels.append(piece)
                case m.Complaint(piece=piece):
                    self.complaints.append(piece)

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
