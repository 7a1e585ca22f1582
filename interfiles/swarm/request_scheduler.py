"""What to ask of whom, and when to ask somebody else.

A host asks a peer for *pieces*, and the peer chooses the order at the moment when it can send: what was chosen early
was chosen on old news. So of a peer that alone here holds some pieces, as the source does at first, all of these are
asked; of any other, as many as keep its pipe full, the rarest first.

A piece is *asked* of at most one peer, until that begins to send it: then it is *coming*, and only then does it belong
to that peer. What is asked and not begun may be taken over by any peer that would send it clearly sooner. The peer that
loses it says when it has heard of that; if it had begun meanwhile, whoever begins first is taken.

A peer that owes pieces and neither sends nor says that it is busy for mean + 4 deviations of its own block times (the
retransmission timer of RFC 6298) is stalled: its pieces go to others. When nothing else is left, a peer with room may
also take over a piece that is coming, if its owner would take more than twice as long.

Every method that takes `now` takes seconds of one monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from interfiles.errors import RemoteProtocolError
from interfiles.geometry import BLOCK_BYTES, Block, Geometry, PieceIndex
from interfiles.piece_set import PieceSet
from interfiles.swarm.abroad import FAR_SILENCE_S, Abroad
from interfiles.swarm.asked_peer import AskedPeer
from interfiles.swarm.decisions import Arrival, Cancelled, Decision, Stall
from interfiles.swarm.peer_timing import PeerTiming
from interfiles.swarm.piece_picker import PiecePicker
from interfiles.swarm.taking_back import TakingBack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from interfiles.swarm.chance import Chance

MAX_SOLE: Final = 256  # pieces asked beyond the window of the only peer that has them
SOLE_SILENCE_S: Final = 1.0  # who alone has what it owes may be silent so much longer: its disk may be busy
STALL_RETRY_S: Final = 2.0  # a stalled peer is asked again after so long, doubled each time up to MAX_RETRY_S
MAX_RETRY_S: Final = 30.0
MAX_STALLS: Final = 5


class RequestScheduler:
    """The requests of one file to all its peers."""

    def __init__(self, geometry: Geometry, held: PieceSet) -> None:
        self.picker: Final = PiecePicker(geometry, held)
        self.abroad: Final = Abroad(self.picker)
        self._geometry = geometry
        self._peers: dict[str, AskedPeer] = {}
        self.offers: Final[dict[str, PieceSet]] = {}  # what each connected peer holds, for others to read
        self.taking_back: Final = TakingBack(geometry, self.picker, self.abroad, self._peers)
        self.gives_way = False

    # Peers

    def add_peer(self, peer: str, offered: PieceSet, now: float) -> None:
        """A peer is connected and holds `offered`."""
        assert peer not in self._peers, peer
        self._peers[peer] = AskedPeer(
            offered.copy(), PeerTiming(now), self.picker.piece_bytes, PieceSet(self._geometry.piece_count)
        )
        self._peers[peer].give_way(self.gives_way)
        self.offers[peer] = self._peers[peer].offered
        self.picker.availability.add(offered)

    def remove_peer(self, peer: str) -> None:
        """A peer is gone; what it owed is missing again."""
        gone = self._peers.pop(peer)
        del self.offers[peer]
        self.picker.availability.remove(gone.offered)
        self._release_all(gone)

    def add_haves(self, peer: str, pieces: Iterable[int]) -> bool:
        """A peer gained pieces. Return whether one of them may be worth asking for now.

        It is if it is missing or waits in a long line elsewhere; whether another line is slow only time shows.

        Raises:
          RemoteProtocolError: there is no such piece.
        """
        offered, picker, is_of_use = self._peers[peer].offered, self.picker, False
        held, missing = picker.held.bits, picker.missing.bits
        for piece in pieces:  # every piece that anybody gets: worth some care
            index = self._mint(piece)
            bit = 1 << index
            if not offered.bits & bit:
                offered.bits |= bit
                picker.availability.add_one(index)
            is_of_use = is_of_use or missing & bit != 0 or (not held & bit and self._waits_long(index))
        return is_of_use

    def _waits_long(self, piece: PieceIndex) -> bool:
        """Whether a piece is asked of a peer that owes much, or is far away."""
        owner = self.picker.inflight.get(piece)
        if owner is None or piece not in self._peers[owner].asked:
            return False
        return self._peers[owner].has_backlog or self.abroad.is_foreign(owner)

    def peers(self) -> list[str]:
        """The connected peers."""
        return list(self._peers)

    def timing(self, peer: str) -> PeerTiming:
        """The clocks of a peer, to be told when it is heard; whole blocks are told by `on_block_end`."""
        return self._peers[peer].timing

    def is_useful(self, peer: str) -> bool:
        """Whether the peer has anything that this host lacks."""
        return self.picker.wants_from(self._peers[peer].offered)

    def give_way(self, gives_way: bool) -> None:
        """Whether other downloads of this host are to have nearly all of its line from now on: little is asked then."""
        self.gives_way = gives_way
        for state in self._peers.values():
            state.give_way(gives_way)

    # Asking

    def next_asks(self, peer: str, now: float, rng: Chance) -> Decision:
        """Choose what to ask of a peer now: mark it as asked, and return it for sending."""
        state, decision = self._peers[peer], Decision()
        if now < state.retry_at:
            return decision
        was_idle = not state.owes
        decision.cancelled.extend(self.taking_back.give_back(peer, now))
        open_to = self.abroad.open_to(peer, self._peers, now, rng)
        self._ask_sole(peer, state, open_to, decision)
        room = state.room_bytes
        while room > 0:
            piece = self._acquire(peer, state, open_to, now, rng, decision)
            if piece is None:
                break
            self._mark_asked(peer, state, piece, decision)
            room -= self._geometry.piece_length(piece)
        if was_idle and decision.asks:
            state.timing.start(now)
        return decision

    def has_room(self, peer: str) -> bool:
        """Whether `next_asks` would ask the peer for more, if it has more, or take something back."""
        state = self._peers[peer]
        if state.room_bytes > 0 or self.taking_back.excess(state) or self.abroad.is_foreign(peer):
            return True
        return bool(self._sole(state)) and self._sole_room(state) >= MAX_SOLE // 2

    def _sole(self, state: AskedPeer) -> int:
        """Missing pieces that no other peer here offers (bits); none are asked beyond the window while it gives way."""
        return (
            0
            if state.gives_way
            else self.picker.availability.exactly(1) & state.offered.bits & self.picker.missing.bits
        )

    def _sole_room(self, state: AskedPeer) -> int:
        return MAX_SOLE - (state.asked.bits & self.picker.availability.exactly(1)).bit_count()

    def _ask_sole(self, peer: str, state: AskedPeer, open_to: int, decision: Decision) -> None:
        """Ask for what no other peer here offers, in the order of the content."""
        free = self._sole(state) & open_to
        left = self._sole_room(state) if free else 0
        while free and left > 0:
            piece = PieceIndex((free & -free).bit_length() - 1)
            free &= free - 1
            if piece not in state.void:
                self._mark_asked(peer, state, piece, decision)
                left -= 1

    def _acquire(
        self, peer: str, state: AskedPeer, open_to: int, now: float, rng: Chance, decision: Decision
    ) -> PieceIndex | None:
        offered = state.offered.bits & open_to & ~state.void_bits
        missing = self.picker.pick(offered, rng)
        if missing is not None:
            return missing
        taken, cancelled = self.taking_back.take_over(peer, offered, now, rng)
        decision.cancelled.extend(cancelled)
        return taken

    # Answers

    def on_block(self, peer: str, piece: int, offset: int, length: int, now: float) -> Arrival:
        """A block begins to arrive.

        Raises:
          RemoteProtocolError: it was not asked for, is out of order, or has a wrong length.
        """
        state, index = self._peers[peer], self._mint(piece)
        state.timing.begin_block(now)
        due = min(BLOCK_BYTES, self._geometry.piece_length(index) - offset)
        if length != due:
            raise RemoteProtocolError(f"block of {length} bytes came, {due} were due")
        cancelled: list[Cancelled] = []
        if index == state.coming:
            if offset != state.received_bytes:
                raise RemoteProtocolError(
                    f"byte {offset} of piece {piece} came out of order, {state.received_bytes} was due"
                )
        elif (index in state.asked or index in state.leaving) and state.coming is None and not offset:
            state.forget(index)
            state.coming, state.received_bytes = index, 0
            self.taking_back.settle(index)
        elif index in state.void:
            if not self._may_keep(state, index, offset, length):
                return Arrival(None)
            cancelled = self.taking_back.take_from_owner(index)
            self.picker.mark_requested(index, peer)
            state.coming, state.received_bytes = index, 0
        else:
            raise RemoteProtocolError(f"byte {offset} of piece {piece} came, which was not asked for")
        return Arrival(Block(index, offset, length), cancelled)

    def _may_keep(self, state: AskedPeer, piece: PieceIndex, offset: int, length: int) -> bool:
        """Whether a piece that was taken back too late is taken after all: it comes whole, and only here."""
        if offset or length < self._geometry.piece_length(piece) or state.coming is not None:
            return False
        owner = self.picker.inflight.get(piece)
        return piece in self.picker.missing or (owner is not None and piece != self._peers[owner].coming)

    def on_block_end(self, peer: str, length: int, now: float) -> None:
        """A block came whole, be it taken or dropped."""
        self._peers[peer].measure(length, now)

    def begin_write(self, peer: str, piece: PieceIndex, now: float) -> bool:
        """A block that `on_block` took has come whole. Return whether it is still this peer's to give.

        It is not where another peer was asked for the piece meanwhile; that one may have it on the disk by now. If so,
        nobody else may send the piece until `end_write`, and the disk's time is no silence of the peer's.
        """
        state = self._peers[peer]
        if state.coming != piece:
            return False
        self.taking_back.pin(piece)
        state.timing.pause(now)
        return True

    def end_write(self, peer: str, piece: PieceIndex, now: float) -> None:
        """The block is written, or the disk has refused it."""
        self.taking_back.unpin(piece)
        self._peers[peer].timing.resume(now)

    def on_taken(self, peer: str, block: Block) -> None:
        """A block is written between `begin_write` and `end_write`."""
        state = self._peers[peer]
        assert state.coming == block.piece, block
        state.stalls = 0
        state.received_bytes += block.length
        if state.received_bytes == self._geometry.piece_length(block.piece):
            state.coming = None

    def on_dropped(self, peer: str, piece: int) -> list[str]:
        """The peer has heard that a piece is not wanted of it: it sends no more of it.

        Return who may be asked for it now; nobody if it is not free.

        Raises:
          RemoteProtocolError: nothing had been taken back.
        """
        return self.taking_back.on_dropped(peer, self._mint(piece))

    def on_not_found(self, peer: str, piece: int) -> None:
        """The peer does not hold a piece after all.

        Raises:
          RemoteProtocolError: it was never asked for.
        """
        state, index = self._peers[peer], self._mint(piece)
        if index in state.asked or index == state.coming:
            state.forget(index)
            self.picker.release(index)
        elif index not in state.void and index not in state.leaving:
            raise RemoteProtocolError(f"piece {piece} was not found, which was not asked for")
        self._unoffer(state, index)

    def on_verified(self, piece: PieceIndex) -> None:
        """All blocks of an inflight piece came and its hash matched."""
        self.picker.mark_held(piece)
        self.taking_back.forget(piece)

    def on_rejected(self, peer: str, piece: PieceIndex) -> list[Cancelled]:
        """All blocks came and the hash did not match: the peer no longer counts as holding the piece.

        It is asked for nothing more: return what to take back.
        """
        state = self._peers[peer]
        self._unoffer(state, piece)
        self.picker.release(piece)
        state.retry_at = float("inf")
        return self.taking_back.all_of(peer)

    # Time

    def expire(self, now: float) -> list[Stall]:
        """Take the pieces of stalled peers back; return who lost some, with the cancellations to send."""
        stalled = []
        for name, state in self._peers.items():
            if not (state.owes or state.void) or now < state.retry_at or now < state.timing.deadline():
                continue
            if now < state.timing.deadline() + self._patience_s(name, state):
                continue
            state.retry_at = now + min(STALL_RETRY_S * 2**state.stalls, MAX_RETRY_S)
            state.stalls += 1
            leaving = len(state.leaving)
            cancelled = self.taking_back.all_of(name)
            if cancelled or leaving:
                stalled.append(Stall(name, leaving + len(cancelled), cancelled))
        return stalled

    def _patience_s(self, peer: str, state: AskedPeer) -> float:
        """How much longer than others a peer may be silent: further away, or, once it has sent
        something, if nobody else could send what it owes.
        """
        if self.abroad.is_foreign(peer):
            return FAR_SILENCE_S
        if not state.timing.rate:
            return 0.0
        owed = PieceSet.of(self._geometry.piece_count, [*state.owed, *state.leaving]).bits
        return 0.0 if owed & ~self.picker.availability.exactly(1) else SOLE_SILENCE_S

    def retry_at(self, peer: str) -> float:
        """When a peer that stalled may be asked again."""
        return self._peers[peer].retry_at

    def is_dead(self, peer: str) -> bool:
        """Whether the peer stalled `MAX_STALLS` times without a whole block between: about a minute of nothing."""
        return self._peers[peer].stalls >= MAX_STALLS

    # Inside

    def _mark_asked(self, peer: str, state: AskedPeer, piece: PieceIndex, decision: Decision) -> None:
        self.picker.mark_requested(piece, peer)
        state.asked.add(piece)
        decision.asks.append(piece)

    def _release_all(self, state: AskedPeer) -> None:
        for piece in [*state.owed, *state.leaving]:
            self.picker.release(piece)
            self.taking_back.settle(piece)

    def _unoffer(self, state: AskedPeer, piece: PieceIndex) -> None:
        if piece in state.offered:
            state.offered.discard(piece)
            self.picker.availability.remove_one(piece)

    def _mint(self, piece: int) -> PieceIndex:
        try:
            return self._geometry.piece(piece)
        except ValueError as e:
            raise RemoteProtocolError(str(e)) from e

    def check_invariants(self) -> None:
        """What is asked or coming is inflight at that peer and nowhere else, and nothing else is inflight."""
        self.picker.check_invariants()
        owned = 0
        for name, state in self._peers.items():
            assert state.coming is None or state.coming not in state.asked
            assert not state.leaving.bits & state.asked.bits
            assert not set(state.void) & set(state.asked)
            assert set(state.leaving) <= set(state.void)
            for piece in [*state.owed, *state.leaving]:
                assert self.picker.inflight[piece] == name
                owned += 1
        assert owned == len(self.picker.inflight)
