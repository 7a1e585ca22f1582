"""Pieces that go from one peer to another before they have come.

What was asked of a peer and not begun may be taken over by one that would send it clearly sooner. Whether it has begun
is known there only: what is on its way is not seen here yet. So a piece that is taken back is free for others when the
peer says that it sends none of it (`Dropped`); if it had begun, the piece just comes. Who has so many to choose from
that it has hardly begun just this one is not waited for, nor who is slow to say it, stalled, or wrong: then a piece may
come twice, which costs bytes and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from interfiles.errors import RemoteProtocolError
from interfiles.piece_set import PieceSet
from interfiles.swarm.abroad import is_slow
from interfiles.swarm.decisions import Cancelled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from interfiles.geometry import Geometry, PieceIndex
    from interfiles.swarm.abroad import Abroad
    from interfiles.swarm.asked_peer import AskedPeer
    from interfiles.swarm.chance import Chance
    from interfiles.swarm.piece_picker import PiecePicker

TAKEOVER_FACTOR: Final = 3.0  # who would begin so many times later ...
TAKEOVER_MARGIN_S: Final = 0.5  # ... and by so much, loses what was asked of it
ANSWER_S: Final = 0.5  # and has so much longer to let go of it, or as long as a piece usually takes,
ANSWER_PIECES: Final = 3  # or so many where one is coming: its word is behind that
STEAL_FACTOR: Final = 2.0  # who would take so many times longer ...
STEAL_MARGIN_S: Final = 0.5  # ... and so much, or as long as a piece usually takes, loses even what is coming
MAX_STEALS: Final = 4  # of one piece that is coming: bounds what a swarm of slow peers can waste on it


class TakingBack:
    """What is taken back from the peers of one `RequestScheduler`, whose state `peers` and `picker` are."""

    def __init__(self, geometry: Geometry, picker: PiecePicker, abroad: Abroad, peers: Mapping[str, AskedPeer]) -> None:
        self._geometry = geometry
        self._picker = picker
        self._abroad = abroad
        self._peers = peers
        self._steals: dict[PieceIndex, int] = {}
        self._pinned: set[PieceIndex] = set()
        self._awaited: dict[PieceIndex, str] = {}  # pieces that a peer would send once their owner lets go

    def pin(self, piece: PieceIndex) -> None:
        """A block of an inflight piece is being written: until `unpin` nobody else may begin to write there."""
        self._pinned.add(piece)

    def unpin(self, piece: PieceIndex) -> None:
        """The block is written."""
        self._pinned.discard(piece)

    def settle(self, piece: PieceIndex) -> None:
        """It is clear who sends a piece, or that nobody does yet."""
        self._awaited.pop(piece, None)

    def forget(self, piece: PieceIndex) -> None:
        """A piece is verified."""
        self._steals.pop(piece, None)

    # Taking back

    def excess(self, state: AskedPeer) -> int:
        """What was asked beyond the window and others offer too (bits); the rest of the window is as good as any.

        Where this host gives way, all beyond one piece.
        """
        if state.gives_way:
            return state.asked.bits & (state.asked.bits - 1)
        if not state.is_beyond_window:
            return 0
        shared = state.asked.bits & ~self._picker.availability.exactly(1)
        return state.beyond_window(shared)

    def give_back(self, peer: str, now: float) -> list[Cancelled]:
        """Take back what others have by now of all that was asked of this peer alone, but for a window's worth.

        Of a peer in another zone, all that the own zone has, or others fetch.
        """
        state = self._peers[peer]
        excess = self.excess(state)
        if self._abroad.is_foreign(peer):
            excess |= state.asked.bits & self._abroad.not_due(self._peers, now)
        return [self._revoke(peer, piece) for piece in PieceSet(state.asked.count, excess)] if excess else []

    def all_of(self, peer: str) -> list[Cancelled]:
        """Take back all that a peer owes, but for what is being written; it is not waited for."""
        state = self._peers[peer]
        told = [piece for piece in state.owed if piece not in self._pinned]
        for piece in [*told, *state.leaving]:
            self.void(peer, piece)
        return [Cancelled(peer, piece, even_begun=True) for piece in told]

    def take_from_owner(self, piece: PieceIndex) -> list[Cancelled]:
        """Take a piece back from whoever was asked for it, if anybody was: another has begun to send it."""
        owner = self._picker.inflight.get(piece)
        if owner is None:
            return []
        is_told = piece in self._peers[owner].leaving
        self.void(owner, piece)
        return [] if is_told else [Cancelled(owner, piece, even_begun=True)]

    def void(self, peer: str, piece: PieceIndex) -> None:
        """Take a piece back from its owner, which may have begun to send it: that is then dropped."""
        state = self._peers[peer]
        if piece not in state.leaving:  # else its word is due already
            state.void[piece] += 1
        state.forget(piece)
        self._picker.release(piece)
        self.settle(piece)

    def on_dropped(self, peer: str, piece: PieceIndex) -> list[str]:
        """The peer has heard that a piece is not wanted of it, and sends no more of it.

        Return who may be asked for it now, if it is free: who has waited for it, or else all that offer it.

        Raises:
          RemoteProtocolError: nothing had been taken back.
        """
        state = self._peers[peer]
        if piece not in state.void:
            raise RemoteProtocolError(f"piece {piece} was dropped, which had not been taken back")
        state.void[piece] -= 1
        if state.void[piece]:
            return []
        del state.void[piece]
        if piece not in state.leaving:
            return []
        state.leaving.discard(piece)
        self._picker.release(piece)
        waiting = self._awaited.pop(piece, "")
        return [waiting] if waiting in self._peers else [name for name in self._peers if self._offers(name, piece)]

    def _offers(self, peer: str, piece: PieceIndex) -> bool:
        return piece in self._peers[peer].offered

    def _revoke(self, peer: str, piece: PieceIndex) -> Cancelled:
        """Take a piece back that was asked of a peer, at once if that has hardly begun it."""
        state = self._peers[peer]
        if state.has_many:
            self.void(peer, piece)
        else:
            state.asked.discard(piece)
            state.leaving.add(piece)
            state.void[piece] += 1
        return Cancelled(peer, piece, even_begun=False)

    # Taking over

    def take_over(self, peer: str, offered: int, now: float, rng: Chance) -> tuple[PieceIndex | None, list[Cancelled]]:
        """A piece of another peer for one that has room and nothing else to be asked for; it is missing then.

        None where there is none, or its owner is waited for.
        """
        needed_s = self._peers[peer].timing.needed_s(self._peers[peer].owed_bytes + self._picker.piece_bytes)
        waiting, overdue = self._waiting(peer, offered, needed_s, now)
        piece = self._picker.rarest_of(overdue, rng)
        if piece is not None:
            self.void(self._picker.inflight[piece], piece)
            return piece, []
        if peer in self._awaited.values():
            return None, []
        piece = self._picker.rarest_of(waiting, rng)
        if piece is not None:
            cancelled = [self._revoke(self._picker.inflight[piece], piece)]
            if piece in self._picker.missing:
                return piece, cancelled
            self._awaited[piece] = peer
            return None, cancelled
        piece = self._best_steal(peer, offered, now)
        if piece is None:
            return None, []
        self._steals[piece] = self._steals.get(piece, 0) + 1
        owner = self._picker.inflight[piece]
        self.void(owner, piece)
        return piece, [Cancelled(owner, piece, even_begun=True)]

    def _waiting(self, peer: str, offered: int, needed_s: float, now: float) -> tuple[int, int]:
        """Pieces that wait at other peers, which have many or are slow or further away; and those of slow peers that
        do not let go (bits).
        """
        waiting = overdue = 0
        is_near = not self._abroad.is_foreign(peer)
        for name, other in self._peers.items():  # asked for every piece that anybody gets: worth some care
            asked, leaving = other.asked.bits & offered, other.leaving.bits & offered
            if name == peer or not (asked or leaving):
                continue
            wait_s, owed_bytes = other.timing.waited_s(now), other.owed_bytes
            if not (has_backlog := other.is_backlog(owed_bytes)):
                wait_s = max(wait_s, other.timing.needed_s(owed_bytes))
            slower_s = wait_s - needed_s * TAKEOVER_FACTOR
            if has_backlog or slower_s > TAKEOVER_MARGIN_S or (is_near and self._abroad.is_foreign(name)):
                waiting |= asked
            if leaving and slower_s > TAKEOVER_MARGIN_S + ANSWER_S:
                pieces = 1 if other.coming is None else ANSWER_PIECES
                if slower_s > TAKEOVER_MARGIN_S + pieces * self._usual_s((peer, name), now):
                    overdue |= leaving
        return waiting, overdue

    def _usual_s(self, without: tuple[str, str], now: float) -> float:
        """Seconds that a piece usually takes from other peers: the median of those known, and of what is coming; 0 if
        there are none.
        """
        times, length = list[float](), self._picker.piece_bytes
        for name, other in self._peers.items():
            if name in without:
                continue
            if other.timing.is_known:
                times.append(other.timing.needed_s(length))
            elif other.coming is not None:
                times.append(other.timing.pace(now) * length)
        return sorted(times)[len(times) // 2] if times else 0.0

    def _best_steal(self, peer: str, offered: int, now: float) -> PieceIndex | None:
        """The coming piece that its owner will take longest for, if this peer is clearly quicker with all of it.

        A peer that may still be sending what was taken from it is not: two that are slow would take turns. Two in other
        zones come over the same link, mostly: there, only who is all but silent loses a piece.
        """
        state = self._peers[peer]
        best, longest = None, 0.0
        if state.void:
            return None
        owed_bytes, is_foreign = state.owed_bytes, self._abroad.is_foreign(peer)
        for name, other in self._peers.items():
            piece = other.coming
            if name == peer or piece is None or not offered >> piece & 1 or piece in self._pinned:
                continue
            if self._steals.get(piece, 0) >= MAX_STEALS:
                continue
            if is_foreign and not is_slow(other, now):
                continue
            length = self._geometry.piece_length(piece)
            left = other.timing.left_s(length - other.received_bytes, now)
            needed = state.timing.needed_s(owed_bytes + length)
            if left <= max(longest, needed * STEAL_FACTOR + STEAL_MARGIN_S):
                continue
            usual = self._usual_s((peer, name), now)
            if not state.timing.is_known:  # its first blocks, which come from buffers, say little on slow lines
                needed = max(needed, usual * (owed_bytes + length) / self._picker.piece_bytes)
            if left > needed * STEAL_FACTOR + usual:
                best, longest = piece, left
        return best
