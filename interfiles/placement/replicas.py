"""Which host is to get a copy of which file, and which may give one up: what the master's reconciler decides.

Level-triggered: `plan` compares what is wanted with what there is, and says what to do next; it depends on no event
having been seen, so asking again after nothing has changed gives nothing new to do. Copies on live and suspect hosts
count, finished or on their way; those on draining hosts are good to copy from but do not count, those on hosts that are
gone do neither. The files with the fewest copies left are looked after first. A copy goes to the zone that has the
fewest of that file, there to the host with the most free space (what differs by less than a factor of two is alike),
among these to the one that fetches the fewest, and among these to one that depends on the file: so files that are
placed at one moment spread, and the same view always gives the same plan.

A zone whose hosts are all busy with other copies is waited for, rather than to put the copy into a zone that has one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from heapq import heapify, heappop
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from interfiles.placement.standing import COMPLETE, Action, Order, Release, standing, urgency
from interfiles.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from interfiles.placement.standing import Copy, FileView, HostView, Policy, Standing
    from interfiles.wire.master_messages import HostState

MAX_LOOKED_AFTER: Final = 128  # files of one plan: more would not be ordered at once anyway

_HOSTS_KNOWN: Final = 16_384  # to a cache
_PRIME: Final = (1 << 64) - 59
_FACTOR: Final = 0x9E3779B97F4A7C15  # Fibonacci hashing (Knuth, TAOCP 6.4): scatters what differs in a few bits
_MASK: Final = (1 << 64) - 1

Obstacle: TypeAlias = Literal["no-source", "no-host", "no-room", "resting", "busy", "turn"]


@dataclass(frozen=True, slots=True)
class WhyNot:
    """Why a file has fewer copies than are wanted, and none is ordered now; `text` says it to a person."""

    obstacle: Obstacle
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and for the files looked at that lack a copy and get none, why."""

    actions: Sequence[Action]
    why_not: Mapping[bytes, WhyNot]


def plan(files: Iterable[FileView], hosts: Mapping[str, HostView], policy: Policy, now: float) -> Plan:
    """Say what to do for these files; the most urgent come first, until no more can be ordered at once.

    At most `MAX_LOOKED_AFTER` that have too few copies are placed, and as many that have too many are trimmed; those
    that no host could hold take up nobody's place. `now`: seconds on the clock of `rests_until` and the rest. The same
    arguments give the same answer.
    """
    lacking: list[tuple[tuple[int, int, bytes], FileView]] = []
    crowded: list[tuple[FileView, Standing]] = []
    for file in files:
        stand = standing(file, hosts)
        if stand.missing:
            lacking.append((urgency(file, stand), file))
        if stand.has_surplus or stand.in_vain:
            crowded.append((file, stand))
    trims = [released for file, stand in crowded if (released := releases(file, stand, hosts, policy, now))]
    actions: list[Action] = [release for released in trims[:MAX_LOOKED_AFTER] for release in released]
    placing, why_not, ahead = Placing(hosts, policy, now), dict[bytes, WhyNot](), 0
    heapify(lacking)
    while lacking and ahead < MAX_LOOKED_AFTER and not placing.is_full:
        (_, negated, _), file = heappop(lacking)
        orders, why = placing.place_all(file, -negated)
        actions += orders
        if why is not None and not orders:
            why_not[file.file_id] = why
        ahead += bool(orders) or (why is not None and why.obstacle in ("busy", "turn"))
    if lacking:
        ahead_of = WhyNot("turn", f"{format_count(ahead, 'file')} that lack more are ahead")
        turn = placing.why_full if placing.is_full else ahead_of
        why_not |= {file.file_id: placing.obstacle(file) or turn for _, file in lacking}
    return Plan(actions, why_not)


