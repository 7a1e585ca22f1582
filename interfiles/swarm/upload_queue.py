"""Who is served: few full upload slots and an explicit busy, instead of many slow streams.

A fetcher takes a slot with its first request and keeps it until nothing of it is queued; within a slot requests are
answered in the order they came. When every slot is taken a request is refused with the time to come back.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from interfiles.geometry import Block, PieceIndex

SLOTS: Final = 16
MAX_QUEUED: Final = 64  # requests of one fetcher; its window is a quarter of that
BUSY_RETRY_MS: Final = 200  # about one slot's turn on a LAN


@dataclass(slots=True)
class _Slot:
    queue: deque[Block] = field(default_factory=deque)
    sending: bool = False


class UploadQueue:
    """The requests that this host has accepted, by fetcher."""

    def __init__(self, slots: int = SLOTS) -> None:
        self._limit = slots
        self._slots: dict[str, _Slot] = {}

    def offer(self, fetcher: str, block: Block) -> int | None:
        """Accept a request and return None, or refuse it and return the milliseconds after which to ask again."""
        slot = self._slots.get(fetcher)
        if slot is None:
            if len(self._slots) >= self._limit:
                return BUSY_RETRY_MS
            slot = self._slots[fetcher] = _Slot()
        if len(slot.queue) >= MAX_QUEUED:
            return BUSY_RETRY_MS
        slot.queue.append(block)
        return None

    def cancel(self, fetcher: str, piece: PieceIndex) -> None:
        """Forget a fetcher's queued requests for a piece."""
        if slot := self._slots.get(fetcher):
            slot.queue = deque(block for block in slot.queue if block.piece != piece)
            self._release_if_idle(fetcher, slot)

    def next(self, fetcher: str) -> Block | None:
        """The block to send next, now being sent; or None. The one sent before counts as done."""
        slot = self._slots.get(fetcher)
        if slot is None:
            return None
        slot.sending = bool(slot.queue)
        if slot.queue:
            return slot.queue.popleft()
        self._release_if_idle(fetcher, slot)
        return None

    def drop(self, fetcher: str) -> None:
        """A fetcher is gone."""
        self._slots.pop(fetcher, None)

    @property
    def slots_taken(self) -> int:
        return len(self._slots)

    def _release_if_idle(self, fetcher: str, slot: _Slot) -> None:
        if not slot.queue and not slot.sending:
            del self._slots[fetcher]
