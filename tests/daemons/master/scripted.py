"""A master over the network in memory, and hosts that say exactly what a test tells them to."""

import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack

import trio

from daemons.master.app import CATALOGUE_NAME, Environment, MasterConfig, run
from interfiles.administration import Admin
from interfiles.errors import from_wire
from interfiles.geometry import MIN_PIECE_BYTES
from interfiles.identity import contexts
from interfiles.identity.authority import (
    LEAF_LIFE_S,
    Authority,
    new_key,
    public_key_of,
    read_certificate,
    request_for,
)
from interfiles.identity.contexts import Credentials
from interfiles.identity.subject import Subject
from interfiles.identity.token import JoinToken
from interfiles.manifest import FileEntry, Manifest
from interfiles.storage.catalogue import Catalogue
from interfiles.storage.executor import Executor, InlineExecutor
from interfiles.transport.base import Address, Transport
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.message_stream import MessageStream, greet
from interfiles.transport.tls import secure
from interfiles.wire import master_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.handshake_messages import Failure, Role

MASTER = "10.0.0.254"
EPOCH = 1_700_000_000.0

A = TypeVar("A", bound=Message)
T = TypeVar("T")
Args = TypeVarTuple("Args")


def manifest(name: str = "weights", *, seed: int = 0, pieces: int = 2) -> Manifest:
    """A file of whole pieces, of a content that nobody has."""
    hashes = random.Random(seed).randbytes(32 * pieces)
    size = pieces * MIN_PIECE_BYTES
    return Manifest.build(name, False, [FileEntry(name, size, False)], MIN_PIECE_BYTES, hashes)


def holding(file_id: bytes, state: m.HoldingState = "complete", pieces: int = 2) -> m.Holding:
    return m.Holding(file_id, state, pieces, 0, 0, "", False)


