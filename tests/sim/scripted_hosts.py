"""A large fleet in virtual time: the real reconciler, registry and catalogue, and hosts that are a few lines each.

A scripted host announces what it holds, takes orders and needs time for them, or does what a bad host does. What it
says goes to the master's parts at once; what it is told arrives a moment later.
"""

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal, cast

import trio

from daemons.master.challenges import Challenges
from daemons.master.connection import Connection
from daemons.master.events import Events
from daemons.master.reconciler import Reconciler
from interfiles.placement.events import Event, EventKind
from interfiles.placement.registry import Registry
from interfiles.placement.standing import Policy
from interfiles.storage.catalogue import Catalogue
from interfiles.storage.executor import InlineExecutor
from interfiles.wire import master_messages as m

HEARTBEAT_S = 10.0
GRACE_S = 120.0
TRIM_S = 5 * GRACE_S
FILE_BYTES = 1 << 30
PIECES = 1024
TAKES_S = 20.0  # for a copy
STEP_S = 5.0  # between two announcements of its progress
LATENCY_S = 0.05
CATALOGUE = "catalogue.sqlite"
COLUMNS = "file_id, name, is_directory, entries, size, piece_size, pieces, uploaded_at, uploaded_by, replicas"

Answer = Literal["hold", "silent", "decline", "full", "stuck"]


class Wire:
    """What a master's connection is to those who send on it."""

    is_busy = False

    def __init__(self, host: "ScriptedHost") -> None:
        self._host = host

    def push(self, message: object) -> None:
        """It arrives a moment later, if the host is still there."""
        self._host.said.append(message)
        self._host.fleet.nursery.start_soon(self._host.obey, message, self)


@dataclass
class ScriptedHost:
    """`answers`: what it does with orders. `lies`: files that it announces as complete and does not have."""

    host_id: str
    name: str
    zone: str
    fleet: "ScriptedFleet"
    free: int = 1 << 40
    answers: Answer = "hold"
    takes_s: float = TAKES_S
    lies: set[bytes] = field(default_factory=set)
    held: dict[bytes, m.Holding] = field(default_factory=dict)
    said: list[object] = field(default_factory=list)
    wire: Wire | None = None

    def told(self, kind: type[object]) -> int:
        """How many messages of this kind it was sent."""
        return sum(isinstance(message, kind) for message in self.said)

    def connect(self) -> None:
        """Register, and announce all in pages, as a daemon does."""
        fleet, now = self.fleet, trio.current_time()
        fleet.reconciler.touch(fleet.registry.register(self.host_id, self.name, self.zone, "", now))
        self.wire = Wire(self)
        fleet.connections[self.host_id] = cast("Connection", self.wire)
        holdings, full = list(self.held.values()), m.MAX_HEARTBEAT_HOLDINGS
        for start in range(0, len(holdings) + 1, full):
            page = holdings[start : start + full]
            fleet.reconciler.touch(fleet.registry.apply(self.host_id, page, replace=start == 0))
        self.beat()

    def disconnect(self) -> None:
        """The network fails, or the host: what it holds it still has."""
        if self.wire is not None:
            self.wire = None
            self.fleet.connections.pop(self.host_id, None)
            self.fleet.reconciler.lost(self.host_id)
            self.fleet.reconciler.touch(self.fleet.registry.lose(self.host_id))

    def beat(self) -> None:
        """A heartbeat."""
        if self.wire is not None:
            self.fleet.reconciler.touch(self.fleet.registry.hear(self.host_id, trio.current_time()))
            self.fleet.registry.set_room(self.host_id, used=0, free=self.free)

    def hold(self, file_id: bytes, state: m.HoldingState, pieces: int, *, ordered: bool = True) -> None:
        """Hold so much of a file, and announce it."""
        self.held[file_id] = holding = m.Holding(file_id, state, pieces, 0, 0, "", ordered)
        if state == "none":
            del self.held[file_id]
        if self.wire is not None:
            touched = self.fleet.registry.apply(self.host_id, [holding], replace=False)
            self.fleet.reconciler.touch(touched)

    async def obey(self, message: object, wire: Wire) -> None:
        """Do what the master says, in its own way."""
        await trio.sleep(LATENCY_S)
        match message:
            case m.Order() if self.wire is wire:
                await self._fetch(message)
            case m.Release(file_id=file_id) if self.wire is wire and file_id in self.held:
                if self.held[file_id].ordered:
                    self.hold(file_id, "none", 0)
            case m.Challenge() if self.wire is wire:
                digest = bytes(32) if message.file_id in self.lies else message.nonce
                self.fleet.challenges.hear(self.host_id, m.Proof(message.number, digest, ""))

    async def _fetch(self, order: m.Order) -> None:
        if self.answers in ("decline", "full"):
            is_full = self.answers == "full"
            self.fleet.reconciler.declined(self.host_id, m.Declined(order.file_id, "x", "no room", 0.0, is_full))
        elif self.answers == "stuck":  # its disk fills up, and it cannot let go of what it has
            self.hold(order.file_id, "fetching", 0)
            await trio.sleep(STEP_S)
            while True:
                self.fleet.reconciler.declined(self.host_id, m.Declined(order.file_id, "x", "no room", 0.0, True))
                self.hold(order.file_id, "waiting", 0)
                await trio.sleep(1)
        elif self.answers == "hold" and order.file_id not in self.held:
            self.hold(order.file_id, "fetching", 0)
            pieces = 0
            while order.file_id in self.held:
                step_s = min(STEP_S, self.takes_s)
                await trio.sleep(step_s)
                if self.wire is not None and self.fleet.sources(order.file_id):
                    pieces += int(PIECES * step_s / self.takes_s)
                    if pieces >= PIECES:
                        self.hold(order.file_id, "complete", PIECES)
                        return
                    if order.file_id in self.held:
                        self.hold(order.file_id, "fetching", pieces)


