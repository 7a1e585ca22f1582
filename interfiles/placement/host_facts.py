"""What the registry knows and tells of hosts and of their copies."""

from dataclasses import dataclass, field

from interfiles.wire.master_messages import Holding, HostState


@dataclass(frozen=True, slots=True)
class StateChange:
    """A host is in another state than before; `silent_s`: not heard from for so long."""

    host_id: str
    name: str
    before: HostState
    after: HostState
    silent_s: float


@dataclass(frozen=True, slots=True)
class Room:
    """A host as a place for copies; `free` bytes, as it announced. `is_known`: so is what it holds.

    `heard_at`: when it was heard from last; `draining`: it is to be emptied, be it up or not.
    """

    host_id: str
    name: str
    zone: str
    state: HostState
    free: int
    is_known: bool
    heard_at: float
    draining: bool


@dataclass(frozen=True, slots=True)
class Copies:
    """How many hosts that are not gone hold a file whole, and how many a part of it. Those that drain do not count."""

    complete: int
    partial: int


@dataclass(slots=True)
class RegisteredHost:
    """What the registry, which alone may write here, knows of one host."""

    host_id: str
    name: str
    zone: str
    address: str
    heard_at: float
    up: bool
    draining: bool = False
    has_announced: bool = False  # all that it holds, since the master started
    used: int = 0
    free: int = 0
    holdings: dict[bytes, Holding] = field(default_factory=dict)
    unconfirmed: set[bytes] = field(default_factory=set)  # holdings from before it began to announce all anew
    told: HostState | None = None  # what `state_changes` last saw it in; None: not looked at yet
    told_free: int = 0  # what `free` was when it was last said to have changed


def role(holding: Holding | None) -> tuple[str, bool, bool]:
    """What others' handouts depend on, and how a file's copies count; None: a host holds nothing of it."""
    return (holding.state, holding.pieces > 0, holding.ordered) if holding is not None else ("none", False, False)


def holds_some(holding: Holding) -> bool:
    """Whether a host has bytes of a file."""
    return holding.pieces > 0 or holding.state == "complete"


def is_not_whole(holding: Holding | None) -> bool:
    """Whether a host holds a file, and less than all of it for now."""
    return holding is not None and holding.state != "complete"
