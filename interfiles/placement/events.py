"""What has happened in the fleet, for people and scripts that watch it: the latest events, numbered, in memory.

A ring: the newest event pushes the oldest out once there are `MAX_EVENTS`. Numbers go on from 1, so that who reads it
page by page sees what fell out in between.
"""

from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

EventKind = Literal[
    "joined",  # a host, as are the next seven
    "live",
    "suspect",
    "gone",
    "removed",
    "draining",
    "drained",
    "undrained",
    "published",  # a file, as are the next two
    "file-removed",
    "expired",
    "ordered",  # a file on a host, as are all below
    "complete",
    "failed",
    "released",
    "corrupt",
    "lost",
]
MAX_EVENTS: Final = 10_000  # some 5 MiB, with reasons of the usual length
MAX_REASON_LENGTH: Final = 300


@dataclass(frozen=True, slots=True)
class Event:
    """One event, number `sequence` of its log, at `at` (Unix seconds).

    `host`: the id of the host that it is about, `file`: the file's, each with its name; empty: about none.
    """

    sequence: int
    at: float
    kind: EventKind
    host: str
    host_name: str
    file: bytes
    file_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events in order. `missed`: how many before them have fallen out; `more`: there are newer ones."""

    events: list[Event]
    missed: int
    more: bool


class EventLog:
    """Events of one life of a master; at most `capacity` are kept."""

    def __init__(self, capacity: int = MAX_EVENTS) -> None:
        self._events: deque[Event] = deque(maxlen=capacity)
        self._newest = 0

    @property
    def newest(self) -> int:
        """The number of the newest event; 0: there has been none."""
        return self._newest

    def add(
        self,
        kind: EventKind,
        *,
        at: float,
        host: str = "",
        host_name: str = "",
        file: bytes = b"",
        file_name: str = "",
        reason: str = "",
    ) -> Event:
        """Add an event and return it; a reason that is too long is cut."""
        self._newest += 1
        if len(reason) > MAX_REASON_LENGTH:
            reason = reason[: MAX_REASON_LENGTH - 1] + "…"
        event = Event(self._newest, at, kind, host, host_name, file, file_name, reason)
        self._events.append(event)
        return event

    def since(self, after: int, count: int) -> EventPage:
        """The oldest `count` of the events with numbers above `after`, as far as they are kept."""
        kept_from = self._newest - len(self._events) + 1
        start = max(after + 1, kept_from)
        skipped = start - kept_from
        events = list(islice(self._events, skipped, skipped + count))
        return EventPage(events, missed=max(0, kept_from - (after + 1)), more=skipped + len(events) < len(self._events))
