"""A client daemon under test, in virtual time, and around it a master and peers that do what a test tells them to."""

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from blake3 import blake3

from daemons.client import app
from interfiles.errors import InterFilesError, from_wire
from interfiles.identity.token import JoinToken
from interfiles.manifest import FileId, Manifest
from interfiles.storage.executor import Executor, InlineExecutor
from interfiles.storage.jobs import Identity, JobStore
from interfiles.tracker_file import TrackerFile
from interfiles.transport.base import Address, Listener, Transport
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.memory_links import Link
from interfiles.transport.message_stream import MessageStream, greet, welcome
from interfiles.wire import control_messages as c
from interfiles.wire import master_messages as m
from interfiles.wire import session
from interfiles.wire.codec import Message
from interfiles.wire.handshake_messages import Failure
from interfiles.wire.reports import (
    DownloadReport,
    R,
    RemoveReport,
    StatReport,
    StatusReport,
    TransferReport,
    TransferStateReport,
    UploadReport,
    VerifyReport,
    decode_report,
)
from tests.storage.contents import Content

DAEMON_IP, MASTER_IP, CALLER_IP = "10.0.0.1", "10.0.0.254", "10.0.0.101"
DAEMON, MASTER, CONTROL = Address(DAEMON_IP, 4851), Address(MASTER_IP, 4850), Address(DAEMON_IP, 1)
FLEET = "f1" * 16
EPOCH = 1_700_000_000.0


def id_of(name: str) -> str:
    """The host id of a host of this name."""
    return blake3(name.encode()).hexdigest()[:32]


def identity(name: str = "tested") -> Identity:
    return Identity(FLEET, id_of(name), name, "", b"credential".ljust(32), (str(MASTER),))


def tracker_of(manifest: Manifest) -> bytes:
    return TrackerFile(manifest, (str(MASTER),), "uploader", int(EPOCH), FLEET).encode()


def link(rate: float = 2e6, latency_s: float = 0.0005) -> Link:
    """A line of `rate` bytes a second each way."""
    return Link(uplink_bytes_per_s=rate, downlink_bytes_per_s=rate, latency_s=latency_s)


async def until(condition: Callable[[], object], *, within_s: float = 60.0, every_s: float = 0.01) -> None:
    """Wait in virtual time until the condition, a plain or an async function, holds."""
    with trio.fail_after(within_s):
        while True:
            value = condition()
            if (await value) if hasattr(value, "__await__") else value:
                return
            await trio.sleep(every_s)


