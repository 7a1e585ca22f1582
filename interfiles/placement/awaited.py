"""Whom the master waits for before it orders anything: after a restart, all files seem to be lost at first.

Times are seconds on one clock, given as `now`.
"""

from collections.abc import Iterable
from typing import Final

from interfiles.placement.host_facts import Room

LAST_SEEN_EVERY_S: Final = 60.0  # what the catalogue knows of when hosts were up is older by so much after a crash


class Awaited:
    """Hosts that have not said yet what they hold: those that are up, and those that were when the master was last.

    None is awaited for longer than `grace_s`, after which its copies would not count anyway.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._is_new = True
        self._since: dict[str, float] = {}

    def look(self, rooms: Iterable[Room], now: float) -> bool:
        """Look at all hosts; return whether one of them is awaited. The first look is that at the master's start."""
        unknown = {room.host_id: room for room in rooms if not room.is_known}
        if self._is_new:
            newest = max((room.heard_at for room in unknown.values()), default=now)
            recent = newest - self._grace_s - LAST_SEEN_EVERY_S
            self._since = {host: now for host, room in unknown.items() if room.heard_at >= recent}
            self._is_new = False
        for host, room in unknown.items():
            if room.state in ("live", "draining"):
                self._since.setdefault(host, now)
        self._since = {host: at for host, at in self._since.items() if host in unknown}
        return any(now - at < self._grace_s for at in self._since.values())
