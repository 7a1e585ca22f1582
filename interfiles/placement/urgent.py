"""Which of the files that lack copies is looked after next."""

from heapq import heapify, heappop, heappush
from typing import Final, TypeAlias

# Copies left, copies that lack negated, and the file's id: the least is the most urgent.
Urgency: TypeAlias = tuple[int, int, bytes]

_SPARE: Final = 64  # outdated entries that are kept however few there are others


class Urgent:
    """Files by urgency. An entry that is outdated stays in the heap until it is met, or until such are the most."""

    def __init__(self) -> None:
        self._now: dict[bytes, Urgency] = {}
        self._heap: list[Urgency] = []

    def __len__(self) -> int:
        return len(self._now)

    def put(self, urgency: Urgency) -> None:
        """A file waits to be looked after, as urgently as this says."""
        file_id = urgency[2]
        if self._now.get(file_id) != urgency:
            self._now[file_id] = urgency
            heappush(self._heap, urgency)
            self._tidy()

    def drop(self, file_id: bytes) -> None:
        """A file does not wait any more."""
        self._now.pop(file_id, None)
        self._tidy()

    def pop(self) -> bytes | None:
        """Take the most urgent file out; None: none waits."""
        while self._heap:
            urgency = heappop(self._heap)
            if self._now.get(urgency[2]) == urgency:
                del self._now[urgency[2]]
                return urgency[2]
        return None

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._now) + _SPARE:
            self._heap = list(self._now.values())
            heapify(self._heap)
