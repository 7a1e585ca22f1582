"""The hosts of a fleet as places for copies, filed so that one is chosen without a look at all the others.

What is asked of it for every file that lacks a copy is who has most room, and who in a zone fetches fewest of those
that have about as much; so the live hosts are in two lists by their room, and in one for each zone and rank. A change
of one host costs a few steps of a binary search in each.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from interfiles.placement.standing import HostView

# The number of binary digits of its free space, so that less than a factor of two is no difference; then how few copies
# a host fetches.
Rank: TypeAlias = tuple[int, int]

T = TypeVar("T", str, tuple[int, str])


class Places:
    """`most_arriving`: ordered copies that one host may fetch at once. Times are seconds on one clock."""

    def __init__(self, hosts: Mapping[str, HostView], most_arriving: int) -> None:
        self.most_arriving: Final = most_arriving
        self._hosts: dict[str, HostView] = {}
        self._not_counting: set[str] = set()
        self._ready: list[tuple[int, str]] = []  # live hosts that do not rest, by free bytes
        self._resting: list[tuple[int, str]] = []  # those that do
        self._rested: list[tuple[float, str]] = []  # a heap: when they have rested; outdated entries are passed over
        self._known: set[tuple[float, str]] = set()  # what is in the heap
        self._ranks: dict[str, dict[Rank, list[str]]] = {}  # by zone, of hosts that do not rest
        self._under_way = 0
        self._able = 0
        for host_id, host in hosts.items():
            self.put(host_id, host)

    def put(self, host_id: str, host: HostView) -> None:
        """A host is as this says now. If it rests, it does so until `wake` is told that its time is over."""
        self.drop(host_id)
        self._hosts[host_id] = host
        if host.state != "gone":
            self._under_way += min(host.arriving, self.most_arriving)
        if host.state not in ("live", "suspect"):
            self._not_counting.add(host_id)
        if host.state == "live":
            if host.rests_until == float("-inf"):
                self._file(host_id, host)
            else:
                insort(self._resting, (host.free, host_id))
                if (entry := (host.rests_until, host_id)) not in self._known:
                    self._known.add(entry)
                    heappush(self._rested, entry)

    def drop(self, host_id: str) -> None:
        """A host is not of the fleet any more."""
        host = self._hosts.pop(host_id, None)
        if host is None:
            return
        self._not_counting.discard(host_id)
        if host.state != "gone":
            self._under_way -= min(host.arriving, self.most_arriving)
        if host.state == "live" and not _discard(self._resting, (host.free, host_id)):
            self._take_out(host_id, host)

    def wake(self, now: float) -> None:
        """Hosts that rested until now are ready."""
        while self._rested and self._rested[0][0] <= now:
            self._known.discard(entry := heappop(self._rested))
            until, host_id = entry
            host = self._hosts.get(host_id)
            if host is not None and host.rests_until == until and _discard(self._resting, (host.free, host_id)):
                self._file(host_id, host)

    def _file(self, host_id: str, host: HostView) -> None:
        insort(self._ready, (host.free, host_id))
        insort(self._ranks.setdefault(host.zone, {}).setdefault(self._rank(host), []), host_id)
        self._able += host.arriving < self.most_arriving

    def _take_out(self, host_id: str, host: HostView) -> None:
        _discard(self._ready, (host.free, host_id))
        ranks, rank = self._ranks[host.zone], self._rank(host)
        _discard(ranks[rank], host_id)
        if not ranks[rank]:
            del ranks[rank]
            if not ranks:
                del self._ranks[host.zone]
        self._able -= host.arriving < self.most_arriving

    def _rank(self, host: HostView) -> Rank:
        return max(0, host.free).bit_length(), -min(host.arriving, self.most_arriving)

    # What is asked

    @property
    def hosts(self) -> Mapping[str, HostView]:
        """Every host; changes with what is put."""
        return self._hosts

    @property
    def not_counting(self) -> set[str]:
        """The hosts whose copies do not count."""
        return self._not_counting

    @property
    def under_way(self) -> int:
        """Ordered copies on their way; what a host has of them beyond what it may nobody ordered: it does not count."""
        return self._under_way

    @property
    def is_any_able(self) -> bool:
        """Whether any live host can be given another order now."""
        return self._able > 0

    @property
    def zones(self) -> Mapping[str, Mapping[Rank, Sequence[str]]]:
        """Live hosts that do not rest, by zone and rank, in the order of their ids."""
        return self._ranks

    def live(self) -> int:
        """How many hosts are live."""
        return len(self._ready) + len(self._resting)

    def ready(self, size: int | None) -> Iterator[str]:
        """Live hosts that do not rest and have room for so many bytes (None: all), those with most first."""
        return _roomy(self._ready, size)

    def resting(self, size: int | None) -> Iterator[str]:
        """Live hosts that rest and have room for so many bytes (None: all), those with most first."""
        return _roomy(self._resting, size)

    def check_invariants(self, now: float) -> None:
        """Raise AssertionError unless all agrees with what was put, as it is when `wake` was called now (for tests)."""
        fresh = Places(self._hosts, self.most_arriving)
        fresh.wake(now)
        for name in ("_not_counting", "_ready", "_resting", "_ranks", "_under_way", "_able"):
            assert getattr(self, name) == getattr(fresh, name), f"{name} is not what was put"
        rested = {(self._hosts[host_id].rests_until, host_id) for _, host_id in self._resting}
        assert rested <= set(self._rested), "a host rests for ever"
        assert self._known == set(self._rested), "what is in the heap is not known"


def _roomy(by_free: list[tuple[int, str]], size: int | None) -> Iterator[str]:
    for free, host_id in reversed(by_free):
        if size is not None and free < size:
            return
        yield host_id


def _discard(ordered: list[T], one: T) -> bool:
    """Take something out of a sorted list; return whether it was there."""
    at = bisect_left(ordered, one)
    if at == len(ordered) or ordered[at] != one:
        return False
    del ordered[at]
    return True
