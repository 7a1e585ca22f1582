"""What fleets a file is spread over: how many hosts, by what links. The source is host 0, all others receive."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from benchmarks import bounds
from benchmarks.namespaces import Link
from interfiles.geometry import choose_piece_size

MBIT: Final = 1_000_000
BITS: Final = 8


@dataclass(frozen=True)
class Scenario:
    """Hosts and their links, in bits per second; a link's bridge is the number of the host's zone.

    `between`: the rate between the zones, each way. `source_dies`: its process is killed at the moment when the
    receivers hold every piece between them.
    """

    name: str
    links: tuple[Link, ...]
    between: int | None = None
    source_dies: bool = False

    @cached_property
    def receivers(self) -> range:
        """The numbers of those that fetch."""
        return range(1, len(self.links))

    def zone(self, number: int) -> str:
        """The zone of a host; empty if there is one only."""
        return "ab"[self.links[number].bridge] if self.between is not None else ""

    def slower(self, factor: float) -> "Scenario":
        """The same with all rates divided by this."""
        links = tuple(Link(round(link.up / factor), round(link.down / factor), link.bridge) for link in self.links)
        return replace(self, links=links, between=self.between and round(self.between / factor))

    def bound_s(self, size: int) -> float:
        """The least time until all receivers have a file of so many bytes (`benchmarks.bounds`)."""
        source, *others = self.links
        if self.between is None and len(set(self.links)) == 1:
            pieces = math.ceil(size / choose_piece_size(size))
            return bounds.equal_uplinks_s(size, pieces, source.up / BITS, len(others))
        return bounds.fluid_s(
            size,
            source.up / BITS,
            [link.up / BITS for link in others],
            [link.down / BITS for link in others],
            link=None if self.between is None else self.between / BITS,
        )


def _equal(name: str, receivers: int, *, source_dies: bool = False) -> Scenario:
    return Scenario(name, (Link(100 * MBIT, 100 * MBIT),) * (receivers + 1), source_dies=source_dies)


def _mixed(receivers: int) -> Scenario:
    rates = [(20, 100, 200)[number % 3] * MBIT for number in range(receivers)]
    return Scenario("mixed", (Link(100 * MBIT, 100 * MBIT), *(Link(rate, rate) for rate in rates)))


def _zones(receivers: int) -> Scenario:
    """So many receivers in each of two zones, and the source in the first."""
    zones = [0] * (receivers + 1) + [1] * receivers
    return Scenario("zones", tuple(Link(100 * MBIT, 100 * MBIT, zone) for zone in zones), between=20 * MBIT)


ALL: Final = [
    _equal("equal-4", 4),
    _equal("equal-8", 8),
    _equal("equal-16", 16),
    _mixed(8),
    _zones(5),
    _equal("source_dies", 8, source_dies=True),
]
