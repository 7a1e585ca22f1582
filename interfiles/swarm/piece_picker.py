"""Which piece to fetch next: rarest first, ties at random (Legout, Urvoy-Keller, Michiardi, "Rarest First and Choke
Algorithms Are Enough", 2006).

Invariant: a piece is in exactly one state at any time: *held* (its hash matched), *inflight* at exactly one peer, or
*missing*. One owner an attempt keeps blame exact, and nobody else's bytes can land where a piece is being assembled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

from interfiles.geometry import Geometry, PieceIndex
from interfiles.piece_set import PieceSet
from interfiles.swarm.availability import Availability
from interfiles.swarm.chance import Chance


class PiecePicker:
    """The states of one file's pieces on this host. `pick` proposes; the caller marks."""

    def __init__(self, geometry: Geometry, held: PieceSet) -> None:
        self.geometry = geometry
        self.availability = Availability(geometry.piece_count)
        self.piece_bytes: Final = min(geometry.piece_size, geometry.size)  # but for a shorter one at the end
        self._held = held.copy()
        self._owners: dict[PieceIndex, str] = {}
        self._missing = held.complement()

    @property
    def held(self) -> PieceSet:
        """The verified pieces; do not change it."""
        return self._held

    @property
    def missing(self) -> PieceSet:
        """The pieces that are neither held nor inflight; do not change it."""
        return self._missing

    @property
    def inflight(self) -> Mapping[PieceIndex, str]:
        """The pieces being fetched, each with the peer that it is fetched from."""
        return self._owners

    @property
    def is_complete(self) -> bool:
        return self._held.is_full

    def wants_from(self, offered: PieceSet) -> bool:
        """Whether a peer with these pieces has any that is not held."""
        return bool(offered.bits & ~self._held.bits)

    def pick(self, offered: int, rng: Chance) -> PieceIndex | None:
        """The rarest missing piece among those that a peer offers (bits), or None."""
        return self.rarest_of(self._missing.bits & offered, rng)

    def rarest_of(self, candidates: int, rng: Chance) -> PieceIndex | None:
        """The rarest of these pieces (bits), or None."""
        rarest = self.availability.rarest(candidates)
        return _random_bit(rarest, self.geometry.piece_count, rng) if rarest else None

    def mark_requested(self, piece: PieceIndex, peer: str) -> None:
        """A missing piece is now inflight at `peer`."""
        assert piece in self._missing, piece
        self._missing.discard(piece)
        self._owners[piece] = peer

    def mark_held(self, piece: PieceIndex) -> None:
        """An inflight piece matched its hash."""
        del self._owners[piece]
        self._held.add(piece)

    def release(self, piece: PieceIndex) -> None:
        """An inflight piece will not come from its owner: it is missing again."""
        del self._owners[piece]
        self._missing.add(piece)

    def check_invariants(self) -> None:
        """Held, inflight and missing are disjoint and together all pieces."""
        inflight = PieceSet.of(self.geometry.piece_count, self._owners)
        assert not self._held.bits & self._missing.bits
        assert not inflight.bits & (self._held.bits | self._missing.bits)
        assert (inflight.bits | self._held.bits | self._missing.bits).bit_count() == self.geometry.piece_count
        self.availability.check_invariants()


def _random_bit(bits: int, count: int, rng: Chance) -> PieceIndex:
    """A set bit at random: the first at or above a random position, round the end.

    Bits that follow a gap are likelier; over a swarm's life that evens out, and it costs two operations.
    """
    start = int(rng.random() * count)
    above = bits >> start
    if above:
        return PieceIndex(start + (above & -above).bit_length() - 1)
    return PieceIndex((bits & -bits).bit_length() - 1)
