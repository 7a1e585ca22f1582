"""How many events one host may bring about by what it says, so that it does not push those of all others out.

Times are seconds on one clock, given as `now`.
"""

from dataclasses import dataclass
from typing import Final

from interfiles.placement.events import EventKind

MAX_EVENTS_A_MINUTE: Final = 60  # of one kind, about one host; the others are counted
LIMITED: Final[frozenset[EventKind]] = frozenset({"failed", "corrupt", "lost"})
_MINUTE_S: Final = 60.0


@dataclass(slots=True)
class _Minute:
    began_at: float
    told: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class LeftOut:
    """So many events of a kind, about a host, were not told one by one in the minute that is over."""

    host_id: str
    kind: EventKind
    count: int


class EventLimit:
    """Minutes are those from the first event on, of each host and kind; nothing is kept of one that is over."""

    def __init__(self) -> None:
        self._minutes: dict[tuple[str, EventKind], _Minute] = {}

    def admits(self, kind: EventKind, host_id: str, now: float) -> bool:
        """Count an event, and return whether it is told; what `over` has not taken in goes on in the same minute."""
        if kind not in LIMITED:
            return True
        minute = self._minutes.setdefault((host_id, kind), _Minute(now))
        is_told = minute.told < MAX_EVENTS_A_MINUTE
        minute.told += is_told
        minute.left_out += not is_told
        return is_told

    def over(self, now: float) -> list[LeftOut]:
        """What was left out in minutes that are over now; to be called a few times a minute."""
        ended = [key for key, minute in self._minutes.items() if now - minute.began_at >= _MINUTE_S]
        minutes = [(key, self._minutes.pop(key)) for key in ended]
        return [LeftOut(host_id, kind, minute.left_out) for (host_id, kind), minute in minutes if minute.left_out]
