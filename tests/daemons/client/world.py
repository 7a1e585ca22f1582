"""A client daemon under test, in virtual time, and around it a master and peers that do what a test tells them to."""

import gc
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from daemons.client import app
from daemons.client.hooks import Runner
from interfiles.errors import from_wire
from interfiles.identity.token import JoinToken
from interfiles.manifest import FileId, Manifest
from interfiles.priority import Priority
from interfiles.storage.executor import Executor, InlineExecutor
from interfiles.storage.jobs import JobStore
from interfiles.transport.base import Listener
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.message_stream import MessageStream, greet
from interfiles.wire import control_messages as c
from interfiles.wire.codec import Message
from interfiles.wire.handshake_messages import Failure
from interfiles.wire.reports import (
    DownloadReport,
    LimitReport,
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
from tests.daemons.client.certificates import identity
from tests.daemons.client.scripted_master import Master
from tests.daemons.client.setting import CALLER_IP, CONTROL, DAEMON, DAEMON_IP, EPOCH, tracker_of, until
from tests.storage.contents import Content


class Daemon:
    """The client daemon; its directory survives crashes, and what a test sets here holds from its next start."""

    def __init__(self, directory: Path, network: MemoryNetwork, nursery: trio.Nursery) -> None:
        self.network = network
        self.state = directory / "state"
        self.state.mkdir(parents=True)
        self.got = directory / "got"
        self.got.mkdir()
        self.quota: int | None = None
        self.keep_free: int | None = None
        self.limit_up: int | None = None
        self.limit_down: int | None = None
        self.scrub_every_s: float | None = None
        self.hook_runner: Runner | None = None
        self.token: JoinToken | None = None
        self.spare_token = ""
        self.clock_ahead_s = 0.0
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

    @property
    def now(self) -> float:
        """Its wall clock."""
        return EPOCH + trio.current_time() + self.clock_ahead_s

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
            wall_clock=lambda: self.now,
            hook_runner=self.hook_runner,
        )
        config = app.ClientConfig(
            state=self.state,
            socket=self.state / "sock",
            listen=DAEMON,
            name="tested",
            quota=self.quota,
            keep_free=self.keep_free,
            token=self.token,
            spare_token=self.spare_token,
            limit_up=self.limit_up,
            limit_down=self.limit_down,
            scrub_every_s=self.scrub_every_s,
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
        stream, _ = await greet(transport, "control", "local")
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
        return await self.ask(c.Upload(os.fsencode(path), None, copy, None), UploadReport)

    async def download(
        self,
        wanted: Manifest,
        directory: Path | None = None,
        *,
        overwrite: bool = False,
        detach: bool = False,
        timeout_s: float | None = None,
        priority: Priority | None = None,
    ) -> DownloadReport:
        where = os.fsencode(directory or self.got)
        request = c.Download("", where, overwrite, detach, timeout_s, priority)
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

    async def limit(self, *, up: int | None = None, down: int | None = None) -> LimitReport:
        return await self.ask(c.Limit(up, down), LimitReport)

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
        gc.collect()  # so have descriptors of tests before this one
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
