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
from heapq import heapify, heappop
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from interfiles.placement.standing import COMPLETE, Action, Order, Release, standing, urgency
from interfiles.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from interfiles.placement.places import Places, Rank
    from interfiles.placement.standing import Copy, FileView, HostView, Policy, Standing
    from interfiles.wire.master_messages import HostState

MAX_LOOKED_AFTER: Final = 128  # files of one plan: more would not be ordered at once anyway

Obstacle: TypeAlias = Literal["no-source", "no-host", "no-room", "resting", "busy", "turn"]


@dataclass(frozen=True, slots=True)
class WhyNot:
    """Why a file has fewer copies than are wanted, and none is ordered now; `text` says it to a person."""

    obstacle: Obstacle
    text: str


def plan(files: Iterable[FileView], places: Places, policy: Policy, now: float) -> list[Action]:
    """Say what to do for these files; the most urgent come first, until no more can be ordered at once.

    At most `MAX_LOOKED_AFTER` that have too few copies are placed, and as many that have too many are trimmed; those
    that no host could hold take up nobody's place. `now`: seconds on the clock of `rests_until` and the rest. The same
    arguments give the same answer; `places` is left as it was, but for hosts that have rested enough.
    """
    lacking: list[tuple[tuple[int, int, bytes], FileView]] = []
    crowded: list[tuple[FileView, Standing]] = []
    for file in files:
        stand = standing(file, places.hosts)
        if stand.missing:
            lacking.append((urgency(file, stand), file))
        if stand.has_surplus or stand.in_vain:
            crowded.append((file, stand))
    trims = [released for file, stand in crowded if (released := releases(file, stand, places.hosts, policy, now))]
    actions: list[Action] = [release for released in trims[:MAX_LOOKED_AFTER] for release in released]
    placing, ahead = Placing(places, policy, now), 0
    heapify(lacking)
    try:
        while lacking and ahead < MAX_LOOKED_AFTER and not placing.is_full:
            (_, negated, _), file = heappop(lacking)
            orders = placing.place_all(file, -negated)
            actions += orders
            ahead += bool(orders) or placing.obstacle(file) is None
    finally:
        placing.take_back()
    return actions