class Placing:
    """The orders of one plan, each with its share of the hosts' room and of what may be on its way at once."""

    def __init__(self, hosts: Mapping[str, HostView], policy: Policy, now: float) -> None:
        self._hosts = hosts
        self._policy = policy
        self._now = now
        live = {host_id: host for host_id, host in hosts.items() if host.state == "live"}
        self._arriving = {host_id: host.arriving for host_id, host in live.items()}
        cap = policy.max_arriving_per_host  # what a host has beyond it nobody ordered: it takes up no more of the total
        under_way = [min(host.arriving, cap) for host in hosts.values() if host.state != "gone"]
        self._left = policy.max_arriving - sum(under_way)
        self._free = {host_id: host.free for host_id, host in live.items()}
        self._most_free = sorted(live, key=self._free.__getitem__, reverse=True)
        self._zones: dict[str, list[str]] = {}  # of hosts that do not rest
        for host_id, host in live.items():
            if host.rests_until <= now:
                self._zones.setdefault(host.zone, []).append(host_id)
        self._ready = sum(self._arriving[host_id] < cap for zone in self._zones.values() for host_id in zone)

    @property
    def is_full(self) -> bool:
        """Whether nothing more can be ordered, of whatever file."""
        return self._left <= 0 or not self._ready

    @property
    def why_full(self) -> WhyNot:
        """Why nothing more can be ordered."""
        if self._left <= 0:
            return WhyNot(
                "turn", f"as many copies are under way as there may be at once ({self._policy.max_arriving:,})"
            )
        return WhyNot("turn", "no live host can be given another order now")

    def place_all(self, file: FileView, count: int) -> tuple[list[Order], WhyNot | None]:
        """Choose the hosts of `count` more copies, and count them as ordered there; if there are fewer, say why."""
        copies, orders = dict(file.copies), list[Order]()
        while len(orders) < count:
            found = self.look(replace(file, copies=copies))
            if isinstance(found, WhyNot):
                return orders, found
            copies[found] = "arriving"
            orders.append(Order(file.file_id, found))
            self._order(file, found)
        return orders, None

    def _order(self, file: FileView, host_id: str) -> None:
        self._left -= 1
        self._arriving[host_id] += 1
        self._ready -= self._arriving[host_id] == self._policy.max_arriving_per_host
        self._free[host_id] -= file.size
        self._most_free.sort(key=self._free.__getitem__, reverse=True)

    def _ranked(self, host_id: str) -> tuple[int, int]:
        return self._free[host_id].bit_length(), -self._arriving[host_id]

    def look(self, file: FileView) -> str | WhyNot:
        """The host that is to get the next copy of a file, or why there is none."""
        if (why := self.obstacle(file)) is not None:
            return why
        in_zone = self._in_zone(file)
        for count in sorted({in_zone.get(zone, 0) for zone in self._zones}):
            able = [
                host_id
                for zone, its_hosts in self._zones.items()
                if in_zone.get(zone, 0) == count
                for host_id in its_hosts
                if self._free[host_id] >= file.size and host_id not in file.copies
            ]
            if file.refused_by:
                able = [host_id for host_id in able if file.refused_by.get(host_id, self._now) <= self._now]
            if able:
                return self._best(able, file)
        raise AssertionError("a host that no obstacle keeps from it is in no zone")

    def _best(self, able: list[str], file: FileView) -> str | WhyNot:
        ready = [host_id for host_id in able if self._arriving[host_id] < self._policy.max_arriving_per_host]
        if not ready:
            names = ", ".join(sorted(self._hosts[host_id].name for host_id in able)[:3])
            more = f" and {len(able) - 3:,} more" if len(able) > 3 else ""
            return WhyNot("busy", f"waits for {names}{more} to finish other copies")
        if self._left <= 0:
            return self.why_full
        file_mixed = int.from_bytes(file.file_id[:8], "big")
        ranks = {host_id: self._ranked(host_id) for host_id in ready}
        top = max(ranks.values())
        alike = [host_id for host_id, rank in ranks.items() if rank == top]
        return max(alike, key=lambda host_id: (_mixed(host_id) ^ file_mixed) * _FACTOR & _MASK)

    def why_not(self, file: FileView) -> WhyNot | None:
        """Why a file that lacks copies gets none; None: it is about to get one."""
        found = self.look(file)
        return found if isinstance(found, WhyNot) else None

    def hint(self, file: FileView) -> WhyNot | None:
        """As `why_not`, but quickly: which hosts are busy with other copies is not looked at."""
        return self.obstacle(file) or (self.why_full if self.is_full else None)

    def obstacle(self, file: FileView) -> WhyNot | None:
        """Why no host could hold one more copy of a file, be it after others; quick, as it is asked often."""
        if (why := self._no_source(file)) is not None:
            return why
        others = 0
        for host_id in self._most_free:
            if host_id in file.copies:
                continue
            if self._free[host_id] < file.size:
                break
            if self._rests_until(host_id, file) <= self._now:
                return None
            others += 1
        return self._resting(file, others) if others else self._no_room(file)

    def _no_source(self, file: FileView) -> WhyNot | None:
        for host_id, copy in file.copies.items():
            if copy in COMPLETE and _state(self._hosts, host_id) in ("live", "draining"):
                return None
        holders = [
            host.name
            for host_id, copy in file.copies.items()
            if copy in COMPLETE and (host := self._hosts.get(host_id)) is not None
        ]
        if not holders:
            return WhyNot("no-source", "no host has all of it")
        names = ", ".join(sorted(holders)[:3])
        return WhyNot("no-source", f"no host that is up has all of it ({names} had it last)")

    def _no_room(self, file: FileView) -> WhyNot:
        most = next((host_id for host_id in self._most_free if host_id not in file.copies), None)
        if most is None:
            live = format_count(len(self._most_free), "live host")
            return WhyNot("no-host", f"no other host could hold one ({live}, all with some of it or set against it)")
        return WhyNot(
            "no-room",
            f"no other live host has room for {format_bytes(file.size)} "
            f"({self._hosts[most].name} has the most: {format_bytes(max(0, self._free[most]))})",
        )

    def _resting(self, file: FileView, count: int) -> WhyNot:
        roomy = [host for host in self._most_free if host not in file.copies][:count]
        first = min(roomy, key=lambda host_id: self._rests_until(host_id, file))
        left = format_duration(max(1.0, self._rests_until(first, file) - self._now))
        text = (
            f"{format_count(count, 'host')} with room failed lately; {self._hosts[first].name} is tried again in {left}"
        )
        return WhyNot("resting", text)

    def _rests_until(self, host_id: str, file: FileView) -> float:
        return max(self._hosts[host_id].rests_until, file.refused_by.get(host_id, float("-inf")))

    def _in_zone(self, file: FileView) -> dict[str, int]:
        """How many copies of the file each zone has, those on their way included."""
        zones: dict[str, int] = {}
        for host_id, copy in file.copies.items():
            if copy != "stuck" and (host := self._hosts.get(host_id)) and host.state in ("live", "suspect"):
                zones[host.zone] = zones.get(host.zone, 0) + 1
        return zones


