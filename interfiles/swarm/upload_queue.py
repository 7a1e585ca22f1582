"""Who is served: few full upload slots and an explicit busy, instead of many slow streams.

A fetcher takes a slot with its first request and keeps it until nothing of it is queued; within a slot requests are
answered in the order they came. When every slot is taken a request is refused with the time to come back. A fetcher
that has had its turn while others wait is refused at its next piece, never within one, so nothing sent is lost. Nor
does one that takes nothing keep others out.

Times are seconds of one monotonic clock.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from interfiles.geometry import MIB, Block, PieceIndex

SLOTS: Final = (
    4  # in simulations of 16 hosts, 16 slots took 1.4 times as long: all got half a piece and had none to share
)
TURN_BYTES: Final = 16 * MIB  # what a slot sends before others that wait have their turn: a piece of the largest size
MAX_QUEUED: Final = 64  # requests of one fetcher; its window is a quarter of that
BUSY_RETRY_MS: Final = 200  # about one slot's turn on a LAN
STUCK_S: Final = 5.0  # a fetcher that takes so long for one block has its slot, but no longer keeps it from others
RESERVED_S: Final = 0.5  # how long a free slot is kept for who was refused: it comes back after `BUSY_RETRY_MS`


@dataclass(slots=True)
class _Slot:
    queue: deque[Block] = field(default_factory=deque)
    sending_since: float | None = None
    taken_bytes: int = 0


class UploadQueue:
    """The requests that this host has accepted, by fetcher."""

    def __init__(self, slots: int = SLOTS) -> None:
        self._limit = slots
        self._slots: dict[str, _Slot] = {}
        self._refused_at: dict[str, float] = {}  # who waits for a slot, the longest waiting first

    def offer(self, fetcher: str, block: Block, now: float) -> int | None:
        """Accept a request and return None, or refuse it and return the milliseconds after which to ask again."""
        slot = self._slots.get(fetcher)
        if slot is None:
            waiting = self._waiting(fetcher, now)
            if self._slots_in_use(now) + len(waiting) >= self._limit:
                self._refused_at[fetcher] = now
                return BUSY_RETRY_MS
            self._refused_at.pop(fetcher, None)
            slot = self._slots[fetcher] = _Slot()
        elif block.offset == 0 and slot.taken_bytes >= TURN_BYTES and self._waiting(fetcher, now):
            return BUSY_RETRY_MS
        if len(slot.queue) >= MAX_QUEUED:
            return BUSY_RETRY_MS
        slot.queue.append(block)
        slot.taken_bytes += block.length
        return None

    def cancel(self, fetcher: str, piece: PieceIndex) -> None:
        """Forget a fetcher's queued requests for a piece."""
        if slot := self._slots.get(fetcher):
            slot.queue = deque(block for block in slot.queue if block.piece != piece)
            self._release_if_idle(fetcher, slot)

    def next(self, fetcher: str, now: float) -> Block | None:
        """The block to send next, being sent from now on; or None. The one sent before counts as done."""
        slot = self._slots.get(fetcher)
        if slot is None:
            return None
        slot.sending_since = now if slot.queue else None
        if slot.queue:
            return slot.queue.popleft()
        self._release_if_idle(fetcher, slot)
        return None

    def drop(self, fetcher: str) -> None:
        """A fetcher is gone."""
        self._slots.pop(fetcher, None)
        self._refused_at.pop(fetcher, None)

    @property
    def slots_taken(self) -> int:
        return len(self._slots)

    def _slots_in_use(self, now: float) -> int:
        since = [slot.sending_since for slot in self._slots.values()]
        return sum(at is None or now - at < STUCK_S for at in since)

    def _waiting(self, fetcher: str, now: float) -> list[str]:
        """Those who were refused before `fetcher` was, or at all if it was not, and are expected back."""
        self._refused_at = {name: at for name, at in self._refused_at.items() if now - at <= RESERVED_S}
        waiting = list(self._refused_at)
        return waiting[: waiting.index(fetcher)] if fetcher in self._refused_at else waiting

    def _release_if_idle(self, fetcher: str, slot: _Slot) -> None:
        if not slot.queue and slot.sending_since is None:
            del self._slots[fetcher]
