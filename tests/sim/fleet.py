"""A whole fleet in one process and in virtual time: the real daemons over a network in memory.

Blocking work runs inline, so the clock never jumps over it. A crash fails the host's network first and cancels its
tasks then: a dead host tells nobody anything.
"""

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from daemons.client import app as client_app
from daemons.master import app as master_app
from interfiles.administration import Admin
from interfiles.errors import from_wire
from interfiles.identity.token import JoinToken
from interfiles.storage.executor import InlineExecutor
from interfiles.transport.base import Address, Listener
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.message_stream import greet
from interfiles.wire import control_messages as c
from interfiles.wire.codec import Message
from interfiles.wire.handshake_messages import Failure
from interfiles.wire.reports import (
    DownloadReport,
    HostListReport,
    R,
    StatReport,
    StatusReport,
    UploadReport,
    VerifyReport,
    decode_report,
)

MASTER = "10.0.0.254"
CONTROL_PORT = 1
EPOCH = 1_700_000_000.0


@dataclass
class Host:
    """One simulated host: its directory survives crashes, its daemon does not."""

    name: str
    ip: str
    directory: Path
    fleet: "Fleet"
    zone: str | None = None
    clock_ahead_s: float = 0.0
    quota: int | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)

    async def ask(self, request: Message, kind: type[R], *, content: bytes = b"") -> R:
        """What the CLI does: one request, its report or error."""
        return (await self._converse(request, kind, content))[0]

    async def upload(self, path: Path, **options: object) -> tuple[UploadReport, bytes]:
        """Upload; return the report and the tracker file's content."""
        request = c.Upload(
            os.fsencode(path),
            replicas=options.get("replicas"),  # type: ignore[arg-type]
            copy=bool(options.get("copy")),
            expire_s=options.get("expire_s"),  # type: ignore[arg-type]
        )
        return await self._converse(request, UploadReport, b"")

    async def download(self, tracker: bytes | str, **options: object) -> DownloadReport:
        """Download a tracker file, or what a query names, into this host's directory `got`."""
        got = self.directory / "got"
        got.mkdir(exist_ok=True)
        query, content = ("", tracker) if isinstance(tracker, bytes) else (tracker, b"")
        request = c.Download(
            query,
            os.fsencode(options.get("directory", got)),  # type: ignore[arg-type]
            overwrite=bool(options.get("overwrite")),
            detach=bool(options.get("detach")),
            timeout_s=options.get("timeout_s"),  # type: ignore[arg-type]
            priority=options.get("priority"),  # type: ignore[arg-type]
        )
        return await self.ask(request, DownloadReport, content=content)

    async def stat(self, query: str) -> StatReport:
        """Who has what."""
        return await self.ask(c.Stat(query), StatReport)

    async def status(self) -> StatusReport:
        """The daemon's own state."""
        return await self.ask(c.Status(), StatusReport)

    async def hosts(self) -> HostListReport:
        """All hosts."""
        return await self.ask(c.ListHosts(), HostListReport)

    async def verify(self, query: str) -> VerifyReport:
        """Hash this host's copy again."""
        return await self.ask(c.Verify(query), VerifyReport)

    async def _converse(self, request: Message, kind: type[R], content: bytes) -> tuple[R, bytes]:
        cli = self.fleet.network.host(f"{self.ip}9")  # a caller on the same machine, with an address of its own
        transport = await cli.dial(Address(self.ip, CONTROL_PORT))
        stream, _ = await greet(transport, "control", "local")
        try:
            await stream.send(request, content)
            while True:
                match await stream.receive():
                    case c.Progress():
                        pass
                    case c.Result():
                        report = decode_report(await stream.receive_payload(), kind)
                        tracker = b""
                        if isinstance(request, c.Upload):
                            await stream.receive()
                            tracker = await stream.receive_payload()
                        return report, tracker
                    case Failure(code=code, text=text):
                        raise from_wire(code, text)
        finally:
            stream.close()


