"""Accepts the peers that fetch from this host: who they are first, then a session each."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from daemons.client.serve_session import ServedFile, serve_peer
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

log = structlog.get_logger()


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
        self._connected: Counter[str] = Counter()

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
        if self._connected[host_id] >= MAX_CONNECTIONS_A_HOST:
            await self._refuse(secured)
            return
        self._connected[host_id] += 1
        try:
            admit = partial(self._network.admit, secured)
            fetcher = f"{id(secured):x}"
            await serve_peer(secured, admit, self._find, self._line, self._disk, fetcher=fetcher, host=host_id)
        finally:
            self._connected[host_id] -= 1
            if not self._connected[host_id]:
                del self._connected[host_id]

    async def _refuse(self, secured: TlsTransport) -> None:
        """Tell a host that it has too many connections; until it has listened it makes room as strangers do."""

        def admit() -> Role:
            self._network.admit(secured)
            raise Refused(f"this host has {MAX_CONNECTIONS_A_HOST} connections here already")

        with self._lobby.waiting(secured):
            await welcome(secured, "swarm", admit)
