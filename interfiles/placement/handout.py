"""Handouts: which peers of a swarm each fetching host should dial.

In a swarm small enough everybody dials everybody. In a larger one the hosts are laid on a few rings, each in an order
of its own that only a hash decides, and a host's peers are its neighbours on all of them: a random regular graph, so no
host is dialled by too many, the source included, and one that comes or goes changes the peers of its neighbours only.
Every ring goes round all of them, so each piece reaches everybody, by way of others; if everybody dialled the source,
what it sends would be spread too thin.
"""

from bisect import bisect
from collections.abc import Collection, Iterable
from typing import Final

from blake3 import blake3

DEGREE: Final = 12  # peers a host dials: enough that pieces spread in about log N steps, few enough to hold open

_POSITION_BYTES: Final = 8


def handouts(
    members: Collection[str], askers: Iterable[str], *, salt: bytes, degree: int = DEGREE
) -> dict[str, list[str]]:
    """Choose the peers of every asker, at most `degree` each, from the other members.

    `members`: the hosts that can be dialled. `askers` need not be among them. The answer depends on the arguments
    alone, on `members` as a set: nothing changes while they don't. Another `salt` gives another graph.
    """
    if len(members) <= degree + 1:
        everybody = sorted(members)
        return {asker: [peer for peer in everybody if peer != asker][:degree] for asker in askers}
    graph = _Rings(members, salt, degree)
    return {asker: graph.peers(asker) for asker in askers}


class _Rings:
    """The members in `degree` / 2 orders: with both neighbours on each ring a host has `degree` peers."""

    def __init__(self, members: Collection[str], salt: bytes, degree: int) -> None:
        self._salt = salt
        self._degree = degree
        self._count = max(1, degree // 2)
        positions = {host: self._positions(host) for host in members}
        self._rings = [sorted((positions[host][ring], host) for host in members) for ring in range(self._count)]
        self._orders = [[host for _, host in ring] for ring in self._rings]
        self._places = [{host: at for at, host in enumerate(order)} for order in self._orders]

    def _positions(self, host: str) -> list[bytes]:
        digest = blake3(self._salt + host.encode()).digest(self._count * _POSITION_BYTES)
        return [digest[at : at + _POSITION_BYTES] for at in range(0, len(digest), _POSITION_BYTES)]

    def peers(self, asker: str) -> list[str]:
        """The nearest on every ring; those further away only to make up for neighbours met on several rings."""
        chosen: dict[str, None] = {}
        starts = self._starts(asker)
        count, degree = len(self._orders[0]), self._degree
        for distance in range(1, count):
            for order, (behind, ahead) in zip(self._orders, starts, strict=True):
                chosen[order[(behind + distance) % count]] = None
                chosen[order[(ahead - distance) % count]] = None
            if len(chosen) >= degree:
                break
        return list(chosen)[:degree]

    def _starts(self, asker: str) -> list[tuple[int, int]]:
        """From where neighbours are counted, on each ring, after the asker and before: its own place if it has one."""
        if asker in self._places[0]:
            return [(at[asker], at[asker]) for at in self._places]
        places = zip(self._rings, self._positions(asker), strict=True)
        after = [bisect(ring, (position, asker)) for ring, position in places]
        return [(at - 1, at) for at in after]
