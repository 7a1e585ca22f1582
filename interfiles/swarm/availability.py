"""How many connected peers hold each piece.

Pieces are kept in levels: level `k` is the set of pieces that exactly `k` peers hold, as the bits of one integer. A
peer that comes or goes moves whole sets of pieces a level up or down with a few big-integer operations, and the rarest
of any set of candidates is found by intersecting it with the levels from below.
"""

from interfiles.geometry import PieceIndex
from interfiles.piece_set import PieceSet


class Availability:
    """Counts over the pieces 0..count-1."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._levels = [(1 << count) - 1]

    def add(self, pieces: PieceSet) -> None:
        """One peer more holds these pieces."""
        moving = pieces.bits
        self._levels.append(0)
        for k in range(len(self._levels) - 2, -1, -1):
            rising = self._levels[k] & moving
            self._levels[k] ^= rising
            self._levels[k + 1] |= rising
        self._trim()

    def remove(self, pieces: PieceSet) -> None:
        """One peer fewer holds these pieces; it had been added with them."""
        moving = pieces.bits
        for k in range(1, len(self._levels)):
            falling = self._levels[k] & moving
            self._levels[k] ^= falling
            self._levels[k - 1] |= falling
        self._trim()

    def add_one(self, piece: PieceIndex) -> None:
        """One peer more holds this piece."""
        bit, levels, k = 1 << piece, self._levels, 0
        while not levels[k] & bit:
            k += 1
        levels[k] ^= bit
        if k + 1 == len(levels):
            levels.append(bit)
        else:
            levels[k + 1] |= bit

    def remove_one(self, piece: PieceIndex) -> None:
        """One peer fewer holds this piece."""
        bit, levels, k = 1 << piece, self._levels, 1
        while not levels[k] & bit:
            k += 1
        levels[k] ^= bit
        levels[k - 1] |= bit
        self._trim()

    def of(self, piece: PieceIndex) -> int:
        """How many peers hold the piece."""
        return next(k for k, level in enumerate(self._levels) if level >> piece & 1)

    def rarest(self, candidates: int) -> int:
        """Those of the candidate bits that the fewest peers hold; 0 only when there are no candidates."""
        for level in self._levels:
            if found := candidates & level:
                return found
        return 0

    def exactly(self, count: int) -> int:
        """The bits of the pieces that so many peers hold."""
        return self._levels[count] if count < len(self._levels) else 0

    @property
    def missing(self) -> PieceSet:
        """The pieces that no connected peer holds."""
        return PieceSet(self.count, self._levels[0])

    def _trim(self) -> None:
        while len(self._levels) > 1 and not self._levels[-1]:
            self._levels.pop()

    def check_invariants(self) -> None:
        """Every piece is on exactly one level."""
        union = 0
        for level in self._levels:
            assert not union & level
            union |= level
        assert union == (1 << self.count) - 1
