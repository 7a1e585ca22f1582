"""Accepts the peers that fetch from this host: who they are first, then a session each."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemons.client.serve_session import ServedFile, ServeSession, serve_peer
from daemons.client.upload_line import UploadLine
from daemons.supervision import contain
from interfiles.errors import InterFilesError, PeerGone, Refused
from interfiles.transport.lobby import Lobby
from interfiles.transport.message_stream import welcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemons.client.fleet_network import FleetNetwork
    from daemons.client.rate_gate import RateGate
    from interfiles.manifest import FileId
    from interfiles.storage.executor import Executor
    from interfiles.transport.base import Transport
    from interfiles.transport.tls import TlsTransport
    from interfiles.wire.handshake_messages import Role

MAX_STRANGERS: Final = 256  # connections that no host has proved to be its own yet
MAX_CONNECTIONS_A_HOST: Final = 64  # one for each file that it fetches; with more it would keep others out
IDLE_S: Final = 30.0  # one that has asked for nothing for so long makes room for another of the same host

log = structlog.get_logger()


@dataclass(slots=True)
class _Guest:
    """A host's connections, and those among them that are served a file."""

    connections: dict[str, trio.CancelScope] = field(default_factory=dict)
    sessions: dict[str, ServeSession] = field(default_factory=dict)

    def make_room(self, now: float) -> bool:
        """End the connection that has been idle longest. Return whether there is one that has been for `IDLE_S`."""
        idle = {name: self.sessions[name].idle_s(now) for name in self.connections if name in self.sessions}
        longest = max(idle, key=lambda name: idle[name], default=None)
        if longest is None or idle[longest] < IDLE_S:
            return False
        self.connections.pop(longest).cancel()
        return True


class PeerServer:
    """Serves what `find` finds, as quickly as `gate` lets it."""

    def __init__(
        self, network: FleetNetwork, find: Callable[[FileId], ServedFile | None], disk: Executor, gate: RateGate
    ) -> None:
        self._network = network
        self._find = find
        self._disk = disk
        self._line = UploadLine(gate)
        self._lobby = Lobby(MAX_STRANGERS)
        self._guests: defaultdict[str, _Guest] = defaultdict(_Guest)

    async def run(self) -> None:
        """Keep the line of those who fetch moving."""
        await self._line.run()

    async def handle(self, transport: Transport) -> None:
        """Serve one connection to its end; no exception gets out."""

        async def talk() -> None:
            try:
                with self._lobby.waiting(transport):
                    secured = await self._network.accept(transport)
                await self._serve(secured)
            except* PeerGone as group:
                log.debug("a peer left", reason=str(group.exceptions[0]))  # it has all that it wants, or is down

        await contain("serving a peer", talk, expected=(InterFilesError,), log=log)

    async def _serve(self, secured: TlsTransport) -> None:
        host_id = secured.certified.subject.host_id if secured.certified is not None else ""
        guest = self._guests[host_id]
        if len(guest.connections) >= MAX_CONNECTIONS_A_HOST and not guest.make_room(trio.current_time()):
            await self._refuse(secured)
            return
        fetcher = f"{id(secured):x}"
        scope = guest.connections[fetcher] = trio.CancelScope()
        try:
            with scope:
                await serve_peer(
                    *(secured, partial(self._network.admit, secured), self._find, self._line, self._disk),
                    fetcher=fetcher,
                    host=host_id,
                    sessions=guest.sessions,
                )
        finally:
            guest.connections.pop(fetcher, None)
            if not guest.connections and self._guests.get(host_id) is guest:
                del self._guests[host_id]

    async def _refuse(self, secured: TlsTransport) -> None:
        """Tell a host that it has too many connections; until it has listened it makes room as strangers do."""

        def admit() -> Role:
            self._network.admit(secured)
            raise Refused(f"this host has {MAX_CONNECTIONS_A_HOST} connections here already")

        with self._lobby.waiting(secured):
            await welcome(secured, "swarm", admit)
