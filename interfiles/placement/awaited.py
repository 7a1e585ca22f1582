"""Whom the master waits for before it orders anything: when it was cut off or restarted, all files seem to be lost.

Times are seconds on one clock, given as `now`.
"""

from typing import Final

from interfiles.placement.host_facts import Room

LAST_SEEN_EVERY_S: Final = 10.0  # what the catalogue knows of when hosts were up is older by so much after a crash


class Awaited:
    """Hosts that were there before a moment when nobody was, and those of them that have not said yet what they hold.

    Such a moment is the master's start, and the end of any time in which it heard of no host, as when its own network
    fails: then it is not the hosts that are gone. None is awaited for longer than `grace_s` after the first is back.
    Who has joined since is not awaited: he has nothing, or says so in a moment.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._rooms: dict[str, Room] = {}
        self._up: set[str] = set()
        self._unheard: set[str] = set()  # up, and have not said what they hold
        self._is_dark = True
        self._newest = float("-inf")  # when somebody was heard from last, while it is dark
        self._since: dict[str, float] = {}
        self._before: set[str] | None = None  # of the fleet when it was dark last; None: it was not looked yet

    def put(self, room: Room) -> None:
        """A host is so now."""
        self.drop(room.host_id)
        self._rooms[room.host_id] = room
        if room.state in ("live", "draining"):
            self._up.add(room.host_id)
            if not room.is_known:
                self._unheard.add(room.host_id)

    def drop(self, host_id: str) -> None:
        """A host is not of the fleet any more."""
        self._rooms.pop(host_id, None)
        self._up.discard(host_id)
        self._unheard.discard(host_id)

    def look(self, now: float) -> bool:
        """Look at the hosts as they are now; return whether one of them is awaited."""
        if not self._up:
            self._is_dark = True
            self._before = set(self._rooms)
            self._newest = max([room.heard_at for room in self._rooms.values()], default=self._newest)
            return bool(self._rooms)
        if self._is_dark:
            recent = self._newest - self._grace_s - LAST_SEEN_EVERY_S
            away = self._rooms.keys() - self._up
            self._since = {host: now for host in away if self._rooms[host].heard_at >= recent}
            self._is_dark = False
        if self._before is None:
            self._before = set(self._rooms)
        self._since = {host: at for host, at in self._since.items() if self._is_missed(host)}
        for host in self._unheard & self._before:
            self._since.setdefault(host, now)
        return any(now - at < self._grace_s for at in self._since.values())

    def _is_missed(self, host_id: str) -> bool:
        return host_id in self._rooms and (host_id not in self._up or host_id in self._unheard)
