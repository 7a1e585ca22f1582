"""Pushing handouts: whenever the peers of a file change, each host that fetches it is told its new ones."""

import math
from collections.abc import Iterable, Mapping
from typing import Final

import trio

from daemons.master.connection import Connection
from interfiles.placement.registry import Registry
from interfiles.placement.zones import Handed, Member, zoned_handouts
from interfiles.wire.master_messages import AbsentHolder, Handout, PeerAddress

# Changes in one swarm that follow one another closely are told together: one that was told rests, the longer the more
# work it makes, and one of a few hosts hardly at all.
COALESCE_S: Final = 0.1  # at most
SHORTEST_COALESCE_S: Final = 0.02
_REST_FACTOR: Final = 4  # times as long as telling it took: a fifth of the loop's time


class Handouts:
    """Keeps the fetching hosts' handouts up to date. `salt` chooses among the possible graphs of peers."""

    def __init__(self, registry: Registry, connections: Mapping[str, Connection], *, salt: bytes) -> None:
        self._registry = registry
        self._connections = connections
        self._salt = salt
        self._touched: set[bytes] = set()
        self._resting: dict[bytes, float] = {}  # files whose swarms were told just now, and until when
        self._wake = trio.Event()

    def touch(self, file_ids: Iterable[bytes]) -> None:
        """The swarms of these files have changed, or may have."""
        self._touched.update(file_ids)
        if self._touched:
            self._wake.set()

    async def run(self) -> None:
        """Push until cancelled: a swarm's first change at once, those that follow in batches."""
        while True:
            next_due = min((self._resting.get(file_id, -math.inf) for file_id in self._touched), default=math.inf)
            with trio.move_on_at(next_due):
                await self._wake.wait()
            self._wake = trio.Event()
            now = trio.current_time()
            self._resting = {file_id: until for file_id, until in self._resting.items() if until > now}
            for file_id in sorted(self._touched.difference(self._resting)):
                began = trio.current_time()
                self._touched.discard(file_id)
                if self._push(file_id):
                    ended = trio.current_time()
                    rest_s = min(max(_REST_FACTOR * (ended - began), SHORTEST_COALESCE_S), COALESCE_S)
                    self._resting[file_id] = ended + rest_s
                await trio.lowlevel.checkpoint()
            await trio.sleep(min(trio.current_time() - now, COALESCE_S))  # many swarms leave others half of the time

    def _push(self, file_id: bytes) -> bool:
        """Tell a swarm; return whether it has anybody to be told."""
        fetchers = [host for host in self._registry.fetchers(file_id) if host in self._connections]
        if not fetchers:
            return False
        members = self._registry.members(file_id)
        peers = {host: self._registry.peer(host, complete=complete) for host, complete in members.items()}
        placed = {host: Member(peer.zone, peer.complete) for host, peer in peers.items()}
        chosen = zoned_handouts(placed, fetchers, salt=self._salt + file_id)
        is_there = any(
            members.values()
        )  # then nobody wants to know who is absent: it takes as long as all else together
        for host in fetchers:
            absent = [] if is_there else self._registry.absent(file_id, host, trio.current_time())
            self._tell(self._connections[host], file_id, peers, chosen[host], absent)
        return True

    def _tell(
        self,
        connection: Connection,
        file_id: bytes,
        known: Mapping[str, PeerAddress],
        handed: Handed,
        absent: list[AbsentHolder],
    ) -> None:
        peers, gateways = [known[peer] for peer in handed.peers], list(handed.gateways)
        told = (peers, gateways, [holder.name for holder in absent])  # ages change all the time: no news
        if connection.handouts.get(file_id) == told:
            return
        if connection.is_busy:
            self.touch([file_id])  # later: a handout is never stale, so it need not queue up behind older ones
        else:
            connection.handouts[file_id] = told
            connection.push(Handout(file_id, peers, absent, gateways))
