"""How many blocks to ask of whom, and when to ask somebody else.

Each peer has a window of outstanding bytes sized by its measured rate. A peer that owes blocks and sends no byte for
mean + 4 deviations of its own block times (the retransmission timer of RFC 6298) is stalled: its pieces go to others.
When nothing is missing any more, a peer with room may steal a piece whose owner would take more than twice as long.

Every method that takes `now` takes seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from interfiles.errors import RemoteProtocolError
from interfiles.geometry import BLOCK_BYTES, Block, Geometry, PieceIndex
from interfiles.piece_set import PieceSet
from interfiles.swarm.piece_picker import PiecePicker
from interfiles.swarm.rate_meter import RateMeter

if TYPE_CHECKING:
    from interfiles.swarm.chance import Chance

WINDOW_S: Final = 0.3  # outstanding bytes: so much time's worth, more than any LAN's and most WANs' round trip
MIN_WINDOW_BLOCKS: Final = 2  # one arriving, one on its way: less would leave the pipe empty between them
MAX_WINDOW_BYTES: Final = 16 * BLOCK_BYTES
REFILL_SHARE: Final = 4  # a window is filled again when this part of it is free
FIRST_STALL_S: Final = 5.0  # before anything is measured
MIN_STALL_S: Final = 1.0  # a busy disk or a paused process is no stall yet
MAX_STALL_S: Final = 20.0
STALL_RETRY_S: Final = 2.0  # a stalled peer is asked again after so long, doubled each time up to MAX_RETRY_S
MAX_RETRY_S: Final = 30.0
MAX_STALLS: Final = 5
STEAL_FACTOR: Final = 2.0
STEAL_MARGIN_S: Final = 0.5
MAX_STEALS: Final = 4  # of one piece: bounds what a swarm of slow peers can waste on it


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Tell `peer` that its unanswered requests for `piece` are void."""

    peer: str
    piece: PieceIndex


@dataclass(frozen=True, slots=True)
class Decision:
    """What to send now: blocks to request of the peer that was asked about, and cancellations to others."""

    requests: list[Block] = field(default_factory=list)
    cancelled: list[Cancelled] = field(default_factory=list)


@dataclass(slots=True)
class _Peer:
    offered: PieceSet
    meter: RateMeter
    heard_at: float
    block_since: float
    unasked: deque[Block] = field(default_factory=deque)
    outstanding: deque[tuple[int, Block]] = field(default_factory=deque)
    void: list[tuple[int, Block]] = field(default_factory=list)
    sequence: int = 0
    block_mean_s: float | None = None
    block_deviation_s: float = 0.0
    retry_at: float = 0.0
    stalls: int = 0

    @property
    def outstanding_bytes(self) -> int:
        return sum(block.length for _, block in self.outstanding)

    def window_bytes(self, now: float, block_bytes: int) -> int:
        least = MIN_WINDOW_BLOCKS * block_bytes
        return int(min(max(self.meter.rate(now) * WINDOW_S, least), MAX_WINDOW_BYTES))

    def stall_s(self) -> float:
        if self.block_mean_s is None:
            return FIRST_STALL_S
        return min(max(self.block_mean_s + 4 * self.block_deviation_s, MIN_STALL_S), MAX_STALL_S)

    def measure_block(self, now: float) -> None:
        took, self.block_since = now - self.block_since, now
        if self.block_mean_s is None:
            self.block_mean_s, self.block_deviation_s = took, took / 2
        else:
            self.block_deviation_s += (abs(took - self.block_mean_s) - self.block_deviation_s) / 4
            self.block_mean_s += (took - self.block_mean_s) / 8


