"""What the registry tells of hosts and of their copies, as plain values."""

from dataclasses import dataclass

from interfiles.wire.master_messages import HostState


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