def unpack(group: BaseException) -> BaseException:
    """The first error that is no group."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


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
    answer: Callable[[MessageStream[Message], Message], "trio.abc.AsyncResource | object"] | None = None
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
                if self.answer is None or not await self.answer(stream, message):  # type: ignore[misc]
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


class Daemon:
    """The client daemon; its directory survives crashes, and what a test sets here holds from its next start."""

    def __init__(self, directory: Path, network: MemoryNetwork, nursery: trio.Nursery) -> None:
        self.network = network
        self.state = directory / "state"
        self.state.mkdir(parents=True)
        self.got = directory / "got"
        self.got.mkdir()
        self.quota: int | None = None
        self.token: JoinToken | None = None
        self.disk: Executor = InlineExecutor()
        self.database: Executor = InlineExecutor()
        self.serving: app.Serving | None = None
        self._nursery = nursery
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    def join(self) -> None:
        """Give the daemon the identity that it would have after joining."""
        jobs = JobStore(self.state / "client.db")
        jobs.save_identity(identity())
        jobs.close()

    async def start(self) -> None:
        network = self.network.host(DAEMON_IP)

        async def listen_control(path: Path) -> Listener:
            return await network.listen(CONTROL)

        environment = app.Environment(
            network=network,
            listen_control=listen_control,
            database=self.database,
            disk=self.disk,
            rng=random.Random(1),
            wall_clock=lambda: EPOCH + trio.current_time(),
        )
        config = app.ClientConfig(
            state=self.state,
            socket=self.state / "sock",
            listen=DAEMON,
            name="tested",
            quota=self.quota,
            token=self.token,
        )
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        self.serving = await self._nursery.start(self._run, config, environment)

    async def _run(
        self, config: app.ClientConfig, environment: app.Environment, *, task_status: trio.TaskStatus[app.Serving]
    ) -> None:
        try:
            with self._scope:
                await app.run(config, environment, task_status=task_status)
        finally:
            self._ended.set()

    async def stop(self) -> None:
        self._scope.cancel()
        await self._ended.wait()

    async def crash(self) -> None:
        """As kill -9 does: peers see their connections break."""
        self.network.crash(DAEMON_IP)
        await self.stop()

    async def restart(self) -> None:
        await self.crash()
        await self.start()

    def records(self) -> JobStore:
        """The database of a daemon that is not running."""
        return JobStore(self.state / "client.db")

    # What the CLI does

    @asynccontextmanager
    async def calling(self, request: Message, payload: bytes = b"") -> AsyncIterator[MessageStream[Message]]:
        """Send a request; what comes back is the test's to read, and leaving is the caller's going away."""
        transport = await self.network.host(CALLER_IP).dial(CONTROL)
        stream, _ = await greet(transport, "control", session.Identity())
        try:
            await stream.send(request, payload)
            yield stream
        finally:
            stream.close()

    async def ask(
        self, request: Message, kind: type[R], payload: bytes = b"", *, shown: list[c.Progress] | None = None
    ) -> R:
        """One request: its report, or the error that the daemon names."""
        async with self.calling(request, payload) as stream:
            return decode_report(await result_of(stream, shown), kind)

    async def upload(self, path: Path, *, copy: bool = False) -> UploadReport:
        return await self.ask(c.Upload(os.fsencode(path), None, copy), UploadReport)

    async def download(
        self,
        wanted: Manifest,
        directory: Path | None = None,
        *,
        overwrite: bool = False,
        detach: bool = False,
        timeout_s: float | None = None,
    ) -> DownloadReport:
        where = os.fsencode(directory or self.got)
        request = c.Download("", where, overwrite, detach, timeout_s)
        return await self.ask(request, DownloadReport, tracker_of(wanted))

    async def wait(self, wanted: Manifest, *, timeout_s: float | None = None) -> DownloadReport:
        return await self.ask(c.Wait("", timeout_s), DownloadReport, tracker_of(wanted))

    async def stat(self, wanted: Manifest) -> StatReport:
        return await self.ask(c.Stat(""), StatReport, tracker_of(wanted))

    async def verify(self, wanted: Manifest) -> VerifyReport:
        return await self.ask(c.Verify(""), VerifyReport, tracker_of(wanted))

    async def remove(self, wanted: Manifest, *, delete: bool = False, local: bool = True) -> RemoveReport:
        return await self.ask(c.Remove("", local, delete), RemoveReport, tracker_of(wanted))

    async def pause(self, wanted: Manifest) -> str:
        return (await self.ask(c.Pause(""), TransferStateReport, tracker_of(wanted))).state

    async def resume(self, wanted: Manifest) -> str:
        return (await self.ask(c.Resume(""), TransferStateReport, tracker_of(wanted))).state

    async def status(self) -> StatusReport:
        return await self.ask(c.Status(), StatusReport)

    async def transfer(self) -> TransferReport:
        """The only file that is not complete."""
        (found,) = (await self.status()).transfers
        return found


async def result_of(stream: MessageStream[Message], shown: list[c.Progress] | None = None) -> bytes:
    """Read up to the result and return its payload; a `Failure` is raised as the error that it names."""
    while True:
        match await stream.receive():
            case c.Progress() as progress:
                if shown is not None:
                    shown.append(progress)
            case c.Result():
                return await stream.receive_payload()
            case Failure(code=code, text=text):
                raise from_wire(code, text)


@dataclass
class World:
    """The daemon, its master, and the network that peers of a test's own can be put into."""

    network: MemoryNetwork
    daemon: Daemon
    master: Master
    nursery: trio.Nursery
    directory: Path
    _peers: int = 0

    def new_ip(self) -> str:
        """An address that nobody has yet."""
        self._peers += 1
        return f"10.0.1.{self._peers}"

    @property
    def connections(self) -> int:
        """Connections that an end has not closed yet, over the whole network."""
        return len(self.network._pipes) // 2

    @asynccontextmanager
    async def leaving_nothing(self, within_s: float = 0.1) -> AsyncIterator[None]:
        """Fail unless there are as many tasks, connections and open files afterwards as before, soon after the end."""
        await trio.sleep(3)  # what ended just now has closed
        before = self._counts()
        yield
        with trio.move_on_after(within_s):
            await until(lambda: self._counts() == before)
        assert self._counts() == before, "tasks, connections, open files"

    def _counts(self) -> tuple[int, int, int]:
        tasks = trio.lowlevel.current_statistics().tasks_living
        return tasks, self.connections, len(os.listdir("/proc/self/fd"))

    async def seed(self, content: Content) -> FileId:
        """Have the daemon serve a content."""
        await self.daemon.upload(content.root)
        return content.manifest.file_id


@asynccontextmanager
async def running_world(directory: Path, *, joined: bool = True) -> AsyncIterator[World]:
    """A daemon that is registered with its master; `joined` False: one that is still to join, and to start."""
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(random.Random(1))
        daemon, master = Daemon(directory / "tested", network, nursery), Master(network)
        await nursery.start(master.run)
        if joined:
            daemon.join()
            await daemon.start()
            await until(lambda: master.heartbeats)
        yield World(network, daemon, master, nursery, directory)
        nursery.cancel_scope.cancel()
