"""The fleet as the reconciler's decisions see it: what hosts announce and what they were ordered, put together.

Times are seconds on one clock, given as `now`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from interfiles.placement.awaited import Awaited
from interfiles.placement.places import Places
from interfiles.placement.replicas import Placing
from interfiles.placement.standing import COMPLETE, FileView, HostView, Policy, Standing, standing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from interfiles.placement.doubts import Doubts
    from interfiles.placement.host_facts import Copies, Room
    from interfiles.placement.orders import Orders
    from interfiles.placement.registry import Registry
    from interfiles.wire.master_messages import HostState


_IS_NEXT: Final = "the next one is about to be ordered"
_HAS_TURN: Final = "the next one waits for its turn"


@dataclass(frozen=True, slots=True)
class Outlook:
    """How a file stands, and why it has fewer copies than wanted, in words; empty: it has not, or all are coming."""

    standing: Standing
    why_not: str


class FleetView:
    """Follows the registry and the orders host by host, so that a look costs as much as has changed."""

    def __init__(self, registry: Registry, orders: Orders, doubts: Doubts, policy: Policy) -> None:
        self.places: Final = Places({}, policy.max_arriving_per_host)
        self._registry = registry
        self._orders = orders
        self._doubts = doubts
        self._policy = policy
        self._awaited = Awaited(registry.grace_s)
        self._due: set[str] = set()
        self._draining: set[str] = set()
        self._unheard: dict[str, str] = {}  # hosts that have not said what they hold since the master started
        self.moved: Final[set[str]] = set()  # hosts that are in another state, for who looks at their files to empty

    def refresh(self, now: float) -> None:
        """Take in what has become of hosts."""
        self._due |= self._registry.changed(now)
        self._due |= self._orders.changed()
        for host_id in list(self._due):
            self.look_at(host_id, now)
        self.places.wake(now)

    def look_at(self, host_id: str, now: float) -> None:
        """Take in what has become of a host."""
        if self._registry.is_known(host_id):
            room, before = self._registry.room(host_id, now), self.places.hosts.get(host_id)
            host = self._host(room)
            self._awaited.put(room)
            (self._draining.add if room.draining else self._draining.discard)(host_id)
            if room.is_known:
                self._unheard.pop(host_id, None)
            else:
                self._unheard[host_id] = room.name
            self.places.put(host_id, host)
            if before is None or before.state != host.state:
                self.moved.add(host_id)
        else:
            self.places.drop(host_id)
            self._awaited.drop(host_id)
            self._draining.discard(host_id)
            self._unheard.pop(host_id, None)
        self._due.discard(host_id)

    def is_awaiting(self, now: float) -> bool:
        """Whether hosts that were there before have still to say what they hold: nothing is to be ordered till then."""
        return self._awaited.look(now)

    def file(self, file_id: bytes, size: int, wanted: int, now: float) -> FileView:
        """A file of `size` bytes and its copies; since when it has had too many is not looked at."""
        copies = self._orders.copies(file_id, self._registry.held(file_id), now)
        for host_id in self._doubts.hosts(file_id):
            if (copy := copies.get(host_id)) in COMPLETE:
                is_mended = copy == "ordered" and self._doubts.is_fresh(file_id, host_id, now)
                copies[host_id] = "arriving" if is_mended else "stuck"
        return FileView(file_id, size, wanted, copies, None, self._orders.refused_by(file_id, now))

    def placing(self, now: float) -> Placing:
        """Where copies could go now."""
        return Placing(self.places, self._policy, now)

    def outlook(self, file_id: bytes, size: int, wanted: int, now: float, *, quickly: bool) -> Outlook:
        """How a file of `size` bytes stands; `quickly`: without a look at which hosts are busy with other copies."""
        file = self.file(file_id, size, wanted, now)
        stand = standing(file, self.places.hosts)
        if not stand.missing:
            return Outlook(stand, "")
        if self.is_awaiting(now):
            return Outlook(stand, "the master waits for hosts that were there before to say what they hold")
        placing = self.placing(now)
        why = placing.hint(file) if quickly else placing.why_not(file)
        if why is None:
            return Outlook(stand, _HAS_TURN if quickly else _IS_NEXT)
        unheard = self._who_is_unheard() if why.obstacle == "no-source" else ""
        return Outlook(stand, why.text + unheard)

    def _who_is_unheard(self) -> str:
        """That hosts which are not back may have it, in words; empty: all that there are have said what they hold."""
        if not self._unheard:
            return ""
        first, count = min(self._unheard.values()), len(self._unheard)
        who = f"{first} has" if count == 1 else f"{first} and {count - 1:,} more have"
        return f"; {who} not said what is there since the master started"

    def able(self, now: float) -> int:
        """How many hosts could hold copies that count: all that do not drain, while some are awaited."""
        if self.is_awaiting(now):
            return len(self.places.hosts) - len(self._draining)
        return len(self.places.hosts) - len(self.places.not_counting)

    def copies(self, file_ids: Iterable[bytes]) -> dict[bytes, Copies]:
        """How often each file is held, by hosts whose copies count."""
        return self._registry.copies(file_ids, self.places.not_counting)

    def draining(self, now: float) -> set[str]:
        """The hosts that drain, be they up or not, and have said what they hold since the master started."""
        return {host_id for host_id in self._draining if self._registry.room(host_id, now).is_known}

    def _host(self, room: Room) -> HostView:
        orders = self._orders
        return HostView(
            room.name,
            room.zone,
            _state(room),
            room.free - orders.asked_bytes(room.host_id),
            orders.arriving(room.host_id),
            orders.rests_until(room.host_id),
        )


def _state(room: Room) -> HostState:
    """A host's state as copies count: one that drains and is not up is as good as gone."""
    return "gone" if room.draining and room.state != "draining" else room.state