class ScriptedFleet:
    """`files`: ids; every file has its own copy on one host, and others by order."""

    def __init__(self, catalogue: Catalogue, nursery: trio.Nursery) -> None:
        self.catalogue = catalogue
        self.nursery = nursery
        self.hosts: list[ScriptedHost] = []
        self.files: list[bytes] = []
        self.connections: dict[str, Connection] = {}
        self._scope = trio.CancelScope()
        self._start_master({})

    def _start_master(self, heard_at: dict[str, float]) -> None:
        self.registry = Registry(heartbeat_s=HEARTBEAT_S, grace_s=GRACE_S)
        self.events = Events(self.registry, wall_clock=trio.current_time, secret=bytes)
        policy = Policy(trim_after_s=TRIM_S)
        stored = InlineExecutor().run
        self.reconciler = Reconciler(
            self.catalogue,
            stored,
            self.registry,
            self.connections,
            self.events,
            policy,
        )
        self.challenges = Challenges(
            *(self.catalogue, stored, self.registry, self.connections, self.reconciler),
            rng=Random(1),
            secret=Random(2).randbytes,
        )
        for host in self.hosts:
            self.registry.admit(host.host_id, host.name, host.zone, "", heard_at=heard_at[host.host_id])
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """The master's rounds and the hosts' heartbeats, until the master stops."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.reconciler.run)
                nursery.start_soon(self.challenges.run)
                while True:
                    for host in self.hosts:
                        host.beat()
                    await trio.sleep(HEARTBEAT_S)

    def stop_master(self) -> None:
        """Every connection ends."""
        for host in self.hosts:
            host.disconnect()
        self._scope.cancel()

    def restart_master(self) -> None:
        """It knows nothing but when it heard from each host."""
        self._start_master(self.registry.heard_at())
        self.nursery.start_soon(self.run)

    # What is true

    def sources(self, file_id: bytes) -> list[ScriptedHost]:
        """Who is up and really has all of a file."""
        return [
            host
            for host in self.hosts
            if host.wire is not None and file_id not in host.lies
            if (held := host.held.get(file_id)) is not None and held.state == "complete"
        ]

    def copies(self) -> list[int]:
        """How many whole copies each file has on hosts that are up."""
        return [len(self.sources(file_id)) for file_id in self.files]

    def most_in_a_zone(self) -> int:
        """Of the copies of any one file."""
        return max(max(Counter(host.zone for host in self.sources(file_id)).values()) for file_id in self.files)

    def under_way(self) -> Counter[str]:
        """Copies that hosts which are up fetch by order, by host."""
        held = [(host.name, one) for host in self.hosts if host.wire is not None for one in host.held.values()]
        return Counter(name for name, one in held if one.ordered and one.state == "fetching")

    def told(self, kind: type[object]) -> int:
        """How many messages of this kind all hosts were sent."""
        return sum(host.told(kind) for host in self.hosts)

    def nothing_was_moved(self) -> bool:
        """Whether no host was told to get a copy, or to give one up."""
        return not self.told(m.Order) and not self.told(m.Release)

    def happened(self, kind: EventKind) -> int:
        """How many events of this kind there were since the master started."""
        return sum(event.kind == kind for event in self.log())

    def log(self) -> list[Event]:
        """What has happened since the master started."""
        return self.events.log.since(0, 10_000).events

    async def until(
        self, is_so: Callable[[], bool], *, within_s: float, keep: Callable[[], None] | None = None
    ) -> None:
        """Wait until something is so, looking every second, and see to it that something else always is."""
        with trio.fail_after(within_s):
            while not is_so():
                if keep is not None:
                    keep()
                await trio.sleep(1)

    def keep_caps(self) -> None:
        """See that no host and not all together fetch more than they may."""
        under_way, policy = self.under_way(), Policy()
        assert under_way.total() <= policy.max_arriving
        assert max(under_way.values(), default=0) <= policy.max_arriving_per_host


@asynccontextmanager
async def scripted_fleet(
    directory: Path, *, hosts: int = 200, files: int = 200, zones: int = 10, copies: int = 3
) -> AsyncIterator[ScriptedFleet]:
    """A fleet in which all is as wanted: the copies of a file are in different zones, one of them somebody's own."""
    path, size = directory / CATALOGUE, hosts // zones
    ids = [number.to_bytes(2, "big") * 16 for number in range(1, files + 1)]
    Catalogue(path, new_fleet_id="f" * 32, now=0.0).close()  # two SQLite libraries must not have it open at once
    rows = [(one, one.hex(), 0, 1, FILE_BYTES, 1 << 20, PIECES, 0, "", copies) for one in ids]
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany(f"INSERT INTO files ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    with closing(Catalogue(path, new_fleet_id="f" * 32, now=0.0)) as catalogue:
        async with trio.open_nursery() as nursery:
            fleet = ScriptedFleet(catalogue, nursery)
            fleet.files = ids
            for number in range(hosts):
                zone = number // size
                host = ScriptedHost(f"{number * 0x9E3779B97F4A7C15:032x}", f"host-{number:03}", f"zone-{zone}", fleet)
                fleet.hosts.append(host)
                fleet.registry.admit(host.host_id, host.name, host.zone, "", heard_at=trio.current_time())
            for number, file_id in enumerate(ids):
                for copy in range(copies):
                    at = ((number + 3 * copy) % zones) * size + (number // zones) % size
                    fleet.hosts[at].held[file_id] = m.Holding(file_id, "complete", PIECES, 0, 0, "", copy > 0)
            for host in fleet.hosts:
                host.connect()
            nursery.start_soon(fleet.run)
            await trio.sleep(71)  # a look at everything, and not in the moment of a heartbeat: nothing is to be done
            assert fleet.nothing_was_moved()
            yield fleet
            nursery.cancel_scope.cancel()
