"""The master's state and its one owner: the catalogue on disk, the registry in memory, the connections of its hosts.

What must last is durable before anybody is told of it. Memory changes between awaits only, so no two tasks ever see it
half changed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, ParamSpec, TypeVar

import structlog
import trio

from daemons.master.connection import Connection
from daemons.master.handouts import Handouts
from interfiles.errors import NoSpace, NotAdmitted, Refused, StorageFailed, UnknownHost, UsageError
from interfiles.identity.token import SECRET_BYTES, TOKEN_ID_BYTES, JoinToken, hash_secret
from interfiles.placement.registry import Registry
from interfiles.storage.catalogue import Catalogue
from interfiles.storage.executor import Executor
from interfiles.storage.members import Host, Token
from interfiles.transport.base import Address
from interfiles.wire.master_messages import Enrol, Enrolled, Register, Registered
from interfiles.wire.reports import HostRemovedReport, TokenReport

HOST_ID_BYTES: Final = 16
CREDENTIAL_BYTES: Final = 32
SHORTEST_TOKEN_S: Final = 1.0
LAST_SEEN_EVERY_S: Final = 60.0  # a crash makes what is known of absent hosts older by so much
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
    """`masters`: HOST:PORT of this master, for join tokens; `replicas`: the default of files that name no number."""

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
        self._database = database
        self._sources = sources
        self._masters = masters
        self._saved_at = -math.inf

    async def stored(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the catalogue where blocking is allowed."""
        return await self._database.run(partial(function, *args, **kwargs))

    async def load(self) -> int:
        """Read who belongs to the fleet, and return how many hosts do."""
        hosts = await self.stored(self.catalogue.members.hosts)
        self._saved_at = trio.current_time()
        for host in hosts:
            self._admit(host)
        return len(hosts)

    def _admit(self, host: Host) -> None:
        heard_at = trio.current_time() - (self._sources.wall_clock() - host.last_seen_at)
        self.registry.admit(host.host_id, host.name, host.zone, host.address, heard_at=heard_at)

    def wall_clock(self) -> float:
        """Unix seconds."""
        return self._sources.wall_clock()

    # Tokens and hosts

    async def make_token(self, *, ttl_s: float, uses: int | None, name: str) -> TokenReport:
        """Make a join token; `name` is what the log calls it.

        Raises:
          UsageError: it would be good for too short a time.
        """
        if ttl_s < SHORTEST_TOKEN_S:
            raise UsageError(f"a token good for {ttl_s:g} s is of no use; give it {SHORTEST_TOKEN_S:g} s or more")
        made = JoinToken(self._masters, self._sources.secret(TOKEN_ID_BYTES), self._sources.secret(SECRET_BYTES))
        now = self.wall_clock()
        stored = Token(made.token_id, hash_secret(made.secret), name, made_at=now, expires_at=now + ttl_s, uses=uses)
        await self.stored(self.catalogue.members.add_token, stored)
        log.info("made token", token=made.token_id, name=name, ttl_s=ttl_s, uses=uses or "any")
        return TokenReport(token=made.encode(), expires_at=int(stored.expires_at), uses=uses)

    async def enrol(self, asked: Enrol) -> Enrolled:
        """Admit a host that shows a token's secret.

        Raises:
          InvalidToken: the token is no good.
          Refused: the fleet is full.
        """
        host_id, credential = self._sources.secret(HOST_ID_BYTES).hex(), self._sources.secret(CREDENTIAL_BYTES)
        now = self.wall_clock()
        newcomer = Host(host_id, asked.name, asked.zone, hash_secret(credential), now, "", now)
        host, token_name = await self.stored(
            self.catalogue.members.enrol, asked.token_id, hash_secret(asked.secret), newcomer
        )
        self._admit(host)
        log.info("enrolled", host=host.name, host_id=host_id, token=asked.token_id, token_name=token_name)
        return Enrolled(self.fleet_id, host_id, host.name, credential)

    async def check_in(self, host_id: str, asked: Register, address: Address) -> Host:
        """Check a host's credential, and keep its name, zone and address.

        Raises:
          NotAdmitted: it is not a host of this fleet.
        """
        return await self.stored(
            self.catalogue.members.register,
            host_id,
            hash_secret(asked.credential),
            name=asked.name,
            zone=asked.zone,
            address=str(address),
        )

    def attach(self, connection: Connection, host: Host) -> None:
        """The host is up, by this connection; one that it had before is closed.

        Raises:
          NotAdmitted: the host was removed just now.
        """
        now = trio.current_time()
        try:
            touched = self.registry.register(host.host_id, host.name, host.zone, host.address, now)
        except UnknownHost as e:
            raise _removed() from e
        if (older := self.connections.get(host.host_id)) is not None:
            older.end(
                Refused(
                    f"{host.name} connected anew from {host.address}; if its state directory was copied to another "
                    "machine, give that one a state directory of its own and join it"
                )
            )
        connection.push(Registered(host.name, host.address, self.registry.heartbeat_s, self.replicas))
        self.connections[host.host_id] = connection
        self.handouts.touch(touched)

    def detach(self, connection: Connection) -> None:
        """The connection is over; its host is not up any more, unless it has a newer one."""
        if self.connections.get(connection.host_id) is connection:
            del self.connections[connection.host_id]
            self.handouts.touch(self.registry.lose(connection.host_id))

    async def remove_host(self, query: str) -> HostRemovedReport:
        """Take a host, by name, id or id prefix, out of the fleet, and close its connection.

        Raises:
          UnknownHost: no host goes by this, or several do.
        """
        host = await self.stored(self.catalogue.members.remove, query)
        connection = self.connections.pop(host.host_id, None)
        self.handouts.touch(self.registry.remove(host.host_id))
        if connection is not None:
            connection.end(_removed())
        log.info("removed host", host=host.name, host_id=host.host_id)
        return HostRemovedReport(host=host.host_id, name=host.name)

    # Time

    async def expire(self) -> None:
        """Notice hosts that have fallen silent, until cancelled."""
        while True:
            await trio.sleep(self.registry.heartbeat_s / 5)
            self.handouts.touch(self.registry.expire(trio.current_time()))

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
        self._saved_at = now
        if not news:
            return
        try:
            await self.stored(self.catalogue.members.touch, news)
        except (NoSpace, StorageFailed) as e:  # no reason to stop: it is kept to be shown, nothing hangs on it
            log.warning("cannot write down when hosts were seen", reason=str(e))


def _removed() -> NotAdmitted:
    return NotAdmitted(
        "this host was removed from the fleet; to bring it back, join it anew, in a new state directory, with a token "
        "from `interfiles token` on the master's host"
    )