@lru_cache(maxsize=_HOSTS_KNOWN)
def _mixed(host_id: str) -> int:
    """A number that depends on the host."""
    return int.from_bytes(host_id.encode(), "big") % _PRIME


def releases(
    file: FileView, stand: Standing, hosts: Mapping[str, HostView], policy: Policy, now: float
) -> list[Action]:
    """Which copies of a file that has too many are given up: those on their way first, then of the fullest zones.

    Only ordered ones, only those on live hosts, and only as many as there are complete ones on live hosts besides.
    Those on their way to hosts that drain go at once, whatever there is besides: they would not count.
    """
    is_due = file.surplus_since is not None and now - file.surplus_since >= policy.trim_after_s
    if not is_due and not stand.in_vain:
        return []
    arriving = sorted(host_id for host_id, copy in file.copies.items() if copy == "arriving")
    released = [host_id for host_id in arriving if _state(hosts, host_id) == "draining"]
    live = {host_id: copy for host_id, copy in file.copies.items() if _state(hosts, host_id) == "live"}
    complete = sum(copy in COMPLETE for copy in live.values())
    if is_due and complete >= file.wanted:
        released += [host_id for host_id in arriving if host_id in live][
            : stand.complete + stand.under_way - file.wanted
        ]
        released += _spare(live, hosts, complete - file.wanted)
    return [Release(file.file_id, host_id) for host_id in released]


def _spare(live: Mapping[str, Copy], hosts: Mapping[str, HostView], count: int) -> list[str]:
    """Up to `count` hosts whose complete copies may go."""
    chosen = list[str]()
    zones = Counter(hosts[host_id].zone for host_id, copy in live.items() if copy in COMPLETE)
    spare = [host_id for host_id, copy in live.items() if copy == "ordered"]
    while spare and len(chosen) < count:
        chosen.append(min(spare, key=lambda host_id: (-zones[hosts[host_id].zone], hosts[host_id].free, host_id)))
        spare.remove(chosen[-1])
        zones[hosts[chosen[-1]].zone] -= 1
    return chosen


def _state(hosts: Mapping[str, HostView], host_id: str) -> HostState | None:
    host = hosts.get(host_id)
    return host.state if host is not None else None
