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
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from interfiles.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from interfiles.wire.master_messages import HostState

MAX_LOOKED_AFTER: Final = 256  # files of one plan: more would not be ordered at once anyway

# What a host has of a file: all of it, by its own wish or by order; some of it, on its way by order or by its own wish;
# or something that is not on its way (paused, damaged, waiting for a source).
Copy: TypeAlias = Literal["own", "ordered", "arriving", "coming", "stuck"]
_COMPLETE: Final = frozenset({"own", "ordered"})
_BY_ORDER: Final = frozenset({"ordered", "arriving"})

Obstacle: TypeAlias = Literal["no-source", "no-host", "no-room", "resting", "busy", "turn"]


@dataclass(frozen=True, slots=True)
class HostView:
    """A host as a place for copies.

    `free`: bytes that it has room for, less what is ordered and not fetched yet. `arriving`: ordered copies that it
    fetches. `rests_until`: it has failed, and is given no orders before.
    """

    name: str
    zone: str
    state: HostState
    free: int
    arriving: int = 0
    rests_until: float = float("-inf")


@dataclass(frozen=True, slots=True)
class FileView:
    """A file and its copies by host. `size` in bytes.

    `surplus_since`: when it was first seen with more copies than wanted, None: it has none too many. `refused_by`:
    hosts that have failed with this file, and until when it is not ordered there again.
    """

    file_id: bytes
    size: int
    wanted: int
    copies: Mapping[str, Copy]
    surplus_since: float | None = None
    refused_by: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """`max_arriving`: ordered copies on their way at once, in all, and of one host; `trim_after_s`: how long a copy
    that is one too many is kept, so that a host that comes and goes moves nothing.
    """

    max_arriving: int = 32
    max_arriving_per_host: int = 2
    trim_after_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Order:
    """The host is to get a copy of the file."""

    file_id: bytes
    host_id: str


@dataclass(frozen=True, slots=True)
class Release:
    """The host may give its ordered copy up, be it complete or on its way."""

    file_id: bytes
    host_id: str


Action: TypeAlias = Order | Release


@dataclass(frozen=True, slots=True)
class Standing:
    """How a file stands. `complete` and `under_way`: copies that count; `by_order`: those among them that are ordered.

    `left`: complete ones that are not gone, whether they count or not.
    """

    wanted: int
    complete: int
    under_way: int
    by_order: int
    left: int

    @property
    def missing(self) -> int:
        """Copies to be ordered."""
        return max(0, self.wanted - self.complete - self.under_way)

    @property
    def has_surplus(self) -> bool:
        """Whether there are copies too many, and some that may be given up."""
        return self.complete + self.under_way > self.wanted and self.by_order > 0

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing to do."""
        return self.complete >= self.wanted and not self.under_way and not self.has_surplus


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


def standing(file: FileView, hosts: Mapping[str, HostView]) -> Standing:
    """Count a file's copies."""
    complete = under_way = by_order = left = 0
    for host_id, copy in file.copies.items():
        host = hosts.get(host_id)
        if host is None or copy == "stuck":
            continue
        counts = host.state in ("live", "suspect")
        if copy in _COMPLETE:
            left += host.state != "gone"
            complete += counts
        else:
            under_way += counts
        by_order += counts and copy in _BY_ORDER
    return Standing(file.wanted, complete, under_way, by_order, left)


def urgency(file: FileView, stand: Standing) -> tuple[int, int, bytes]:
    """A key by which files are looked after: the fewest copies left first, then the most missing."""
    return stand.left, -stand.missing, file.file_id


