"""What a host asks of peers in other zones, so that each piece crosses into its zone about once.

A peer of another zone is asked only for what nobody here offers, *here* being the peers of the own zone that answer.
The few hosts of a zone that know others, its gateways, divide these pieces: each piece falls to the gateway whose hash
with its number is the greatest (rendezvous hashing: Thaler, Ravishankar, "Using Name-Based Mappings to Increase Hit
Rates", 1998), so one that comes or goes moves its own pieces only. A gateway whose share is done helps with what lies
untouched for a while, one piece at a time of a peer: one that is slow, or dead and still handed out, keeps nobody
waiting, and a race costs a piece that has just begun to cross, not a share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from blake3 import blake3

from interfiles.swarm.chance import Chance
from interfiles.swarm.piece_picker import PiecePicker

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from interfiles.swarm.asked_peer import AskedPeer

FIRST_LOOK_S: Final = 1.0  # for the peers of the own zone to be connected: what they have is not fetched from afar
HELP_S: Final = 1.0  # what falls to others lies untouched so long before it is fetched in their place, ...
HELP_PIECES: Final = 2  # ... and no shorter than so many pieces take
SLOW_S: Final = 20.0  # a peer that owes and completes no block for so long keeps others from fetching no longer
FAR_SILENCE_S: Final = 4.0  # a peer in another zone may be silent so much longer: links that many share do that
_SLOTS: Final = 1024  # pieces are divided by their number modulo this: shares within some 5 % of each other
_SCORE_BYTES: Final = 4


class Abroad:
    """Which peers are in other zones, and what may be asked of them. By default all peers are of one zone."""

    def __init__(self, picker: PiecePicker) -> None:
        self._picker = picker
        self._all = (1 << picker.geometry.piece_count) - 1
        self._foreign: frozenset[str] = frozenset()
        self._near: frozenset[str] = frozenset()
        self._gateways: tuple[str, ...] = ()
        self._share = self._all
        self._helping = 0  # pieces taken from the shares of others
        self._looking_until: float | None = None
        self._untouched = 0
        self._untouched_since: float | None = None  # None while there is something of the own share to do

    def place(
        self, *, near: Collection[str], foreign: Collection[str], gateways: Collection[str], me: str, now: float
    ) -> None:
        """The peers handed out, of the own zone and others, and who divides what only others have; empty: all is
        this host's. Peers that are not named are taken to be of the own zone.
        """
        if self._looking_until is None and foreign:
            self._looking_until = now + FIRST_LOOK_S
        self._near, self._foreign = frozenset(near), frozenset(foreign)
        if self._gateways != tuple(gateways):
            self._gateways = tuple(gateways)
            self._share = share(self._picker.geometry.piece_count, self._gateways, me)
            self._untouched_since, self._helping = None, 0

    @property
    def foreign(self) -> frozenset[str]:
        """The peers in other zones."""
        return self._foreign

    def is_foreign(self, peer: str) -> bool:
        """Whether a peer is in another zone."""
        return peer in self._foreign

    def not_due(self, peers: Mapping[str, AskedPeer], now: float) -> int:
        """The pieces that are not to be asked of other zones, or not any more: others have or fetch them (bits)."""
        return self.here(peers, now) | (self._all & ~(self._share | self._helping))

    def here(self, peers: Mapping[str, AskedPeer], now: float) -> int:
        """The pieces that peers of the own zone offer and can be expected to send (bits).

        Not of one that stalled, until it sends again, and not what one has not said to have dropped: it may be gone
        without a word.
        """
        found = 0
        for name, state in peers.items():
            if name in self._foreign or state.stalls or now < state.retry_at or is_slow(state, now):
                continue
            found |= state.offered.bits & ~state.void_bits
        return found

    def open_to(self, peer: str, peers: Mapping[str, AskedPeer], now: float, rng: Chance) -> int:
        """The pieces that may be asked of a peer now, or taken over by it (bits); all, of one of the own zone."""
        if peer not in self._foreign:
            return self._all
        if self._is_looking(peers, now):
            return 0
        away = inflight = 0
        for name in self._foreign & peers.keys():
            state = peers[name]
            for piece in state.owed:
                inflight |= 1 << piece
            if state.stalls or now < state.retry_at:  # what such a one has keeps nobody from helping
                continue
            away |= state.offered.bits & ~state.void_bits
        afar = self._all & ~self.here(peers, now)
        wanted = afar & away & self._picker.missing.bits
        if (wanted | inflight) & self._share:
            self._untouched_since = None
            return afar & (self._share | inflight)
        return afar & (inflight | self._help(peers[peer], wanted, now, rng))

    def _is_looking(self, peers: Mapping[str, AskedPeer], now: float) -> bool:
        looking = self._looking_until is not None and now < self._looking_until
        return looking and not self._near <= peers.keys()

    def _help(self, state: AskedPeer, wanted: int, now: float, rng: Chance) -> int:
        """A piece that falls to another gateway and was wanted all the time for a while, or none."""
        needed_s = HELP_PIECES * state.timing.needed_s(self._picker.geometry.piece_size)
        if self._untouched_since is None or not self._untouched & wanted:
            self._untouched, self._untouched_since = wanted, now
        self._untouched &= wanted
        if state.owes or now < self._untouched_since + max(HELP_S, needed_s):
            return 0
        piece = self._picker.rarest_of(self._untouched & state.offered.bits, rng)
        if piece is None:
            return 0
        self._helping |= 1 << piece
        return 1 << piece


def is_slow(peer: AskedPeer, now: float) -> bool:
    """Whether a peer that is not stalled, as it trickles or says that it is busy, gives next to nothing."""
    return peer.owes and peer.timing.waited_s(now) > SLOW_S


def share(count: int, gateways: Collection[str], me: str) -> int:
    """Which of so many pieces fall to this host (bits): all if there are no gateways, none if it is no one of them."""
    if me not in gateways:
        return 0 if gateways else (1 << count) - 1
    slots = min(count, _SLOTS)
    own, *others = [_scores(host, slots) for host in (me, *(host for host in gateways if host != me))]
    pattern = sum(1 << slot for slot, score in enumerate(own) if all(score >= other[slot] for other in others))
    if count <= _SLOTS:
        return pattern
    rounds = -(-count // _SLOTS)
    repeated = int.from_bytes(pattern.to_bytes(_SLOTS // 8, "little") * rounds, "little")
    return repeated & ((1 << count) - 1)


def _scores(host: str, slots: int) -> list[bytes]:
    digest = blake3(host.encode()).digest(slots * _SCORE_BYTES)
    return [digest[at : at + _SCORE_BYTES] for at in range(0, len(digest), _SCORE_BYTES)]
