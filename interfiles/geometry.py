"""Piece and block arithmetic: the only maker of valid piece indices and blocks.

A content of `size` bytes is cut into pieces of `piece_size`, the last one shorter; a piece is asked for in blocks of
`BLOCK_BYTES`. An index or block in hand was minted here, so whoever holds one need not check it again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NewType

KIB: Final = 1 << 10
MIB: Final = 1 << 20

MIN_PIECE_BYTES: Final = 256 * KIB
MAX_PIECE_BYTES: Final = 16 * MIB
MAX_PIECES: Final = 1 << 20  # with the largest pieces: 16 TiB in one file; its piece table is then 32 MiB
MAX_CONTENT_BYTES: Final = MAX_PIECES * MAX_PIECE_BYTES
BLOCK_BYTES: Final = MIB  # one decision of Python's a block: larger starves the event loop, smaller costs CPU

_TARGET_PIECES: Final = 2_000  # between the 500 and 4,000 that keep both piece table and restart cost small

PieceIndex = NewType("PieceIndex", int)


@dataclass(frozen=True, slots=True)
class Block:
    """`length` bytes of a piece from `offset` (bytes, within the piece)."""

    piece: PieceIndex
    offset: int
    length: int


def choose_piece_size(size: int) -> int:
    """Return the piece size for a content of `size` bytes: the power of two that gives about 1,000 to 2,000 pieces."""
    piece_size = MIN_PIECE_BYTES
    while piece_size < MAX_PIECE_BYTES and size > piece_size * _TARGET_PIECES:
        piece_size *= 2
    return piece_size


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a content of `size` bytes is cut into pieces of `piece_size` bytes.

    Raises:
      ValueError: the piece size is not a power of two within its bounds, or the size is outside 0..16 TiB.
    """

    size: int
    piece_size: int
    piece_count: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.piece_size.bit_count() != 1 or not MIN_PIECE_BYTES <= self.piece_size <= MAX_PIECE_BYTES:
            raise ValueError(f"piece size {self.piece_size} is not a power of two from 256 KiB to 16 MiB")
        if not 0 <= self.size <= MAX_CONTENT_BYTES:
            raise ValueError(f"size {self.size} is outside 0..{MAX_CONTENT_BYTES}")
        object.__setattr__(self, "piece_count", -(-self.size // self.piece_size))
        if self.piece_count > MAX_PIECES:
            raise ValueError(f"{self.piece_count} pieces are more than the {MAX_PIECES} allowed")

    def piece(self, raw: int) -> PieceIndex:
        """Mint a piece index.

        Raises:
          ValueError: `raw` is not one of the pieces.
        """
        if not 0 <= raw < self.piece_count:
            raise ValueError(f"piece {raw} is outside 0..{self.piece_count - 1}")
        return PieceIndex(raw)

    def pieces(self, start: int = 0) -> Iterator[PieceIndex]:
        """Every piece index from `start` on, in order."""
        return (PieceIndex(i) for i in range(start, self.piece_count))

    def piece_offset(self, piece: PieceIndex) -> int:
        """Where the piece begins in the content, in bytes."""
        return piece * self.piece_size

    def piece_length(self, piece: PieceIndex) -> int:
        """Bytes in the piece: `piece_size`, or what is left for the last one."""
        return min(self.piece_size, self.size - piece * self.piece_size)

    def blocks(self, piece: PieceIndex) -> list[Block]:
        """The blocks of a piece in order; together they are the whole piece."""
        length = self.piece_length(piece)
        return [Block(piece, at, min(BLOCK_BYTES, length - at)) for at in range(0, length, BLOCK_BYTES)]

    def block(self, piece: int, offset: int, length: int) -> Block:
        """Mint a block from a peer's numbers; it need not lie on block boundaries.

        Raises:
          ValueError: the range is empty, longer than `BLOCK_BYTES`, or not inside the piece.
        """
        index = self.piece(piece)
        if not 0 < length <= BLOCK_BYTES:
            raise ValueError(f"block of {length} bytes is outside 1..{BLOCK_BYTES}")
        if offset < 0 or offset + length > self.piece_length(index):
            raise ValueError(
                f"bytes {offset}..{offset + length} are outside piece {piece} of {self.piece_length(index)} bytes"
            )
        return Block(index, offset, length)