def plan(
    files: Iterable[FileView], hosts: Mapping[str, HostView], policy: Policy, now: float, *, waiting: int = 0
) -> Plan:
    """Say what to do for these files, at most `MAX_LOOKED_AFTER` of those that lack copies.

    `now`: seconds on the clock of `rests_until` and the rest. `waiting`: further files that are known to lack copies.
    The same arguments give the same answer.
    """
    lacking, actions = [], list[Action]()
    for file in files:
        stand = standing(file, hosts)
        if stand.missing:
            lacking.append((urgency(file, stand), file, stand))
        elif stand.has_surplus:
            actions += _releases(file, stand, hosts, policy, now)
    chosen = nsmallest(MAX_LOOKED_AFTER, lacking, key=lambda entry: entry[0])
    placing = _Placing(hosts, policy, now)
    why_not = {}
    for _, file, stand in chosen:
        for _ in range(stand.missing):
            found = placing.place(file)
            if isinstance(found, WhyNot):
                why_not[file.file_id] = found
                break
            actions.append(found)
    ahead = len(chosen)
    behind = len(lacking) + waiting - ahead
    for _, file, _ in lacking if behind else ():
        why_not.setdefault(file.file_id, WhyNot("turn", f"{format_count(ahead, 'file')} that lack more are ahead"))
    ordered = {action.file_id for action in actions if isinstance(action, Order)}
    return Plan(actions, {file_id: why for file_id, why in why_not.items() if file_id not in ordered})


def explain(file: FileView, hosts: Mapping[str, HostView], policy: Policy, now: float) -> WhyNot | None:
    """Why a file has fewer copies than wanted, finished or on their way; None: it does not lack any, or is about to
    get one.
    """
    if not standing(file, hosts).missing:
        return None
    found = _Placing(hosts, policy, now).place(file)
    return found if isinstance(found, WhyNot) else None


class _Placing:
    """The orders of one plan, each with its share of the hosts' room and of what may be on its way at once."""

    def __init__(self, hosts: Mapping[str, HostView], policy: Policy, now: float) -> None:
        self._hosts = hosts
        self._policy = policy
        self._now = now
        self._arriving = {host_id: host.arriving for host_id, host in hosts.items()}
        self._left = policy.max_arriving - sum(self._arriving.values())
        self._free = {host_id: host.free for host_id, host in hosts.items()}
        self._live = [host_id for host_id, host in hosts.items() if host.state == "live"]
        self._placed: dict[bytes, list[str]] = {}

    def place(self, file: FileView) -> Order | WhyNot:
        """Choose the host of one more copy, and count it as ordered there."""
        if (why := self._no_source(file)) is not None:
            return why
        placed = self._placed.setdefault(file.file_id, [])
        able, why = self._able(file, placed)
        if why is not None:
            return why
        in_zone = self._zones(file, placed)
        fewest = min(in_zone[self._hosts[host_id].zone] for host_id in able)
        best = [host_id for host_id in able if in_zone[self._hosts[host_id].zone] == fewest]
        ready = [host_id for host_id in best if self._arriving[host_id] < self._policy.max_arriving_per_host]
        if not ready or self._left <= 0:
            return self._busy(best if not ready else None)
        chosen = max(ready, key=lambda host_id: self._rank(host_id, file.file_id))
        placed.append(chosen)
        self._arriving[chosen] += 1
        self._left -= 1
        self._free[chosen] -= file.size
        return Order(file.file_id, chosen)

    def _no_source(self, file: FileView) -> WhyNot | None:
        holders = [self._hosts[host_id] for host_id, copy in file.copies.items() if copy in _COMPLETE]
        if any(host.state in ("live", "draining") for host in holders):
            return None
        if not holders:
            return WhyNot("no-source", "no host has all of it")
        names = ", ".join(sorted(host.name for host in holders)[:3])
        return WhyNot("no-source", f"no host that is up has all of it ({names} had it last)")

    def _able(self, file: FileView, placed: Sequence[str]) -> tuple[list[str], WhyNot | None]:
        """The hosts that could hold a copy, now or when they have fetched others; if there are none, why."""
        others = [host_id for host_id in self._live if host_id not in file.copies and host_id not in placed]
        if not others:
            held = len(file.copies) + len(placed)
            return [], WhyNot("no-host", f"no other host is live ({format_count(held, 'host')} with some of it)")
        roomy = [host_id for host_id in others if self._free[host_id] >= file.size]
        if not roomy:
            most = max(others, key=lambda host_id: self._free[host_id])
            return [], WhyNot(
                "no-room",
                f"no other live host has room for {format_bytes(file.size)} "
                f"({self._hosts[most].name} has the most: {format_bytes(max(0, self._free[most]))})",
            )
        rests = {host_id: self._rests_until(host_id, file) for host_id in roomy}
        able = [host_id for host_id in roomy if rests[host_id] <= self._now]
        if not able:
            first = min(roomy, key=lambda host_id: rests[host_id])
            left = format_duration(max(1.0, rests[first] - self._now))
            count = format_count(len(roomy), "host")
            return [], WhyNot(
                "resting", f"{count} with room failed lately; {self._hosts[first].name} is tried again in {left}"
            )
        return able, None

    def _rests_until(self, host_id: str, file: FileView) -> float:
        return max(self._hosts[host_id].rests_until, file.refused_by.get(host_id, float("-inf")))

    def _busy(self, hosts: Sequence[str] | None) -> WhyNot:
        if hosts is None:
            most = format_count(self._policy.max_arriving, "copy", "copies")
            return WhyNot("turn", f"{most} are under way, as many as there may be at once")
        names = ", ".join(sorted(self._hosts[host_id].name for host_id in hosts)[:3])
        more = f" and {len(hosts) - 3:,} more" if len(hosts) > 3 else ""
        return WhyNot("busy", f"waits for {names}{more} to finish other copies")

    def _zones(self, file: FileView, placed: Sequence[str]) -> Counter[str]:
        """How many copies of the file each zone has, those on their way included."""
        zones = Counter(self._hosts[host_id].zone for host_id in placed)
        for host_id, copy in file.copies.items():
            if copy != "stuck" and (host := self._hosts.get(host_id)) and host.state in ("live", "suspect"):
                zones[host.zone] += 1
        return zones

    def _rank(self, host_id: str, file_id: bytes) -> tuple[int, int, int]:
        mixed = int.from_bytes(file_id[:8], "big") ^ int.from_bytes(host_id.encode()[:8], "big")
        return self._free[host_id].bit_length(), -self._arriving[host_id], mixed * 0x9E3779B97F4A7C15 & (1 << 64) - 1


