"""A file's copies and the hosts of the fleet as the reconciler's decisions see them, and how a file stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from interfiles.wire.master_messages import HostState

# What a host has of a file: all of it, by its own wish or by order; some of it, on its way by order or by its own wish;
# or something that is not on its way (paused, damaged, waiting for a source).
Copy: TypeAlias = Literal["own", "ordered", "arriving", "coming", "stuck"]
COMPLETE: Final = frozenset({"own", "ordered"})
_MOST_NAMED: Final = 3  # hosts, in one sentence
_BY_ORDER: Final = frozenset({"ordered", "arriving"})


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

    `left`: complete ones that are not gone, whether they count or not. `in_vain`: ordered ones on their way to hosts
    that drain.
    """

    wanted: int
    complete: int
    under_way: int
    by_order: int
    left: int
    in_vain: int

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
        return self.complete >= self.wanted and not (self.under_way or self.has_surplus or self.in_vain)


def standing(file: FileView, hosts: Mapping[str, HostView]) -> Standing:
    """Count a file's copies."""
    complete = under_way = by_order = left = in_vain = 0
    for host_id, copy in file.copies.items():
        host = hosts.get(host_id)
        if host is None or copy == "stuck":
            continue
        state = host.state
        counts = state == "live" or state == "suspect"
        if copy in COMPLETE:
            left += state != "gone"
            complete += counts
        else:
            under_way += counts
            in_vain += state == "draining" and copy == "arriving"
        by_order += counts and copy in _BY_ORDER
    return Standing(file.wanted, complete, under_way, by_order, left, in_vain)


def cause(file: FileView, stand: Standing, hosts: Mapping[str, HostView]) -> str:
    """Why another copy of a file is ordered, in words: how many are wanted and there, and whose do not count."""
    wanted = "a copy is wanted" if stand.wanted == 1 else f"{stand.wanted:,} copies are wanted"
    there = f"{stand.complete:,} {'is' if stand.complete == 1 else 'are'} there" if stand.complete else "none is there"
    coming = f" and {stand.under_way:,} under way" if stand.under_way else ""
    out = [
        f"{host.name} ({why})"
        for host_id, copy in file.copies.items()
        if (host := hosts.get(host_id)) is not None and (why := _why_uncounted(copy, host.state))
    ]
    shown = sorted(out)[:_MOST_NAMED] + ([f"{len(out) - _MOST_NAMED:,} more"] if len(out) > _MOST_NAMED else [])
    return f"{wanted}, {there}{coming}" + (f"; not counted: {', '.join(shown)}" if shown else "")


def _why_uncounted(copy: Copy, state: HostState) -> str:
    """Why what a host has of a file does not count; empty: it does."""
    if state in ("gone", "draining"):
        return state
    return "not whole or not wanted" if copy == "stuck" else ""


def urgency(file: FileView, stand: Standing) -> tuple[int, int, bytes]:
    """A key by which files are looked after: the fewest copies left first, then the most missing."""
    return stand.left, -stand.missing, file.file_id