class RequestScheduler:
    """The requests of one file to all its peers."""

    def __init__(self, geometry: Geometry, held: PieceSet) -> None:
        self.picker: Final = PiecePicker(geometry, held)
        self._geometry = geometry
        self._block_bytes = min(BLOCK_BYTES, geometry.piece_size)
        self._peers: dict[str, _Peer] = {}
        self._steals: dict[PieceIndex, int] = {}
        self._pinned: set[PieceIndex] = set()

    # Peers

    def add_peer(self, peer: str, offered: PieceSet, now: float) -> None:
        """A peer is connected and holds `offered`."""
        assert peer not in self._peers, peer
        self._peers[peer] = _Peer(offered.copy(), RateMeter(now), heard_at=now, block_since=now)
        self.picker.availability.add(offered)

    def remove_peer(self, peer: str) -> None:
        """A peer is gone; what it owed is missing again."""
        gone = self._peers.pop(peer)
        self.picker.availability.remove(gone.offered)
        for piece in self._owned_by(peer):
            self.picker.release(piece)

    def add_have(self, peer: str, piece: int) -> None:
        """A peer gained a piece.

        Raises:
          RemoteProtocolError: there is no such piece.
        """
        state, index = self._peers[peer], self._mint(piece)
        if index not in state.offered:
            state.offered.add(index)
            self.picker.availability.add_one(index)

    def peers(self) -> list[str]:
        """The connected peers."""
        return list(self._peers)

    def rate(self, peer: str, now: float) -> float:
        """Bytes a second from this peer."""
        return self._peers[peer].meter.rate(now)

    def is_useful(self, peer: str) -> bool:
        """Whether the peer has anything that this host lacks."""
        return self.picker.wants_from(self._peers[peer].offered)

    # Asking

    def next_requests(self, peer: str, now: float, rng: Chance) -> Decision:
        """Fill the peer's window: mark blocks as requested and return them for sending."""
        state, decision = self._peers[peer], Decision()
        if now < state.retry_at:
            return decision
        room = self._room(state, now)
        while room > 0:
            if not state.unasked:
                piece = self._acquire(peer, state, now, rng, decision)
                if piece is None:
                    break
                state.unasked.extend(self._geometry.blocks(piece))
            block = state.unasked.popleft()
            if not state.outstanding:
                state.heard_at = state.block_since = now
            state.sequence += 1
            state.outstanding.append((state.sequence, block))
            decision.requests.append(block)
            room -= block.length
        return decision

    def is_idle(self, peer: str) -> bool:
        """Whether a connected peer owes nothing."""
        return peer in self._peers and not self._peers[peer].outstanding

    def has_room(self, peer: str, now: float) -> bool:
        """Whether `next_requests` would ask the peer for more, if it has more."""
        return self._room(self._peers[peer], now) > 0

    def _room(self, state: _Peer, now: float) -> int:
        """Bytes to ask for now: nothing while less than a quarter of the window is free, as few large batches of
        requests cost less than many small ones."""
        window, outstanding = state.window_bytes(now, self._block_bytes), state.outstanding_bytes
        return window - outstanding if outstanding <= window - window // REFILL_SHARE else 0

    def _acquire(self, peer: str, state: _Peer, now: float, rng: Chance, decision: Decision) -> PieceIndex | None:
        piece = self.picker.pick(state.offered, rng)
        if piece is None:
            piece = self._best_steal(peer, state, now)
            if piece is None:
                return None
            owner = self.picker.inflight[piece]
            self._void(owner, piece)
            self._steals[piece] = self._steals.get(piece, 0) + 1
            decision.cancelled.append(Cancelled(owner, piece))
        self.picker.mark_requested(piece, peer)
        return piece

    def _best_steal(self, peer: str, state: _Peer, now: float) -> PieceIndex | None:
        """The piece that its owner will take longest for, if this peer is clearly quicker with all of it.

        A peer that may still be sending what was taken from it is not: two that are slow would take turns.
        """
        best, longest = None, 0.0
        if state.void:
            return None
        for piece, owner in self.picker.inflight.items():
            if owner == peer or piece not in state.offered or piece in self._pinned:
                continue
            if self._steals.get(piece, 0) >= MAX_STEALS:
                continue
            left = self._time_left(piece, owner, now)
            rate = state.meter.rate(now)
            needed = self._geometry.piece_length(piece) / rate if rate else STEAL_MARGIN_S
            if left > max(longest, needed * STEAL_FACTOR + STEAL_MARGIN_S):
                best, longest = piece, left
        return best

    def _time_left(self, piece: PieceIndex, owner: str, now: float) -> float:
        """Seconds until `owner` has sent all that it owes, at the rate it has shown."""
        state = self._peers[owner]
        owed = sum(block.length for _, block in state.outstanding) + sum(block.length for block in state.unasked)
        if not state.outstanding:
            return 0.0
        waited = now - state.block_since  # for the block at the head
        if state.block_mean_s is None:
            return owed * waited / state.outstanding[0][1].length  # it is no quicker than that
        rate = state.meter.rate(now)
        return waited + owed / rate if rate > 0 else float("inf")

    # Answers

    def on_bytes(self, peer: str, now: float) -> None:
        """Some bytes of a block came: the peer is not stalled."""
        self._peers[peer].heard_at = now

    def on_block(self, peer: str, piece: int, offset: int, length: int, now: float) -> Block | None:
        """A block came whole. Return it, or None when it had been taken back: then drop its bytes.

        Raises:
          RemoteProtocolError: it was never asked for.
        """
        state = self._peers[peer]
        state.meter.add(length, now)
        state.heard_at = now
        block = self._take(state, piece, offset, in_order=True)
        if block is not None:
            if block.length != length:
                raise RemoteProtocolError(f"block of {length} bytes came, {block.length} were asked for")
            state.measure_block(now)
            state.stalls = 0
        return block

    def on_busy(self, peer: str, piece: int, offset: int, retry_after_s: float, now: float) -> None:
        """The peer refuses a block for now; its pieces go to others meanwhile.

        Raises:
          RemoteProtocolError: the block was never asked for.
        """
        state = self._peers[peer]
        block = self._take(state, piece, offset, in_order=False)
        state.retry_at = max(state.retry_at, now + retry_after_s)
        if block is not None and self.picker.inflight.get(block.piece) == peer:
            self._void(peer, block.piece)

    def on_not_found(self, peer: str, piece: int, offset: int) -> None:
        """The peer does not hold the piece after all.

        Raises:
          RemoteProtocolError: the block was never asked for.
        """
        state = self._peers[peer]
        block = self._take(state, piece, offset, in_order=False)
        if block is None:
            return
        self._unoffer(state, block.piece)
        if self.picker.inflight.get(block.piece) == peer:
            self._void(peer, block.piece)

    def pin(self, piece: PieceIndex) -> None:
        """A block of an inflight piece is being written: until `unpin` nobody else may begin to write there."""
        self._pinned.add(piece)

    def unpin(self, piece: PieceIndex) -> None:
        """The block is written."""
        self._pinned.discard(piece)

    def on_verified(self, piece: PieceIndex) -> None:
        """All blocks of an inflight piece came and its hash matched."""
        self.picker.mark_held(piece)
        self._steals.pop(piece, None)

    def on_rejected(self, peer: str, piece: PieceIndex) -> None:
        """All blocks came and the hash did not match: the peer no longer counts as holding the piece."""
        self._unoffer(self._peers[peer], piece)
        self.picker.release(piece)

    # Time

    def expire(self, now: float) -> list[Cancelled]:
        """Take the pieces of stalled peers back; return the cancellations to send."""
        cancelled = []
        for name, state in self._peers.items():
            if not state.outstanding or now < self._deadline(state):
                continue
            state.retry_at = now + min(STALL_RETRY_S * 2**state.stalls, MAX_RETRY_S)
            state.stalls += 1
            for piece in self._owned_by(name):
                if piece in self._pinned:
                    continue
                self._void(name, piece)
                cancelled.append(Cancelled(name, piece))
        return cancelled

    def next_expiry(self) -> float | None:
        """When `expire` is worth calling next, if nothing comes before."""
        return min((self._deadline(state) for state in self._peers.values() if state.outstanding), default=None)

    def retry_at(self, peer: str) -> float:
        """When a peer that was busy or stalled may be asked again."""
        return self._peers[peer].retry_at

    def is_dead(self, peer: str) -> bool:
        """Whether the peer stalled `MAX_STALLS` times without a whole block between: about a minute of nothing."""
        return self._peers[peer].stalls >= MAX_STALLS

    # Inside

    def _deadline(self, state: _Peer) -> float:
        return state.heard_at + state.stall_s()

    def _owned_by(self, peer: str) -> list[PieceIndex]:
        return [piece for piece, owner in self.picker.inflight.items() if owner == peer]

    def _take(self, state: _Peer, piece: int, offset: int, *, in_order: bool) -> Block | None:
        """Remove a request that was answered: return its block, or None when it was void.

        Blocks (`in_order`) keep the order of their requests, so what was void before this one will never come; refusals
        may overtake. A request that was taken back and made again has a twin among the void ones. A block that comes
        before those that are due first is the twin's; else it may be either's, and with the same bytes, so it counts
        for the live one and the twin stays for an answer to come.
        """
        live = next((e for e in state.outstanding if (e[1].piece, e[1].offset) == (piece, offset)), None)
        void = next((e for e in state.void if (e[1].piece, e[1].offset) == (piece, offset)), None)
        if live is None and void is None:
            raise RemoteProtocolError(f"an answer about piece {piece} from byte {offset} came, which was not asked for")
        if in_order and void is not None and live is not None and live is not state.outstanding[0]:
            live = None
        if void is not None:
            state.void.remove(void)
        if live is not None:
            state.outstanding.remove(live)
            if void is not None:
                state.void.append((live[0], live[1]))
        if in_order:
            answered = min(e[0] for e in (live, void) if e is not None)
            state.void = [e for e in state.void if e[0] >= answered]
        return live[1] if live is not None else None

    def _void(self, peer: str, piece: PieceIndex) -> None:
        """Take a piece back from its owner: answers to what was asked may still come, and are dropped."""
        state = self._peers[peer]
        state.void.extend(entry for entry in state.outstanding if entry[1].piece == piece)
        state.outstanding = deque(entry for entry in state.outstanding if entry[1].piece != piece)
        state.unasked = deque(block for block in state.unasked if block.piece != piece)
        self.picker.release(piece)

    def _unoffer(self, state: _Peer, piece: PieceIndex) -> None:
        if piece in state.offered:
            state.offered.discard(piece)
            self.picker.availability.remove_one(piece)

    def _mint(self, piece: int) -> PieceIndex:
        try:
            return self._geometry.piece(piece)
        except ValueError as e:
            raise RemoteProtocolError(str(e)) from e

    def check_invariants(self) -> None:
        """What is outstanding or unasked is inflight at that peer, and every inflight piece has a connected owner."""
        self.picker.check_invariants()
        for name, state in self._peers.items():
            for block in [block for _, block in state.outstanding] + list(state.unasked):
                assert self.picker.inflight[block.piece] == name
        assert set(self.picker.inflight.values()) <= set(self._peers)
