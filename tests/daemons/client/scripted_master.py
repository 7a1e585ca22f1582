"""A master that says what a test tells it to."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from interfiles.errors import InterFilesError
from interfiles.manifest import Manifest
from interfiles.transport.base import Transport
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.message_stream import MessageStream, welcome
from interfiles.wire import master_messages as m
from interfiles.wire import session
from interfiles.wire.codec import Message
from tests.daemons.client.setting import DAEMON, EPOCH, FLEET, MASTER, MASTER_IP, id_of


@dataclass
class Master:
    """Admits, hears and publishes by itself; a test sees what it was told and changes what it answers.

    `answer`: in place of its own answer to a message; returns True if it has answered.
    """

    network: MemoryNetwork
    heartbeat_s: float = 10.0
    connections: list[MessageStream[Message]] = field(default_factory=list)
    connected_at: list[float] = field(default_factory=list)
    heard: list[tuple[Message, bytes]] = field(default_factory=list)
    holdings: dict[bytes, m.Holding] = field(default_factory=dict)
    catalogue: dict[bytes, Manifest] = field(default_factory=dict)
    answer: Callable[[MessageStream[Message], Message], Awaitable[bool]] | None = None
    fleet: str = FLEET
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def messages(self, kind: type[Message]) -> list[Message]:
        return [message for message, _ in self.heard if isinstance(message, kind)]

    @property
    def heartbeats(self) -> list[m.Heartbeat]:
        return [message for message, _ in self.heard if isinstance(message, m.Heartbeat)]

    async def push(self, message: Message, payload: bytes = b"") -> None:
        await self.connections[-1].send(message, payload)

    async def hand_out(self, file_id: bytes, *peers: m.PeerAddress, absent: tuple[m.AbsentHolder, ...] = ()) -> None:
        await self.push(m.Handout(file_id, list(peers), list(absent)))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self.scope = trio.CancelScope()
        with self.scope:
            listener = await self.network.host(MASTER_IP).listen(MASTER)
            try:
                async with trio.open_nursery() as nursery:
                    task_status.started()
                    while True:
                        nursery.start_soon(self._serve, await listener.accept())
            finally:
                listener.close()

    async def _serve(self, transport: Transport) -> None:
        try:
            stream, _ = await welcome(transport, "fleet", session.Identity(fleet=self.fleet))
            self.connections.append(stream)
            self.connected_at.append(trio.current_time())
            while True:
                message = await stream.receive()
                payload = await stream.receive_payload()
                self.heard.append((message, payload))
                if self.answer is None or not await self.answer(stream, message):
                    await self._answer(stream, message, payload)
        except InterFilesError:
            pass
        finally:
            transport.close()

    async def _answer(  # noqa: C901 - one case a message
        self, stream: MessageStream[Message], message: Message, payload: bytes
    ) -> None:
        match message:
            case m.Enrol(name=name):
                await stream.send(m.Enrolled(FLEET, id_of(name), name, b"credential".ljust(32)))
            case m.Register(name=name):
                await stream.send(m.Registered(name, str(DAEMON), self.heartbeat_s, 3))
            case m.Heartbeat(sequence=sequence):
                if message.replace:
                    self.holdings.clear()
                self.holdings.update({bytes(holding.file_id): holding for holding in message.holdings})
                await stream.send(m.Heard(sequence))
            case m.Publish(request=number, file_id=file_id):
                self.catalogue[file_id] = Manifest.decode(payload)
                await stream.send(m.Published(number, self.info(file_id)))
            case m.Resolve(request=number, query=query, with_manifest=with_manifest):
                found = [k for k, v in self.catalogue.items() if query == v.name or k.hex().startswith(query)]
                if found:
                    data = self.catalogue[found[0]].encode() if with_manifest else b""
                    await stream.send(m.Resolved(number, self.info(found[0])), data)
                else:
                    await stream.send(m.RequestFailed(number, "unknown-file", f"no file goes by {query}"))
            case m.ListHolders(request=number, file_id=file_id) if file_id in self.catalogue:
                await stream.send(m.HolderPage(number, self.info(file_id), 0, [], False))
            case m.Remove(request=number, file_id=file_id) if file_id in self.catalogue:
                del self.catalogue[file_id]
                await stream.send(m.Removed(number, 1))
            case m.ListHolders(request=number) | m.Remove(request=number):
                await stream.send(m.RequestFailed(number, "unknown-file", "the fleet has no such file"))
            case m.ListFiles(request=number):
                rows = [m.FileRow(self.info(file_id), 1, 0) for file_id in self.catalogue]
                await stream.send(m.FilePage(number, rows, False))
            case m.ListHosts(request=number):
                await stream.send(m.HostPage(number, [], False))

    def info(self, file_id: bytes) -> m.FileInfo:
        manifest = self.catalogue[file_id]
        return m.FileInfo(
            file_id,
            manifest.name,
            manifest.is_directory,
            len(manifest.entries),
            manifest.size,
            manifest.piece_size,
            manifest.piece_count,
            int(EPOCH),
            "uploader",
            3,
        )
