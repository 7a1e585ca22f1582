"""Handouts in a fleet of zones: peers of the own zone for all, and of other zones for a few, the *gateways*.

In each zone the graph of `handout.handouts` is laid over its own hosts alone. Up to `GATEWAYS` of them, those that
fetch before those that only serve, are also given gateways of other zones: the neighbours on rings of all gateways, so
each zone is reached from each other one, be it by way of a third. The gateways of a zone all know one another, and one
that holds the whole file, if the zone has any: so what the zone has is never far from those that look abroad.

A gateway that is gone is replaced by the next handout. Hosts that were given no zone are one, of the empty name.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from interfiles.placement.handout import DEGREE, handouts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

GATEWAYS: Final = 4  # of a zone: one that dies leaves three, and few connections share a link that may be thin
_ABROAD: Final = 4  # peers in other zones at least, as far as there are so many
_ENOUGH: Final = 2  # hosts that fetch, and a lone source need not be dialled from abroad
_RINGS: Final = DEGREE // 2
_POSITION_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Member:
    """A host that can be dialled for a file; `complete`: it holds every piece."""

    zone: str
    complete: bool


@dataclass(frozen=True, slots=True)
class Handed:
    """What a host is told: whom to dial, and who of its zone fetch from others; nobody where there is one zone."""

    peers: Sequence[str]
    gateways: Sequence[str] = ()


def zoned_handouts(members: Mapping[str, Member], askers: Collection[str], *, salt: bytes) -> dict[str, Handed]:
    """Choose the peers of every asker, at most `DEGREE`, from the other members; `askers` are members too.

    The answer depends on the arguments alone, and is that of `handouts` where there is one zone only.
    """
    zones: defaultdict[str, list[str]] = defaultdict(list)
    for host in sorted(members):
        zones[members[host].zone].append(host)
    if len(zones) <= 1:
        return {asker: Handed(peers) for asker, peers in handouts(members, askers, salt=salt).items()}
    fetching = set(askers)
    gateways = {zone: _gateways(hosts, fetching, salt) for zone, hosts in zones.items()}
    rings = _Rings([(host, zone) for zone, chosen in gateways.items() for host in chosen], salt)
    handed = {}
    for zone, hosts in zones.items():
        known = _whole(hosts, members, salt)
        sharing = [host for host in gateways[zone] if host in fetching]
        for asker, near in handouts(hosts, [host for host in hosts if host in fetching], salt=salt).items():
            if asker not in sharing:
                handed[asker] = Handed(near, sharing)
                continue
            first = dict.fromkeys([*gateways[zone], *known, *near])
            own = [host for host in first if host != asker][: DEGREE - _ABROAD]
            handed[asker] = Handed([*own, *rings.abroad(asker, zone, DEGREE - len(own))], sharing)
    return handed


def _gateways(hosts: Collection[str], fetching: Collection[str], salt: bytes) -> list[str]:
    """By rendezvous, so that one that comes or goes changes one of them at most.

    A source that is alone is none where two others can pass on what it sends: else it would send the file twice, once
    abroad and once at home.
    """
    ranked = sorted(hosts, key=lambda host: (host not in fetching, _position(salt, b"gateway", host)))
    fetchers = sum(host in fetching for host in hosts)
    if fetchers == len(hosts) - 1 >= _ENOUGH:
        ranked.pop()
    return ranked[:GATEWAYS]


def _whole(hosts: Collection[str], members: Mapping[str, Member], salt: bytes) -> list[str]:
    """One host that holds all of the file, or none."""
    found = [host for host in hosts if members[host].complete]
    return [min(found, key=lambda host: _position(salt, b"whole", host))] if found else []


class _Rings:
    """All gateways in several orders, each with its zone."""

    def __init__(self, gateways: Sequence[tuple[str, str]], salt: bytes) -> None:
        self._rings = [
            sorted(gateways, key=lambda entry: _position(salt, b"ring %d" % ring, entry[0])) for ring in range(_RINGS)
        ]
        self._places = [{host: at for at, (host, _) in enumerate(ring)} for ring in self._rings]

    def abroad(self, gateway: str, zone: str, count: int) -> list[str]:
        """The nearest of other zones, one after another on each side of each ring.

        On a ring that is never cut short, so the zones hang together: the last gateway of each run of one zone has
        the first of the next.
        """
        chosen: dict[str, None] = {}
        walks = [self._walk(ring, gateway, zone, step) for ring in range(_RINGS) for step in (1, -1)]
        while walks:
            for walk in list(walks):
                if len(chosen) == count:
                    return list(chosen)
                if (host := next(walk, None)) is None:
                    walks.remove(walk)
                else:
                    chosen[host] = None
        return list(chosen)

    def _walk(self, ring: int, gateway: str, zone: str, step: int) -> Iterator[str]:
        order, at = self._rings[ring], self._places[ring][gateway]
        for distance in range(1, len(order)):
            host, its_zone = order[(at + step * distance) % len(order)]
            if its_zone != zone:
                yield host


def _position(salt: bytes, use: bytes, host: str) -> bytes:
    return blake3(b"%s %s %s" % (salt, use, host.encode())).digest(_POSITION_BYTES)
