"""The master's state and its one owner: the catalogue on disk, the registry in memory, the connections of its hosts.

What must last is durable before anybody is told of it. Memory changes between awaits only, so no two tasks ever see it
half changed.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final, ParamSpec, TypeVar

import structlog
import trio

from daemons.master.challenges import Challenges
from daemons.master.connection import Connection
from daemons.master.events import Events
from daemons.master.handouts import Handouts
from daemons.master.reconciler import Reconciler
from daemons.master.trust import Issued, Trust, removed
from interfiles.errors import CertificateRefused, NoSpace, Refused, StorageFailed, UnknownHost, printable
from interfiles.placement.awaited import LAST_SEEN_EVERY_S
from interfiles.placement.drains import Left
from interfiles.placement.events import EventKind
from interfiles.placement.registry import Registry
from interfiles.storage.catalogue import Catalogue
from interfiles.storage.executor import Executor
from interfiles.storage.members import Host
from interfiles.transport.base import Address
from interfiles.units import format_count
from interfiles.wire.admin_reports import HostDrainReport, HostRemovedReport
from interfiles.wire.master_messages import MAX_REVOKED, Authorities, Forget, Holding, Register, Registered, Revoked

EXPIRE_EVERY_S: Final = 10.0
MAX_EXPIRED: Final = 64  # files removed at once
_CLOSING_TIMEOUT_S: Final = 2.0

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sources:
    """Where time and chance come from. `wall_clock`: Unix seconds; `secret`: that many unguessable bytes."""

    wall_clock: Callable[[], float]
    secret: Callable[[int], bytes]


class Fleet:
    """`masters`: HOST:PORT of this master, for join tokens; `replicas`: the default of files that name no number.

    `trust`: the fleet's CAs.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        database: Executor,
        registry: Registry,
        sources: Sources,
        *,
        salt: bytes,
        masters: tuple[str, ...],
        replicas: int,
    ) -> None:
        self.catalogue: Final = catalogue
        self.registry: Final = registry
        self.fleet_id: Final = catalogue.fleet_id
        self.replicas: Final = replicas
        self.connections: Final[dict[str, Connection]] = {}
        self.handouts: Final = Handouts(registry, self.connections, salt=salt)
        self.events: Final = Events(registry, wall_clock=sources.wall_clock, secret=sources.secret)
        self._database = database
        self.reconciler: Final = Reconciler(catalogue, self.stored, registry, self.connections, self.events)
        self.challenges: Final = Challenges(
            *(catalogue, self.stored, registry, self.connections, self.reconciler),
            rng=Random(salt),
            secret=sources.secret,
        )
        self._sources = sources
        self.masters: Final = masters
        self._revoked: list[str] = []
        self.trust: Final = Trust(
            catalogue,
            database,
            wall_clock=sources.wall_clock,
            is_member=registry.is_known,
            changed=self._authorities_changed,
        )
        self._saved_at = self._expired_at = -math.inf
        self._is_saving = True  # so it is told once that it fails

    async def stored(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the catalogue where blocking is allowed."""
        return await self._database.run(partial(function, *args, **kwargs))

    async def load(self) -> int:
        """Read the CAs and who belongs to the fleet, and return how many hosts do.

        Raises:
          StorageFailed: a CA's key is not there.
        """
        await self.trust.load()
        self._revoked = await self.stored(self.catalogue.members.revoked)
        hosts = await self.stored(self.catalogue.members.hosts)
        self._saved_at = trio.current_time()
        for host in hosts:
            self.admit(host)
        return len(hosts)

    def admit(self, host: Host) -> None:
        """A host belongs to the fleet."""
        heard_at = trio.current_time() - (self._sources.wall_clock() - host.last_seen_at)
        self.registry.admit(host.host_id, host.name, host.zone, host.address, heard_at=heard_at, draining=host.draining)
        self._tell_change(host.host_id)

    def wall_clock(self) -> float:
        """Unix seconds."""
        return self._sources.wall_clock()

    def secret(self, count: int) -> bytes:
        """So many unguessable bytes."""
        return self._sources.secret(count)

    def touch(self, file_ids: Iterable[bytes]) -> None:
        """Who holds these files has changed, or may have."""
        files = list(file_ids)
        if files:
            self.handouts.touch(files)
            self.reconciler.touch(files)

    def apply(self, host_id: str, holdings: Sequence[Holding], *, replace: bool) -> None:
        """A host tells what changed in its holdings, or with `replace` all of them.

        Raises:
          RemoteProtocolError: it announces too many files; nothing is applied then.
        """
        bad = [holding for holding in holdings if holding.state == "damaged"]
        known = [self.registry.held(holding.file_id).get(host_id) for holding in bad]
        lost: dict[bytes, str] = {}
        self.touch(self.registry.apply(host_id, holdings, replace=replace, lost=lost))
        for file_id, note in lost.items():
            if not self.reconciler.is_releasing(file_id, host_id):
                reason = printable(note) or "it is not on the host any more"
                self.events.add("lost", host=host_id, file=file_id, reason=reason)
        self.reconciler.announced(host_id, holdings, lost)
        for holding, before in zip(bad, known, strict=True):
            if before is None or before.state != "damaged":
                self.events.add("corrupt", host=host_id, file=holding.file_id, reason=printable(holding.note))

    async def remove_file(self, file_id: bytes, *, delete: bool, host: str = "") -> int:
        """Take a file out of the catalogue and tell every host to forget it; return how many had some of it.

        `host`: the id of the one where that was asked for.

        Raises:
          UnknownFile: nobody knows of it.
        """
        is_held = bool(self.registry.holders(file_id))
        name = await self.stored(self.catalogue.remove, file_id, delete=delete, now=self.wall_clock(), is_held=is_held)
        return self._forget_file(file_id, name, "file-removed", delete=delete, host=host)

    def _forget_file(self, file_id: bytes, name: str, kind: EventKind, *, delete: bool, host: str = "") -> int:
        """A file is out of the catalogue: have all forget it, and return how many hosts had some of it."""
        # From here on a heartbeat that names the file finds the tombstone; those that came before are in the registry.
        concerned = self.registry.holders(file_id)
        holders = self.registry.forget_file(file_id)
        for host_id in {*concerned, *self.reconciler.forget_file(file_id)}:
            if (connection := self.connections.get(host_id)) is not None:
                connection.handouts.pop(file_id, None)
                connection.push(Forget(file_id, delete))
        had = format_count(len(holders), "host had some of it", "hosts had some of it")
        self.events.add(kind, host=host, file=file_id, file_name=name, reason=had, delete=delete)
        return len(holders)

    # Hosts

    async def check_in(self, host_id: str, asked: Register, address: Address) -> Host:
        """Keep a host's name, zone and address.

        Raises:
          NotAdmitted: it was removed.
        """
        return await self.stored(
            self.catalogue.members.register, host_id, name=asked.name, zone=asked.zone, address=str(address)
        )

    async def renew(self, host_id: str, request: bytes) -> Issued:
        """Sign a new certificate for a host that has proved to be it; once that is sent, an older CA may retire.

        Raises:
          NotAdmitted: it was removed.
          RemoteProtocolError: its signing request is not one.
        """
        issued = self.trust.issue(request, host_id)
        await self.stored(
            self.catalogue.members.certify,
            host_id,
            authority=issued.authority,
            certified_until=issued.certified_until,
        )
        log.info("renewed certificate", host_id=host_id)
        return issued

    def attach(self, connection: Connection, host: Host) -> None:
        """The host is up, by this connection; one that it had before is closed.

        Raises:
          NotAdmitted: the host was removed just now.
        """
        now = trio.current_time()
        try:
            touched = self.registry.register(host.host_id, host.name, host.zone, host.address, now)
        except UnknownHost as e:
            raise removed() from e
        self._tell_change(host.host_id, f"connected from {host.address}")
        if (older := self.connections.get(host.host_id)) is not None:
            log.info("host connected anew", host=host.name, address=host.address)
            older.end(
                Refused(
                    f"{host.name} connected anew from {host.address}; if its state directory was copied to another "
                    "machine, give that one a state directory of its own and join it"
                )
            )
        connection.push(Registered(host.name, host.address, self.registry.heartbeat_s, self.replicas))
        connection.push(Authorities(self.trust.certificates, at_once=True))
        for start in range(0, max(len(self._revoked), 1), MAX_REVOKED):
            connection.push(Revoked(start == 0, self._revoked[start : start + MAX_REVOKED]))
        self.connections[host.host_id] = connection
        self.touch(touched)

    def detach(self, connection: Connection) -> None:
        """The connection is over; its host is not up any more, unless it has a newer one."""
        reason = str(connection.reason or "the master stops")
        told = False
        if self.connections.get(connection.host_id) is connection:
            del self.connections[connection.host_id]
            self.reconciler.lost(connection.host_id)
            self.touch(self.registry.lose(connection.host_id))
            told = self._tell_change(connection.host_id, reason)
        if not told:  # a newer connection, an older silence, or its removal: told already
            log.info("connection ended", host=connection.name, reason=reason)

    async def remove_host(self, query: str) -> HostRemovedReport:
        """Take a host, by name, id or id prefix, out of the fleet: its connections end here and at every host.

        Raises:
          UnknownHost: no host goes by this, or several do.
        """
        host = await self.stored(self.catalogue.members.remove, query, now=self.wall_clock())
        self._revoked.append(host.host_id)
        connection = self.connections.pop(host.host_id, None)
        self.events.add("removed", host=host.host_id, host_id=host.host_id)
        self.reconciler.forget_host(host.host_id)
        self.touch(self.registry.remove(host.host_id))
        if connection is not None:
            connection.end(removed())
        for other in self.connections.values():
            other.push(Revoked(False, [host.host_id]))
        self._revoked = await self.stored(self.catalogue.members.revoked)  # without those that are long over
        return HostRemovedReport(host=host.host_id, name=host.name)

    async def drain_host(self, query: str, *, draining: bool) -> HostDrainReport:
        """Have a host's copies made on others, and give it none, or end that; return how far it is.

        Raises:
          UnknownHost: no host goes by this, or several do.
        """
        host = await self.stored(self.catalogue.members.set_draining, query, draining)
        if self.registry.is_draining(host.host_id) != draining:
            self.reconciler.set_draining(host.host_id, draining)
            if not self._tell_change(host.host_id, "by hand"):  # it is not up, and its state is the same
                self.events.add("draining" if draining else "undrained", host=host.host_id, reason="by hand")
        return self._drained(host)

    async def look_at_drain(self, query: str) -> HostDrainReport:
        """Whether a host drains, and how far it is.

        Raises:
          UnknownHost: no host goes by this, or several do.
        """
        return self._drained(await self.stored(self.catalogue.members.find, query))

    def _drained(self, host: Host) -> HostDrainReport:
        state = self.registry.state(host.host_id, trio.current_time())
        left = self.reconciler.drains.left(host.host_id) if host.draining else Left()
        return HostDrainReport(
            host=host.host_id,
            name=host.name,
            state=state,
            draining=host.draining,
            to_move=self.reconciler.drains.to_move(host.host_id) if host.draining else None,
            left_bytes=left.bytes,
            why_not=left.why_stays,
            short=left.short,
        )

    def _tell_change(self, host_id: str, reason: str = "") -> bool:
        """Tell of a host's new state, and return whether it has one."""
        changes = self.registry.state_changes(trio.current_time(), [host_id])
        for change in changes:
            self.events.add_change(change, reason)
        return bool(changes)

    def _authorities_changed(self, at_once: bool) -> None:
        """Tell every host. `at_once`: whom a retired CA has certified is cut off, and must have joined anew."""
        for connection in self.connections.values():
            connection.push(Authorities(self.trust.certificates, at_once=at_once))
            if at_once:
                try:
                    self.trust.check_signer(connection.certificate)
                except CertificateRefused as e:
                    connection.end(e)

    # Time

    def works(self) -> Mapping[str, Callable[[], Awaitable[object]]]:
        """What goes on by itself until cancelled, by name; where one of them fails the others go on."""
        return {
            "connections": self.check_connections,
            "silence": self.expire,
            "handouts": self.handouts.run,
            "reconciler": self.reconciler.run,
            "challenges": self.challenges.run,
            "trust": self.trust.run,
        }

    async def check_connections(self) -> None:
        """End the connections of hosts that say or take nothing, until cancelled.

        It waits for no disk, as `expire` may.
        """
        while True:
            await trio.sleep(self.registry.heartbeat_s / 5)
            now = trio.current_time()
            for connection in tuple(self.connections.values()):
                connection.check(now, self.registry.heartbeat_s)

    async def expire(self) -> None:
        """Notice hosts that have fallen silent, until cancelled."""
        while True:
            await trio.sleep(self.registry.heartbeat_s / 5)
            now = trio.current_time()
            self.touch(self.registry.expire(now))
            for change in self.registry.state_changes(now):
                self.events.add_change(change)
            self.events.tell_left_out()
            await self._remove_expired()

    async def _remove_expired(self) -> None:
        """Take files whose time is over out of the fleet: its own copies go, what people have at its place stays."""
        if trio.current_time() < self._expired_at + EXPIRE_EVERY_S:
            return
        self._expired_at = trio.current_time()
        try:
            for info in await self.stored(self.catalogue.expired, self.wall_clock(), MAX_EXPIRED):
                name = await self.stored(self.catalogue.remove_expired, info.file_id, now=self.wall_clock())
                if name is not None:
                    self._forget_file(info.file_id, name, "expired", delete=False)
        except (NoSpace, StorageFailed) as e:
            log.warning("cannot remove what has expired", reason=str(e))

    async def keep_last_seen(self) -> None:
        """Write down when hosts were heard from, now and then, and when it is cancelled."""
        try:
            while True:
                await trio.sleep(LAST_SEEN_EVERY_S)
                await self._save_last_seen()
        finally:
            with trio.move_on_after(_CLOSING_TIMEOUT_S, shield=True):
                await self._save_last_seen()

    async def _save_last_seen(self) -> None:
        now, wall = trio.current_time(), self.wall_clock()
        news = {host_id: wall - (now - at) for host_id, at in self.registry.heard_at().items() if at > self._saved_at}
        if not news:
            return
        try:
            await self.stored(self.catalogue.members.touch, news)
        except (NoSpace, StorageFailed) as e:  # no reason to stop: it is kept to be shown, nothing hangs on it
            if self._is_saving:
                log.warning("cannot write down when hosts were seen", reason=str(e))
            self._is_saving = False
        else:
            self._saved_at, self._is_saving = now, True
