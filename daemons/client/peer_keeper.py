"""The sessions of one download: whom to dial, for how long, and what becomes of who fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemons.client.fetch_session import FetchSession
from daemons.supervision import Backoff, contain
from interfiles.errors import InterFilesError, VerificationFailed

if TYPE_CHECKING:
    from random import Random

    from daemons.client.fetch_session import PieceSink
    from daemons.client.fleet_network import FleetNetwork
    from daemons.client.local_file import LocalFile
    from daemons.client.rate_gate import Flow
    from interfiles.swarm.request_scheduler import RequestScheduler
    from interfiles.wire.master_messages import PeerAddress

MAX_SESSIONS: Final = 12  # peers of one file at once
SESSION_RATE: Final = 64_000  # for each of them under a limit: a peer gives up that waits a minute to send on
REDIAL_FLOOR_S: Final = 0.3
REDIAL_CAP_S: Final = 30.0
BAN_S: Final = 10.0  # for a peer that sent a wrong piece: long enough for it to check its copy, doubled each time
MAX_BAN_S: Final = 300.0
TICK_S: Final = 0.25  # how often stalls are looked for
USELESS_S: Final = 5.0  # a peer that owes nothing for so long has its place no longer while others wait for one

log = structlog.get_logger()


@dataclass(slots=True)
class _Place:
    """One of the few that peers of a download have; `of_use_at`: when its peer last owed something."""

    of_use_at: float
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


@dataclass(slots=True)
class _Past:
    """What is kept of a peer, place or none; it is not dialled before `due_at`."""

    backoff: Backoff
    bans: int = 0
    due_at: float = float("-inf")


class PeerKeeper:
    """Holds a session with each peer that is handed out, and dials again when one ends.

    Where there are more of them than places, who is of no use makes room for the next, in turn.

    `zone`: this host's; `flow`: what limits its downloads.
    """

    def __init__(
        self,
        file: LocalFile,
        scheduler: RequestScheduler,
        sink: PieceSink,
        network: FleetNetwork,
        flow: Flow,
        rng: Random,
        *,
        zone: str,
    ) -> None:
        self._file = file
        self._scheduler = scheduler
        self._sink = sink
        self._network = network
        self._flow = flow
        self._rng = rng
        self._zone = zone
        self._sessions: dict[str, FetchSession] = {}
        self._places: dict[str, _Place] = {}
        self._pasts: dict[str, _Past] = {}

    async def run(self) -> None:
        """Fetch until cancelled.

        Cancellation:
          Closes all connections.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tick)
            nursery.start_soon(self._follow_limit)
            await self._keep_peers()

    def tell_priority(self) -> None:
        """Have peers told of another priority of the download."""
        for session in self._sessions.values():
            if session.has_other_priority:
                session.wake.tell()

    async def _keep_peers(self) -> None:
        seen = 0
        async with trio.open_nursery() as nursery:
            while True:
                self._place_peers()
                new = self._waiting()
                room = self._most_sessions - len(self._places)
                for host_id in new[: max(room, 0)]:
                    self._places[host_id] = _Place(trio.current_time())
                    nursery.start_soon(self._keep, host_id)
                self._make_room(len(new) - room)
                self._end_some(len(self._places) - self._most_sessions)
                self._forget_others()
                seen = await self._file.handed_out.later_than(seen)

    def _waiting(self) -> list[str]:
        """The peers that are handed out and have no place, those first that may be dialled first."""
        known = {*self._places, self._network.host_id}
        return sorted(
            (name for name in self._file.peers if name not in known), key=lambda name: self._past(name).due_at
        )

    def _past(self, host_id: str) -> _Past:
        if host_id not in self._pasts:
            self._pasts[host_id] = _Past(Backoff(self._rng, floor_s=REDIAL_FLOOR_S, cap_s=REDIAL_CAP_S))
        return self._pasts[host_id]

    def _forget_others(self) -> None:
        """Keep nothing of peers that have no place and are not handed out, but for what they did wrong."""
        known = {*self._places, *self._file.peers}
        self._pasts = {name: past for name, past in self._pasts.items() if past.bans or name in known}

    def _rotate(self, now: float) -> None:
        """End the places of so many that are of no use as there are others that may be dialled now.

        Each is dialled as rarely as its own backoff has it, so peers that are all of no use cost little.
        """
        owing = set(self._scheduler.picker.inflight.values())
        for host_id in owing & self._places.keys():
            self._places[host_id].of_use_at = now
        due = sum(self._past(name).due_at <= now for name in self._waiting())
        due -= sum(place.scope.cancel_called for place in self._places.values())
        idle = [place for place in self._places.values() if now >= place.of_use_at + USELESS_S]
        idle = [place for place in idle if not place.scope.cancel_called]
        for place in sorted(idle, key=lambda place: place.of_use_at)[: max(due, 0)]:
            place.scope.cancel()

    def _place_peers(self) -> None:
        """Tell the scheduler who of those that are connected or handed out are in other zones."""
        peers, connected = self._file.peers, {host_id: session.peer for host_id, session in self._sessions.items()}
        foreign = {host_id for host_id, peer in {**connected, **peers}.items() if peer.zone != self._zone}
        self._scheduler.abroad.place(
            near=peers.keys() - foreign,
            foreign=foreign,
            gateways=self._file.gateways,
            me=self._network.host_id,
            now=trio.current_time(),
        )

    def _make_room(self, count: int) -> None:
        """Leave so many peers that are handed out no more, those first that have nothing for this host.

        Else a host whose places are all taken by others that lack the same pieces would never dial a source.
        """
        left = [host_id for host_id in self._places if host_id not in self._file.peers]
        connected = self._scheduler.peers()
        left.sort(key=lambda host_id: host_id in connected and self._scheduler.is_useful(host_id))
        for host_id in left[: max(count, 0)]:
            self._places[host_id].scope.cancel()

    @property
    def _most_sessions(self) -> int:
        rate = self._flow.gate.rate
        return MAX_SESSIONS if rate is None else min(max(rate // SESSION_RATE, 1), MAX_SESSIONS)

    async def _follow_limit(self) -> None:
        """Have as many sessions as the limit has use for, and each ask for little while others have the line."""
        gate = self._flow.gate
        while True:
            seen = gate.changed.count
            if self._scheduler.gives_way != gate.gives_way:
                self._scheduler.give_way(gate.gives_way)
                for session in self._sessions.values():
                    session.wake.tell()
            await gate.changed.later_than(seen)
            self._file.handed_out.tell()

    def _end_some(self, count: int) -> None:
        """End so many sessions, those of no use first."""
        connected = self._scheduler.peers()
        names = sorted(self._places, key=lambda name: name in connected and self._scheduler.is_useful(name))
        for host_id in names[: max(count, 0)]:
            self._places[host_id].scope.cancel()

    async def _keep(self, host_id: str) -> None:
        """Hold a session with one peer for as long as it is handed out."""
        try:
            with self._places[host_id].scope:
                await trio.sleep_until(self._past(host_id).due_at)
                while (peer := self._file.peers.get(host_id)) is not None:
                    await self._session(peer, self._past(host_id))
                    await trio.sleep_until(self._past(host_id).due_at)
        finally:
            del self._places[host_id]
            self._file.handed_out.tell()  # another may have its place

    async def _session(self, peer: PeerAddress, past: _Past) -> None:
        session = FetchSession(
            *(peer, self._file.manifest, self._scheduler, self._sink),
            flow=self._flow,
            sessions=self._sessions,
            rng=self._rng,
        )
        self._sessions[peer.host_id] = session

        async def run() -> None:
            try:
                await session.run(self._network)
            except* VerificationFailed:
                past.bans += 1
                log.warning("peer blamed", file=self._file.label, peer=peer.name, times=past.bans)
                raise

        try:
            await contain(f"fetching from {peer.name}", run, expected=(InterFilesError,), log=log)
        finally:
            del self._sessions[peer.host_id]
            if session.received_bytes:  # from this very peer: what others send says nothing of it
                past.backoff.reset()
            past.due_at = trio.current_time() + max(past.backoff.next(), ban_s(past.bans))
            self._file.changed.tell()

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            await trio.lowlevel.checkpoint()  # where something held the loop up, sessions first hear what has come
            stalled = self._scheduler.expire(trio.current_time())
            for stall in stalled:
                session = self._sessions[stall.peer]
                for entry in stall.cancelled:
                    session.cancel(entry)
                log.info("stalled", file=self._file.label, peer=session.peer.name, pieces=stall.pieces)
            self._rotate(trio.current_time())
            for peer in self._scheduler.peers():
                if stalled or self._scheduler.has_room(peer):
                    self._sessions[peer].wake.tell()  # time alone may have made something of another's worth taking


def ban_s(times: int) -> float:
    """How long a peer is left alone that has sent a wrong piece so many times, in seconds."""
    return min(BAN_S * 2.0 ** min(times - 1, 10), MAX_BAN_S) if times else 0.0
