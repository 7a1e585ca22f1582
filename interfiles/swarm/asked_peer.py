"""One peer of a download: what it offers, what is asked of it, and how much of that it can have at once."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from interfiles.geometry import BLOCK_BYTES, PieceIndex
from interfiles.piece_set import PieceSet
from interfiles.swarm.peer_timing import PeerTiming

WINDOW_S: Final = 0.3  # what is asked and may come: so much time's worth, more than any LAN's and most WANs' round trip
MIN_WINDOW_PIECES: Final = 2  # one arriving, one on its way: less would leave the pipe empty between them
MANY: Final = 16  # pieces asked of a peer, of which it has hardly begun a certain one
MAX_WINDOW_BYTES: Final = 16 * BLOCK_BYTES
REFILL_SHARE: Final = 4  # a window is filled again when this part of it is free


@dataclass(slots=True)
class AskedPeer:
    """`piece_bytes`: the length of a piece; the last one may be shorter, which is ignored here."""

    offered: PieceSet
    timing: PeerTiming
    piece_bytes: int
    asked: PieceSet  # and not begun
    coming: PieceIndex | None = None  # begun
    received_bytes: int = 0  # of `coming`
    leaving: PieceSet = field(init=False)  # taken back, and its own until its word
    void: Counter[PieceIndex] = field(default_factory=Counter)  # taken back: the peer's word that it knows is due
    retry_at: float = 0.0
    stalls: int = 0
    gives_way: bool = False  # other downloads of this host are to have nearly all of its line
    window_bytes: int = field(init=False)  # what it should owe at most: its pipe is full, and more would be too early

    def __post_init__(self) -> None:
        self.leaving = PieceSet(self.asked.count)
        self._set_window()

    def measure(self, length: int, now: float) -> None:
        """A block of so many bytes came whole."""
        self.timing.add_block(length, now)
        self._set_window()

    def give_way(self, gives_way: bool) -> None:
        """From now on it is to be asked for one piece at a time, as what is asked comes at once, or for more again."""
        self.gives_way = gives_way
        self._set_window()

    def _set_window(self) -> None:
        least = MIN_WINDOW_PIECES * self.piece_bytes
        usual = min(max(self.timing.rate * WINDOW_S, least), max(MAX_WINDOW_BYTES, least))
        self.window_bytes = self.piece_bytes if self.gives_way else int(usual)

    @property
    def owes(self) -> bool:
        return self.coming is not None or bool(self.asked) or bool(self.leaving)

    @property
    def void_bits(self) -> int:
        """The pieces of `void`, as bits."""
        bits = 0
        for piece in self.void:
            bits |= 1 << piece
        return bits

    @property
    def owed(self) -> list[PieceIndex]:
        """The pieces asked, and that which is coming."""
        return [*self.asked, *([self.coming] if self.coming is not None else [])]

    @property
    def owed_bytes(self) -> int:
        asked = self.asked.bits.bit_count() * self.piece_bytes
        return asked + self.piece_bytes - self.received_bytes if self.coming is not None else asked

    @property
    def room_bytes(self) -> int:
        """What to ask of it now: nothing while less than a quarter of the window is free, as few large batches cost
        less than many small ones."""
        window, owed = self.window_bytes, self.owed_bytes
        return window - owed if owed <= window - window // REFILL_SHARE else 0

    @property
    def has_many(self) -> bool:
        """Whether so much was asked of it that it has hardly begun one certain piece of that."""
        return self.asked.bits.bit_count() >= MANY

    @property
    def has_backlog(self) -> bool:
        """Whether it owes clearly more than its window."""
        return self.is_backlog(self.owed_bytes)

    def is_backlog(self, owed_bytes: int) -> bool:
        """Whether so much is clearly more than its window."""
        return owed_bytes > self.window_bytes * (1 + 1 / REFILL_SHARE)

    @property
    def is_beyond_window(self) -> bool:
        """Whether more pieces are asked of it than are a window's worth, and one."""
        return self.asked.bits.bit_count() > self.window_bytes // self.piece_bytes + 1

    def beyond_window(self, pieces: int) -> int:
        """Which of these pieces (bits), all asked of it, are more than a window's worth; the first ones are not."""
        left = self.window_bytes // self.piece_bytes
        if pieces.bit_count() <= left + 1:
            return 0
        for _ in range(left):
            pieces &= pieces - 1
        return pieces

    def forget(self, piece: PieceIndex) -> None:
        """It does not owe this piece any more."""
        self.asked.discard(piece)
        self.leaving.discard(piece)
        if self.coming == piece:
            self.coming = None