def _releases(
    file: FileView, stand: Standing, hosts: Mapping[str, HostView], policy: Policy, now: float
) -> list[Action]:
    """Which copies of a file that has too many are given up: those on their way first, then of the fullest zones.

    Only ordered ones, only those on live hosts, and only as many as there are complete ones on live hosts besides.
    """
    if file.surplus_since is None or now - file.surplus_since < policy.trim_after_s:
        return []
    live = {host_id: copy for host_id, copy in file.copies.items() if _state(hosts, host_id) == "live"}
    complete = sum(copy in _COMPLETE for copy in live.values())
    if complete < file.wanted:
        return []
    arriving = sorted(host_id for host_id, copy in live.items() if copy == "arriving")
    released = arriving[: stand.complete + stand.under_way - file.wanted]
    zones = Counter(hosts[host_id].zone for host_id, copy in live.items() if copy in _COMPLETE)
    spare = [host_id for host_id, copy in live.items() if copy == "ordered"]
    while spare and complete > file.wanted:
        most: Callable[[str], tuple[int, int, str]] = lambda host_id: (  # noqa: E731
            -zones[hosts[host_id].zone],
            hosts[host_id].free,
            host_id,
        )
        chosen = min(spare, key=most)
        spare.remove(chosen)
        zones[hosts[chosen].zone] -= 1
        complete -= 1
        released.append(chosen)
    return [Release(file.file_id, host_id) for host_id in released]


def _state(hosts: Mapping[str, HostView], host_id: str) -> HostState | None:
    host = hosts.get(host_id)
    return host.state if host is not None else None
