"""Whom the master waits for before it orders anything: when it was cut off or restarted, all files seem to be lost.

Times are seconds on one clock, given as `now`.
"""

from collections.abc import Iterable
from typing import Final

from interfiles.placement.host_facts import Room

LAST_SEEN_EVERY_S: Final = 60.0  # what the catalogue knows of when hosts were up is older by so much after a crash


class Awaited:
    """Hosts that were there before a moment when nobody was, and those of them that have not said yet what they hold.

    Such a moment is the master's start, and the end of any time in which it heard of no host, as when its own network
    fails: then it is not the hosts that are gone. None is awaited for longer than `grace_s` after the first is back.
    Who has joined since is not awaited: he has nothing, or says so in a moment.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._is_dark = True
        self._newest = float("-inf")  # when somebody was heard from last, while it is dark
        self._since: dict[str, float] = {}
        self._before: set[str] | None = None  # of the fleet when it was dark last; None: it was not looked yet

    def look(self, rooms: Iterable[Room], now: float) -> bool:
        """Look at all hosts; return whether one of them is awaited."""
        known = {room.host_id: room for room in rooms}
        up = {host for host, room in known.items() if room.state in ("live", "draining")}
        if not up:
            self._is_dark = True
            self._before = set(known)
            self._newest = max([room.heard_at for room in known.values()], default=self._newest)
            return bool(known)
        if self._is_dark:
            recent = self._newest - self._grace_s - LAST_SEEN_EVERY_S
            self._since = {host: now for host, room in known.items() if host not in up and room.heard_at >= recent}
            self._is_dark = False
        if self._before is None:
            self._before = set(known)
        here = {host for host in up if known[host].is_known}
        self._since = {host: at for host, at in self._since.items() if host in known and host not in here}
        for host in (up & self._before) - here:
            self._since.setdefault(host, now)
        return any(now - at < self._grace_s for at in self._since.values())
