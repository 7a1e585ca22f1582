"""A set of pieces as the bits of one integer.

Unions and differences of whole bitfields are one big-integer operation (a microsecond for 60,000 pieces), which keeps
choosing a piece cheap without an index structure to maintain. Piece 0 is the integer's lowest bit; on the wire and on
disk it is the highest bit of the first byte, as in BitTorrent's bitfield (BEP 3).
"""

from collections.abc import Iterable, Iterator

from interfiles.geometry import PieceIndex

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class PieceSet:
    """A mutable set of the pieces 0..count-1.

    `bits` has bit `i` set when piece `i` is in the set; no bit at or above `count` is ever set.
    """

    __slots__ = ("bits", "count")

    def __init__(self, count: int, bits: int = 0) -> None:
        if bits < 0 or bits.bit_length() > count:
            raise ValueError(f"a bit above piece {count - 1} is set")
        self.count = count
        self.bits = bits

    @classmethod
    def full(cls, count: int) -> "PieceSet":
        """All pieces."""
        return cls(count, (1 << count) - 1)

    @classmethod
    def of(cls, count: int, pieces: Iterable[int]) -> "PieceSet":
        """The given pieces.

        Raises:
          ValueError: a piece is outside 0..count-1.
        """
        made = bytearray((count + 7) // 8)
        for piece in pieces:
            if not 0 <= piece < count:
                raise ValueError(f"piece {piece} is outside 0..{count - 1}")
            made[piece >> 3] |= 1 << (piece & 7)
        return cls(count, int.from_bytes(made, "little"))

    @classmethod
    def from_bytes(cls, count: int, data: bytes) -> "PieceSet":
        """Read a bitfield.

        Raises:
          ValueError: the length is not that of `count` bits, or a spare bit is set.
        """
        if len(data) != (count + 7) // 8:
            raise ValueError(f"bitfield of {len(data)} bytes, {count} pieces take {(count + 7) // 8}")
        return cls(count, int.from_bytes(data.translate(_REVERSED), "little"))

    def to_bytes(self) -> bytes:
        """Write the bitfield: ceil(count / 8) bytes."""
        return self.bits.to_bytes((self.count + 7) // 8, "little").translate(_REVERSED)

    def add(self, piece: PieceIndex) -> None:
        self.bits |= 1 << piece

    def discard(self, piece: PieceIndex) -> None:
        self.bits &= ~(1 << piece)

    def copy(self) -> "PieceSet":
        return PieceSet(self.count, self.bits)

    @property
    def is_full(self) -> bool:
        return len(self) == self.count

    def complement(self) -> "PieceSet":
        """The pieces that are not in the set."""
        return PieceSet(self.count, ~self.bits & ((1 << self.count) - 1))

    def __contains__(self, piece: int) -> bool:
        return bool(self.bits >> piece & 1)

    def __len__(self) -> int:
        return self.bits.bit_count()

    def __bool__(self) -> bool:
        return self.bits != 0

    def __iter__(self) -> Iterator[PieceIndex]:
        """The pieces in ascending order."""
        for at, byte in enumerate(self.bits.to_bytes((self.count + 7) // 8, "little")):
            while byte:
                lowest = byte & -byte
                yield PieceIndex(at * 8 + lowest.bit_length() - 1)
                byte ^= lowest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PieceSet) and (self.count, self.bits) == (other.count, other.bits)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"PieceSet({len(self)} of {self.count})"
