"""A master that says what a test tells it to."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from daemons.client.joining import join
from interfiles.errors import CertificateExpired, InterFilesError, NotAdmitted
from interfiles.identity import contexts
from interfiles.identity.authority import Authority, new_key, public_key_of, read_request
from interfiles.identity.contexts import Credentials
from interfiles.identity.subject import Certified, Subject
from interfiles.identity.token import JoinToken
from interfiles.manifest import Manifest
from interfiles.storage.records import Identity
from interfiles.transport.base import Address, Transport
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.message_stream import MessageStream, welcome
from interfiles.transport.tls import secure
from interfiles.wire import master_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.handshake_messages import Role
from tests.daemons.client.certificates import CA, MASTER_SUBJECT, join_token
from tests.daemons.client.setting import DAEMON, DAEMON_IP, EPOCH, FLEET, MASTER, id_of

Answer = Callable[[MessageStream[Message], Message], Awaitable[bool]]


def saying(kind: type[Message], *answers: Message) -> Answer:
    """A master that answers messages of a kind with these in place of its own, and leaves it at that."""

    async def answer(stream: MessageStream[Message], message: Message) -> bool:
        if isinstance(message, kind):
            for each in answers:
                await stream.send(each)
        return isinstance(message, kind)

    return answer


@dataclass
class Master:
    """Admits, certifies, hears and publishes by itself; a test sees what it was told and changes what it answers.

    `answer`: in place of its own answer to a message; returns True if it has answered. `authorities`: its CAs, the
    newest first. `shown`: a certificate in place of its own. `removed`: ids of hosts that it has removed.
    """

    network: MemoryNetwork
    heartbeat_s: float = 10.0
    connections: list[MessageStream[Message]] = field(default_factory=list)
    connected_at: list[float] = field(default_factory=list)
    heard: list[tuple[Message, bytes]] = field(default_factory=list)
    holdings: dict[bytes, m.Holding] = field(default_factory=dict)
    catalogue: dict[bytes, Manifest] = field(default_factory=dict)
    answer: Answer | None = None
    address: Address = MASTER
    authorities: list[Authority] = field(default_factory=lambda: [CA])
    cross_certificate: str = ""
    shown: Credentials | None = None
    removed: list[str] = field(default_factory=list)
    clock_ahead_s: float = 0.0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def messages(self, kind: type[Message]) -> list[Message]:
        return [message for message, _ in self.heard if isinstance(message, kind)]

    @property
    def heartbeats(self) -> list[m.Heartbeat]:
        return [message for message, _ in self.heard if isinstance(message, m.Heartbeat)]

    async def push(self, message: Message, payload: bytes = b"") -> None:
        await self.connections[-1].send(message, payload)

    async def hand_out(
        self,
        file_id: bytes,
        *peers: m.PeerAddress,
        absent: tuple[m.AbsentHolder, ...] = (),
        gateways: tuple[str, ...] = (),
    ) -> None:
        await self.push(m.Handout(file_id, list(peers), list(absent), list(gateways)))

    @property
    def now(self) -> float:
        """Its wall clock."""
        return EPOCH + trio.current_time() + self.clock_ahead_s

    @property
    def certificates(self) -> list[str]:
        return [authority.certificate for authority in self.authorities]

    def issue(self, request: bytes, host_id: str) -> str:
        """The chain for the key of a signing request."""
        leaf = self.authorities[0].issue(read_request(request), Subject(FLEET, "host", host_id), now=self.now)
        return leaf + self.cross_certificate

    def rotate(self) -> None:
        """Make a new CA, and say nothing of it yet."""
        made = Authority.make(FLEET, now=self.now)
        self.cross_certificate = self.authorities[0].cross_sign(made, now=self.now)
        self.authorities.insert(0, made)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self.scope = trio.CancelScope()
        with self.scope:
            listener = await self.network.host(self.address.host).listen(self.address)
            try:
                async with trio.open_nursery() as nursery:
                    task_status.started()
                    while True:
                        nursery.start_soon(self._serve, await listener.accept())
            finally:
                listener.close()

    async def _serve(self, transport: Transport) -> None:
        try:
            secured = await secure(transport, contexts.accepting(self._credentials(), strangers=True), accepted=True)
            certified = secured.certified
            stream, _ = await welcome(secured, "fleet", lambda: self._admit(certified))
            self.connections.append(stream)
            self.connected_at.append(trio.current_time())
            while True:
                message = await stream.receive()
                payload = await stream.receive_payload()
                self.heard.append((message, payload))
                if self.answer is None or not await self.answer(stream, message):
                    await self._answer(stream, message, payload, certified)
        except InterFilesError:
            pass
        finally:
            transport.close()

    def _credentials(self) -> Credentials:
        if self.shown is not None:
            return self.shown
        key, newest = new_key(), self.authorities[0]
        leaf = newest.issue(public_key_of(key), MASTER_SUBJECT, now=self.now)
        return Credentials(leaf + self.cross_certificate, key, self.certificates)

    def _admit(self, certified: Certified | None) -> Role:
        if certified is None:
            return "stranger"
        if certified.subject.host_id in self.removed:
            raise NotAdmitted("this host was removed; join it anew")
        try:
            certified.check_time(self.now)
        except CertificateExpired:
            return "lapsed"
        return "host"

    async def _answer(  # noqa: C901 - one case a message
        self, stream: MessageStream[Message], message: Message, payload: bytes, certified: Certified | None
    ) -> None:
        match message:
            case m.GetAuthorities():
                await stream.send(m.Authorities(self.certificates, False))
            case m.Enrol(name=name, signing_request=request):
                await stream.send(m.Enrolled(name, self.issue(request, id_of(name)), self.certificates))
            case m.Renew(request=number, signing_request=request) if certified is not None:
                chain = self.issue(request, certified.subject.host_id)
                await stream.send(m.Renewed(number, chain, self.certificates))
            case m.Register(name=name):
                await stream.send(m.Registered(name, str(DAEMON), self.heartbeat_s, 3))
                await stream.send(m.Authorities(self.certificates, False))
                await stream.send(m.Revoked(True, self.removed))
            case m.Heartbeat(sequence=sequence):
                if message.replace:
                    self.holdings.clear()
                self.holdings.update({bytes(holding.file_id): holding for holding in message.holdings})
                await stream.send(m.Heard(sequence))
            case m.Publish(request=number, file_id=file_id):
                self.catalogue[file_id] = Manifest.decode(payload)
                await stream.send(m.Published(number, self.info(file_id), 1))
            case m.Resolve(request=number, query=query, with_manifest=with_manifest):
                found = [k for k, v in self.catalogue.items() if query == v.name or k.hex().startswith(query)]
                if found:
                    data = self.catalogue[found[0]].encode() if with_manifest else b""
                    await stream.send(m.Resolved(number, self.info(found[0])), data)
                else:
                    await stream.send(m.RequestFailed(number, "unknown-file", f"no file goes by {query}"))
            case m.ListHolders(request=number, file_id=file_id) if file_id in self.catalogue:
                await stream.send(m.HolderPage(number, self.info(file_id), 0, [], False, 0, "", 1))
            case m.Remove(request=number, file_id=file_id) if file_id in self.catalogue:
                del self.catalogue[file_id]
                await stream.send(m.Removed(number, 1))
            case m.ListHolders(request=number) | m.Remove(request=number):
                await stream.send(m.RequestFailed(number, "unknown-file", "the fleet has no such file"))
            case m.ListFiles(request=number):
                rows = [m.FileRow(self.info(file_id), 1, 0, 0, "") for file_id in self.catalogue]
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
            0,
        )


async def joined(network: MemoryNetwork, token: JoinToken | None = None, *, clock_ahead_s: float = 0.0) -> Identity:
    """Join as the host `new`."""
    return await join(
        network.host(DAEMON_IP),
        token or join_token(),
        name="new",
        zone="rack-a",
        rng=random.Random(1),
        wall_clock=lambda: EPOCH + trio.current_time() + clock_ahead_s,
    )
