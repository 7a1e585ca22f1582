"""Pieces as strings: `"#..#"` holds pieces 0 and 3 of four."""

from interfiles.geometry import MIN_PIECE_BYTES, Block, Geometry
from interfiles.piece_set import PieceSet
from interfiles.swarm.request_scheduler import RequestScheduler


def pieces(drawn: str) -> PieceSet:
    """The pieces drawn as `#`."""
    return PieceSet.of(len(drawn), [i for i, c in enumerate(drawn) if c == "#"])


def drawn(held: PieceSet) -> str:
    """The reverse of `pieces`."""
    return "".join("#" if i in held else "." for i in range(held.count))


def geometry(count: int, *, piece_size: int = MIN_PIECE_BYTES) -> Geometry:
    """So many whole pieces."""
    return Geometry(count * piece_size, piece_size)


def write(made: RequestScheduler, peer: str, block: Block, now: float) -> None:
    """A block that has come whole is written, at once."""
    assert made.begin_write(peer, block.piece, now)
    made.on_taken(peer, block)
    made.end_write(peer, block.piece, now)