class Fleet:
    """A master and hosts that start, crash and restart."""

    def __init__(self, directory: Path, nursery: trio.Nursery, *, seed: int, grace_s: float, replicas: int = 1) -> None:
        self.network = MemoryNetwork(random.Random(seed))
        self.directory = directory
        self._nursery = nursery
        self._seed = seed
        self._grace_s = grace_s
        self._replicas = replicas
        self._said: list[str] = []
        self._master_scope = trio.CancelScope()
        self._master_ended = trio.Event()
        self._hosts = self._master_starts = 0
        self.clock_ahead_s = 0.0

    @property
    def now(self) -> float:
        """Everybody's wall clock, and the master's; a host's may go wrong."""
        return EPOCH + trio.current_time() + self.clock_ahead_s

    @property
    def admin(self) -> Admin:
        """What the administrator does, over the real Unix socket."""
        return Admin(self.directory / "master")

    @property
    def token(self) -> JoinToken:
        """The token that the master printed at its first start."""
        line = next(line for line in self._said if "--join" in line)
        return JoinToken.decode(line.split("--join", 1)[1].split()[0])

    async def start_master(self) -> None:
        """Start the master, on the state that it had."""
        self._master_starts += 1
        rng = random.Random(f"{self._seed} {self._master_starts}")  # a master never mints the same id again
        environment = master_app.Environment(
            network=self.network.host(MASTER),
            executor=lambda _: InlineExecutor(),
            rng=rng,
            secret=rng.randbytes,
            wall_clock=lambda: self.now,
            outward_host=lambda: MASTER,
            say=self._said.append,
        )
        config = master_app.MasterConfig(
            state=self.directory / "master",
            listen=Address(MASTER, 4850),
            grace_s=self._grace_s,
            replicas=self._replicas,
        )
        self._master_scope, self._master_ended = trio.CancelScope(), trio.Event()
        await self._nursery.start(
            self._contain, partial(master_app.run, config, environment), self._master_scope, self._master_ended
        )

    async def crash_master(self) -> None:
        """Kill the master."""
        self.network.crash(MASTER)
        self._master_scope.cancel()
        await self._master_ended.wait()

    async def add_host(
        self, name: str, *, token: JoinToken | None = None, zone: str | None = None, quota: int | None = None
    ) -> Host:
        """Start a new host, which joins.

        Raises:
          InterFilesError: it may not.
        """
        self._hosts += 1
        host = Host(name, f"10.0.0.{self._hosts}", self.directory / name, self, zone, quota=quota)
        host.directory.mkdir()
        await self._start(host, token or self.token)
        return host

    async def make_token(self, *, uses: int | None = None, name: str = "", ttl_s: float = 3600.0) -> JoinToken:
        """A new join token."""
        return JoinToken.decode((await self.admin.make_token(ttl_s=ttl_s, uses=uses, name=name)).token)

    async def crash(self, host: Host, *, silent: bool = False) -> None:
        """Kill a host's daemon, or its whole machine (`silent`)."""
        self.network.crash(host.ip, silent=silent)
        host.scope.cancel()
        await host.ended.wait()

    async def restart(self, host: Host, token: JoinToken | None = None) -> None:
        """Start a crashed host again on what it left on disk; with a token, to join anew.

        Raises:
          InterFilesError: it may not.
        """
        await self._start(host, token)

    async def _start(self, host: Host, token: JoinToken | None) -> None:
        network = self.network.host(host.ip)

        async def listen_control(path: Path) -> Listener:
            return await network.listen(Address(host.ip, CONTROL_PORT))

        environment = client_app.Environment(
            network=network,
            listen_control=listen_control,
            database=InlineExecutor(),
            disk=InlineExecutor(),
            rng=random.Random(f"{self._seed} {host.name}"),
            wall_clock=lambda: self.now + host.clock_ahead_s,
        )
        state = host.directory / "state"
        state.mkdir(exist_ok=True)
        config = client_app.ClientConfig(
            state=state,
            socket=state / "sock",
            listen=Address(host.ip, 4851),
            name=host.name,
            token=token,
            zone=host.zone,
            quota=host.quota,
        )
        host.scope, host.ended = trio.CancelScope(), trio.Event()
        await self._nursery.start(self._contain, partial(client_app.run, config, environment), host.scope, host.ended)

    async def _contain(self, run, scope, ended, *, task_status) -> None:  # type: ignore[no-untyped-def]
        try:
            with scope:
                await run(task_status=task_status)
        finally:
            ended.set()


@asynccontextmanager
async def running_fleet(
    directory: Path, names: str, *, seed: int = 1, grace_s: float = 60.0, replicas: int = 1
) -> AsyncIterator[tuple[Fleet, list[Host]]]:
    """A master and one host a name (names apart by spaces), all stopped at the end."""
    async with trio.open_nursery() as nursery:
        fleet = Fleet(directory, nursery, seed=seed, grace_s=grace_s, replicas=replicas)
        await fleet.start_master()
        hosts = [await fleet.add_host(name) for name in names.split()]
        yield fleet, hosts
        nursery.cancel_scope.cancel()