class Placing:
    """The orders of one plan, each with its share of the hosts' room and of what may be on its way at once."""

    def __init__(self, places: Places, policy: Policy, now: float) -> None:
        self._places = places
        self._hosts = places.hosts
        self._policy = policy
        self._now = now
        self._before: dict[str, HostView] = {}  # hosts that were ordered something, as they were
        places.wake(now)

    @property
    def _left(self) -> int:
        return self._policy.max_arriving - self._places.under_way

    @property
    def is_full(self) -> bool:
        """Whether nothing more can be ordered, of whatever file."""
        return self._left <= 0 or not self._places.is_any_able

    @property
    def _why_full(self) -> WhyNot:
        if self._left <= 0:
            return WhyNot(
                "turn", f"as many copies are under way as there may be at once ({self._policy.max_arriving:,})"
            )
        return WhyNot("turn", "no live host can be given another order now")

    def place_all(self, file: FileView, count: int) -> list[Order]:
        """Choose the hosts of `count` more copies, or of as many as can be had, and count them as ordered there."""
        copies, orders = dict(file.copies), list[Order]()
        while len(orders) < count and (host_id := self.choose(replace(file, copies=copies))) is not None:
            copies[host_id] = "arriving"
            orders.append(Order(file.file_id, host_id))
            host = self._hosts[host_id]
            self._before.setdefault(host_id, host)
            self._put(host_id, replace(host, arriving=host.arriving + 1, free=host.free - file.size))
        return orders

    def take_back(self) -> None:
        """The hosts are again as they were before anything was ordered there."""
        for host_id, host in self._before.items():
            self._put(host_id, host)
        self._before.clear()

    def _put(self, host_id: str, host: HostView) -> None:
        self._places.put(host_id, host)
        self._places.wake(self._now)

    def choose(self, file: FileView) -> str | None:
        """The host that is to get the next copy of a file; None: there is none now."""
        if self._left <= 0 or not self._has_source(file):
            return None
        for ranks in self._zones_by_copies(file):
            is_any_busy = False
            for rank in sorted(ranks, reverse=True):
                if rank[0] < file.size.bit_length():
                    break
                if (host_id := next(self._able(ranks[rank], file), None)) is not None:
                    if -rank[1] < self._places.most_arriving:
                        return host_id
                    is_any_busy = True
            if is_any_busy:
                return None  # these are waited for
        return None

    def _zones_by_copies(self, file: FileView) -> Iterator[Mapping[Rank, Sequence[Sequence[str]]]]:
        """The hosts that do not rest, by rank: of all zones that have the fewest copies first, and so on."""
        zones, in_zone = self._places.zones, self._in_zone(file)
        for count in sorted({in_zone.get(zone, 0) for zone in zones}):
            ranks: dict[Rank, list[Sequence[str]]] = {}
            for zone in sorted(zones):
                if in_zone.get(zone, 0) == count:
                    for rank, host_ids in zones[zone].items():
                        ranks.setdefault(rank, []).append(host_ids)
            yield ranks

    def _able(self, alike: Sequence[Sequence[str]], file: FileView) -> Iterator[str]:
        """Those that could hold a copy, from one on that depends on the file."""
        first = int.from_bytes(file.file_id[:8], "big") % sum(map(len, alike))
        for host_id in _going_round(alike, first):
            if self._is_able(host_id, file) and self._hosts[host_id].free >= file.size:
                yield host_id

    def _is_able(self, host_id: str, file: FileView) -> bool:
        return host_id not in file.copies and file.refused_by.get(host_id, self._now) <= self._now

    def why_not(self, file: FileView) -> WhyNot | None:
        """Why a file that lacks copies gets none; None: it is about to get one."""
        if (why := self._obstacle(file)) is not None:
            return why
        if self.choose(file) is not None:
            return None
        for ranks in self._zones_by_copies(file):
            busy: list[str] = []
            for host_id in (host_id for alike in ranks.values() for host_id in self._able(alike, file)):
                if self._hosts[host_id].arriving < self._places.most_arriving:
                    return self._why_full
                busy.append(host_id)
            if busy:
                return self._busy(busy)
        return self._why_full

    def hint(self, file: FileView) -> WhyNot | None:
        """As `why_not`, but quickly: which hosts are busy with other copies is not looked at."""
        return self._obstacle(file) or (self._why_full if self.is_full else None)

    def obstacle(self, file: FileView) -> Obstacle | None:
        """Why no host could hold one more copy of a file, be it after others; quick, as it is asked often."""
        if not self._has_source(file):
            return "no-source"
        is_refused = False
        for host_id in self._places.ready(file.size):
            if self._is_able(host_id, file):
                return None
            is_refused = is_refused or host_id not in file.copies
        if is_refused or any(host_id not in file.copies for host_id in self._places.resting(file.size)):
            return "resting"
        return "no-host" if self._roomiest(file) is None else "no-room"

    def _obstacle(self, file: FileView) -> WhyNot | None:
        """As `obstacle`, in words."""
        match obstacle := self.obstacle(file):
            case None:
                return None
            case "no-source":
                return WhyNot(obstacle, self._why_no_source(file))
            case "resting":
                return WhyNot(obstacle, self._who_rests(file))
            case _:
                return WhyNot(obstacle, self._why_no_room(file))

    def _has_source(self, file: FileView) -> bool:
        for host_id, copy in file.copies.items():
            if copy in COMPLETE and _state(self._hosts, host_id) in ("live", "draining"):
                return True
        return False

    def _why_no_source(self, file: FileView) -> str:
        holders = [
            host.name
            for host_id, copy in file.copies.items()
            if copy in COMPLETE and (host := self._hosts.get(host_id)) is not None
        ]
        if not holders:
            return "no host has all of it"
        names = ", ".join(sorted(holders)[:3])
        return f"no host that is up has all of it ({names} had it last)"

    def _roomiest(self, file: FileView) -> str | None:
        """The live host that has most room of those with nothing of a file."""
        found = [
            host_id
            for hosts in (self._places.ready(None), self._places.resting(None))
            if (host_id := next((one for one in hosts if one not in file.copies), None)) is not None
        ]
        return max(found, key=lambda host_id: self._hosts[host_id].free, default=None)

    def _why_no_room(self, file: FileView) -> str:
        if (most := self._roomiest(file)) is None:
            return f"no other host could hold one ({'; '.join(self._why_no_host(file))})"
        free = format_bytes(max(0, self._hosts[most].free))
        return (
            f"no other live host has room for {format_bytes(file.size)} ({self._hosts[most].name} has the most: {free})"
        )

    def _why_no_host(self, file: FileView) -> Iterator[str]:
        """What hosts there are, none of which could hold a copy, in words; what people can do something about first."""
        live = self._places.live()
        stuck = sorted(
            self._hosts[host_id].name
            for host_id, copy in file.copies.items()
            if copy == "stuck" and _state(self._hosts, host_id) == "live"
        )
        yield f"{format_count(live, 'live host')}, all with some of it or set against it" if live else "no live host"
        if stuck:
            more = f" and {len(stuck) - 1:,} more" if len(stuck) > 1 else ""
            yield f"not whole or not wanted on {stuck[0]}{more}"
        by_state: dict[HostState, list[str]] = {}
        for host in self._hosts.values():
            by_state.setdefault(host.state, []).append(host.name)
        if names := by_state.get("draining"):
            who = f"{names[0]} drains" if len(names) == 1 else f"{len(names):,} hosts drain"
            yield f"{who}, which `interfiles hosts undrain` ends"
        for state in ("suspect", "gone"):
            if names := by_state.get(state):
                yield f"{len(names):,} {state}"

    def _who_rests(self, file: FileView) -> str:
        places = self._places
        roomy = [
            host_id
            for hosts in (places.ready(file.size), places.resting(file.size))
            for host_id in hosts
            if host_id not in file.copies
        ]
        first = min(roomy, key=lambda host_id: (self._rests_until(host_id, file), host_id))
        left = format_duration(max(1.0, self._rests_until(first, file) - self._now))
        count = format_count(len(roomy), "host")
        return f"{count} with room failed lately; {self._hosts[first].name} is tried again in {left}"

    def _busy(self, host_ids: Sequence[str]) -> WhyNot:
        names = ", ".join(sorted(self._hosts[host_id].name for host_id in host_ids)[:3])
        more = f" and {len(host_ids) - 3:,} more" if len(host_ids) > 3 else ""
        return WhyNot("busy", f"waits for {names}{more} to finish other copies")

    def _rests_until(self, host_id: str, file: FileView) -> float:
        return max(self._hosts[host_id].rests_until, file.refused_by.get(host_id, float("-inf")))

    def _in_zone(self, file: FileView) -> dict[str, int]:
        """How many copies of the file each zone has, those on their way included."""
        zones: dict[str, int] = {}
        for host_id, copy in file.copies.items():
            if copy != "stuck" and (host := self._hosts.get(host_id)) and host.state in ("live", "suspect"):
                zones[host.zone] = zones.get(host.zone, 0) + 1
        return zones


def _going_round(lists: Sequence[Sequence[str]], first: int) -> Iterator[str]:
    """All that is in these lists one after the other, from the `first` on, and then what is before it."""
    number = 0
    while first >= len(lists[number]):
        first -= len(lists[number])
        number += 1
    yield from lists[number][first:]
    for several in (*lists[number + 1 :], *lists[:number]):
        yield from several
    yield from lists[number][:first]


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