@dataclass
class Client:
    """One connection to the master, after its greeting.

    `role`: what the master says this end has proved to be; `credentials`: those that it has, None before it enrolled.
    """

    stream: MessageStream[Message]
    role: Role
    credentials: Credentials | None = None
    name: str = ""
    registered: m.Registered | None = None
    numbers: int = 0
    beats: int = 0
    pushed: list[Message] = field(default_factory=list)

    async def send(self, message: Message, payload: bytes = b"") -> None:
        await self.stream.send(message, payload)

    async def receive(self) -> tuple[Message, bytes]:
        """The next message and its payload; a `Failure` is raised as the error that it names."""
        message = await self.stream.receive()
        payload = await self.stream.receive_payload()
        if isinstance(message, Failure):
            raise from_wire(message.code, message.text)
        return message, payload

    async def expect(self, kind: type[A]) -> A:
        """Wait for a message of this kind; what is pushed before it is kept in `pushed`."""
        return (await self._expect(kind))[0]

    async def _expect(self, kind: type[A]) -> tuple[A, bytes]:
        while True:
            message, payload = await self.receive()
            if isinstance(message, kind):
                return message, payload
            if isinstance(message, m.RequestFailed):
                raise from_wire(message.code, message.text)
            self.pushed.append(message)

    @property
    def host_id(self) -> str:
        """Its own, as its certificate says."""
        assert self.credentials is not None
        return read_certificate(self.credentials.chain).subject.host_id

    async def enrol(self, token: JoinToken, name: str, *, zone: str = "", request: bytes = b"") -> m.Enrolled:
        """Join; `request`: a signing request to show in place of a right one."""
        key = new_key()
        await self.send(m.Enrol(token.token_id, token.secret, name, zone, request or request_for(key)))
        enrolled = await self.expect(m.Enrolled)
        self.name, self.credentials = enrolled.name, Credentials(enrolled.chain, key, enrolled.authorities)
        return enrolled

    async def register(self, *, name: str = "", zone: str = "", advertise: str = "", port: int = 4851) -> None:
        await self.send(m.Register(name or self.name, zone, advertise, port))
        self.registered = await self.expect(m.Registered)
        self.name = self.registered.name

    async def renew(self) -> Credentials:
        """Get a new certificate, for a new key."""
        key = new_key()
        answer, _ = await self.ask(m.Renewed, lambda number: m.Renew(number, request_for(key)))
        self.credentials = Credentials(answer.chain, key, answer.authorities)
        return self.credentials

    async def announce(self, *holdings: m.Holding, replace: bool = False) -> None:
        """A heartbeat, heard."""
        self.beats += 1
        await self.send(m.Heartbeat(self.beats, 100, 900, replace, list(holdings)))
        heard = await self.expect(m.Heard)
        assert heard.sequence == self.beats

    async def ask(self, kind: type[A], make: Callable[[int], Message], payload: bytes = b"") -> tuple[A, bytes]:
        self.numbers += 1
        await self.send(make(self.numbers), payload)
        return await self._expect(kind)

    async def publish(self, published: Manifest, *, replicas: int = 0, file_id: bytes | None = None) -> m.FileInfo:
        def make(number: int) -> Message:
            return m.Publish(number, file_id or published.file_id, 1_700_000_000, replicas, 0, False)

        answer, _ = await self.ask(m.Published, make, published.encode())
        return answer.info

    async def resolve(self, query: str, *, with_manifest: bool = False) -> tuple[m.FileInfo, bytes]:
        def make(number: int) -> Message:
            return m.Resolve(number, query, with_manifest)

        answer, payload = await self.ask(m.Resolved, make)
        return answer.info, payload

    async def holders(self, file_id: bytes) -> m.HolderPage:
        return (await self.ask(m.HolderPage, lambda number: m.ListHolders(number, file_id, 0)))[0]

    async def files(self, start: int = 0) -> m.FilePage:
        return (await self.ask(m.FilePage, lambda number: m.ListFiles(number, start)))[0]

    async def hosts(self) -> dict[str, m.HostRow]:
        page, _ = await self.ask(m.HostPage, lambda number: m.ListHosts(number, 0))
        return {row.name: row for row in page.hosts}

    async def remove(self, file_id: bytes, *, delete: bool = False) -> int:
        answer, _ = await self.ask(m.Removed, lambda number: m.Remove(number, file_id, delete))
        return answer.hosts

    async def handout(self) -> m.Handout:
        """The next handout that is pushed, or one that came already."""
        return await self.next(m.Handout)

    async def next(self, kind: type[A]) -> A:
        """The next message of this kind that is pushed, or one that came already."""
        for message in self.pushed:
            if isinstance(message, kind):
                self.pushed.remove(message)
                return message
        return await self.expect(kind)

    def told(self, kind: type[A]) -> list[A]:
        """Every message of this kind that was pushed and not taken yet."""
        return [message for message in self.pushed if isinstance(message, kind)]

    def close(self) -> None:
        self.stream.close()


def peers(handout: m.Handout) -> dict[str, bool]:
    """Name of each peer, and whether it has everything."""
    return {peer.name: peer.complete for peer in handout.peers}


class SlowExecutor:
    """One function at a time, each after a second: others get their turn meanwhile."""

    def __init__(self) -> None:
        self._turn = trio.Lock()

    async def run(self, function: Callable[[Unpack[Args]], T], *args: *Args) -> T:
        async with self._turn:
            await trio.sleep(1)
            return function(*args)


