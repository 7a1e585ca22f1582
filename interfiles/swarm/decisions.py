"""What a `RequestScheduler` decides, for its caller to carry out."""

from dataclasses import dataclass, field

from interfiles.geometry import Block, PieceIndex


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Tell `peer` that `piece` is not wanted of it any more; if it has begun, only with `even_begun`."""

    peer: str
    piece: PieceIndex
    even_begun: bool


@dataclass(frozen=True, slots=True)
class Stall:
    """`peer` is silent: so many pieces of it go to others; those that it has not been told of are cancelled."""

    peer: str
    pieces: int
    cancelled: list[Cancelled] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to send now: pieces to ask of the peer that was asked about, and cancellations to others."""

    asks: list[PieceIndex] = field(default_factory=list)
    cancelled: list[Cancelled] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Arrival:
    """What to do with a block that begins to arrive: take it, or drop its bytes (None); and cancellations to others."""

    block: Block | None
    cancelled: list[Cancelled] = field(default_factory=list)