class Fleet:
    """A master that starts and stops, on one state directory.

    `ahead_s`: how much faster than trio's clock the wall clock has gone, so that a test can let a year pass at once.
    """

    def __init__(self, state: Path, nursery: trio.Nursery, *, window_bytes: int) -> None:
        self.network = MemoryNetwork(random.Random(1), window_bytes=window_bytes)
        self.state = state
        self.said: list[str] = []
        self._nursery = nursery
        self.grace_s = 120.0
        self.max_connections = 100
        self.listen = Address("0.0.0.0", 4850)
        self.advertise: Address | None = None
        self.ahead_s = 0.0
        self.executor: Callable[[int], Executor] = lambda _: InlineExecutor()
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._addresses = iter(range(1, 250))

    @property
    def token(self) -> JoinToken:
        """What the master said last."""
        return JoinToken.decode(next(line for line in reversed(self.said) if "--join" in line).split()[-1])

    def now(self) -> float:
        """The master's wall clock, in Unix seconds."""
        return EPOCH + trio.current_time() + self.ahead_s

    @property
    def admin(self) -> Admin:
        return Admin(self.state)

    async def start(self) -> None:
        rng = random.Random(os.urandom(8))  # a restarted master must not mint the same ids again
        environment = Environment(
            network=self.network.host(MASTER),
            executor=self.executor,
            rng=rng,
            secret=rng.randbytes,
            wall_clock=self.now,
            outward_host=lambda: MASTER,
            say=self.said.append,
        )
        config = MasterConfig(
            state=self.state,
            listen=self.listen,
            advertise=self.advertise,
            grace_s=self.grace_s,
            max_connections=self.max_connections,
        )
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        await self._nursery.start(self._run, partial(run, config, environment))

    async def _run(self, main: partial[object], *, task_status: trio.TaskStatus[None]) -> None:
        try:
            with self._scope:
                await main(task_status=task_status)  # type: ignore[misc]
        finally:
            self._ended.set()

    async def stop(self) -> None:
        self._scope.cancel()
        await self._ended.wait()

    async def crash(self) -> None:
        """As kill -9 does: peers see their connections break, and nothing is cleaned up that they could see."""
        self.network.crash(MASTER)
        await self.stop()

    async def connect(self, *, ip: str = "") -> Transport:
        """A connection without TLS, from an address of one's own."""
        network = self.network.host(ip or f"10.0.0.{next(self._addresses)}")
        return await network.dial(Address(MASTER, 4850))

    async def dial(self, credentials: Credentials | None = None, *, ip: str = "") -> Client:
        """Connect and greet; without credentials as one who knows the fleet's CA and shows no certificate."""
        if credentials is None:
            context = contexts.joining(self.authorities()[0].certificate)
        else:
            context = contexts.dialling(credentials)
        transport = await secure(await self.connect(ip=ip), context, accepted=False)
        stream, welcome = await greet(transport, "fleet", "master")
        return Client(stream, welcome.role, credentials)

    @property
    def fleet_id(self) -> str:
        with self.catalogue() as catalogue:
            return catalogue.fleet_id

    def authorities(self) -> list[Authority]:
        """The fleet's CAs with their keys, the newest first."""
        with self.catalogue() as catalogue:
            return [stored.authority for stored in catalogue.authorities.load()]

    def catalogue(self) -> closing[Catalogue]:
        """What is in the master's state directory now."""
        return closing(Catalogue(self.state / CATALOGUE_NAME, new_fleet_id="", now=0))

    def mint(
        self,
        subject: Subject,
        *,
        signer: Authority | None = None,
        trusted: Authority | None = None,
        now: float | None = None,
        life_s: float = LEAF_LIFE_S,
    ) -> Credentials:
        """A certificate that no master has issued: signed by `signer`, else with the fleet's own CA."""
        (newest, *_), key = self.authorities(), new_key()
        made = (signer or newest).issue(
            public_key_of(key), subject, now=self.now() if now is None else now, life_s=life_s
        )
        return Credentials(made, key, [(trusted or newest).certificate])

    async def enrol(self, name: str, *, token: JoinToken | None = None, zone: str = "", ip: str = "") -> Client:
        """A new host, not up yet: an identity on a connection that has just been greeted."""
        enrolling = await self.dial(ip=ip)
        await enrolling.enrol(token or self.token, name, zone=zone)
        enrolling.close()
        client = await self.dial(enrolling.credentials, ip=ip)
        client.name = enrolling.name
        return client

    async def join(self, name: str, *, zone: str = "") -> Client:
        """A new host, up, that holds nothing."""
        client = await self.enrol(name, zone=zone)
        await client.register(zone=zone)
        await client.announce(replace=True)
        return client

    async def rejoin(self, known: Client, *, holdings: Sequence[m.Holding] | None = ()) -> Client:
        """A host that is known, on a new connection; `holdings` None: it announces nothing yet."""
        client = await self.dial(known.credentials)
        client.name = known.name
        await client.register()
        if holdings is not None:
            await client.announce(*holdings, replace=True)
        return client


@asynccontextmanager
async def running_master(state: Path, *, window_bytes: int = 256 << 10) -> AsyncIterator[Fleet]:
    """A master that has just started for the first time."""
    async with trio.open_nursery() as nursery:
        fleet = Fleet(state, nursery, window_bytes=window_bytes)
        await fleet.start()
        yield fleet
        nursery.cancel_scope.cancel()
